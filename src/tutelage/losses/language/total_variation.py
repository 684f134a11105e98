"""Total variation distance."""

from torch import Tensor, nn

from tutelage.losses.logits import log_softmax, paired_rows
from tutelage.losses.precision import in_float32


class TotalVariation(nn.Module):
    """Matches the student's distribution to the teacher's by their total variation distance.

    ``mean ½ Σ_c |q_c − p_c|``, q and p the softmax of the teacher's and the student's logits: from 0 to 1, averaged
    over rows. There is no T, hence no T². Its gradient ``½ p∘(σ − Σ p∘σ)``, σ = sign(p − q), does not vanish
    near the minimum.

    Shape:
        student, teacher [B, C]; a scalar. For tokens [B, L, C], ``where`` of the term selects rows.

    Raises:
        TutelageError: the shapes differ.

    Wen et al., "f-Divergence Minimization for Sequence-Level Knowledge Distillation", 2023, arXiv:2307.15190.
    """

    over_classes = True

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "TotalVariation")
        log_p, log_q = log_softmax(student), log_softmax(teacher)
        gap = (log_p.exp() + log_q.exp()) * ((log_p - log_q) / 2).tanh()  # p − q, accurate for near-equals
        return gap.abs().sum(1).mean() / 2
