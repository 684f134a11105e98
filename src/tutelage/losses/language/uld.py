"""Universal logit distillation (Boizard et al. 2024), for different tokenizers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.logits import log_softmax
from tutelage.losses.masks import check_mask, only
from tutelage.losses.precision import in_float32


class ULD(nn.Module):
    """Matches the student's sorted probabilities to the teacher's, regardless of which tokens they belong to.

    ``mean_b mean_t Σ_v |sort(q)_v − sort(p)_v|``, q and p the softmax of the teacher's and the student's logits.
    Vocabularies and lengths may differ: the smaller vocabulary is padded with zeros, the t-th token of the student's
    answer is compared with the t-th of the teacher's, up to the shorter length. There is no T, hence no T². An example
    without an answer contributes 0.

    ``logits[i]`` predict ``label[i]``, so a mask is true where the label is a token of the answer. (TRL's default reads
    the logits one position late.)

    Shape:
        student [B, L_s, V_s], student_mask [B, L_s], teacher [B, L_t, V_t], teacher_mask [B, L_t]; the masks bools. A
        scalar.

    Raises:
        TutelageError: shapes that do not fit; names them.

    Published weight: 1.5, cross-entropy at 1 (the authors' code).

    Boizard et al., "Towards Cross-Tokenizer Distillation: the Universal Logit Distillation Loss for LLMs", 2024,
    arXiv:2402.12030.
    """

    over_classes = True

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, student_mask: Tensor, teacher_mask: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        if student.dim() != 3 or teacher.dim() != 3 or len(student) != len(teacher):
            raise TutelageError(
                f"ULD takes logits [B, L, V] with one B; found student {list(student.shape)}, "
                f"teacher {list(teacher.shape)}"
            )
        check_mask(student_mask, student.shape[:2], "ULD, of the student")
        check_mask(teacher_mask, teacher.shape[:2], "ULD, of the teacher")
        length, vocabulary = min(student.shape[1], teacher.shape[1]), max(student.shape[2], teacher.shape[2])
        p, q = (
            _sorted(_answer(logits, mask, length), vocabulary)
            for logits, mask in ((student, student_mask), (teacher, teacher_mask))
        )
        tokens = torch.minimum(student_mask.sum(1), teacher_mask.sum(1))
        counts = torch.arange(length, device=tokens.device) < tokens[:, None]
        distance = only((q - p).abs().sum(2), counts)
        return (distance.sum(1) / tokens.clamp(min=1)).mean()


def _answer(logits: Tensor, mask: Tensor, length: int) -> Tensor:
    """Returns the logits [B, length, V] with the tokens of the answer first, in order."""
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :length]
    return only(logits, mask).gather(1, order[..., None].expand(-1, -1, logits.shape[2]))


def _sorted(logits: Tensor, vocabulary: int) -> Tensor:
    """Returns the probabilities in descending order, padded with zeros."""
    probabilities = log_softmax(logits).exp().sort(-1, descending=True).values
    return F.pad(probabilities, (0, vocabulary - logits.shape[2]))
