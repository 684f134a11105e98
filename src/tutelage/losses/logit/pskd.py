"""Progressive self-distillation (Kim et al. 2021)."""

from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.base import Loss
from tutelage.losses.logits import column, constant, log_softmax, rows
from tutelage.losses.precision import in_float32
from tutelage.losses.ranks import all_ranks
from tutelage.runtime import devices


class PSKD(Loss):
    """Cross-entropy with a mixture of the label and the student's own prediction of the previous epoch.

    ``−mean_b Σ_c [(1 − a) · 1[c = y] + a · p⁻_c] log p_c``, p⁻ the example's probabilities when it was last seen in
    training, at T = 1; an example not seen before has its label alone. In epoch e of E, counted from 0,
    ``a = mixing · (e + 1) / E``: ``on_epoch_start`` sets it, and before its first call a is 0. Replaces the hard-label
    term.

    p⁻ is stored by key in a float32 table [N, C], part of the state_dict, so that a resumed run is exact. It grows with
    the greatest key, so keys must be indices of examples: 4·N·C to 6·N·C bytes, 20 MB for CIFAR-100, 5 GB for ImageNet.
    Finding the greatest key synchronises with a GPU once a step, unless ``bind`` was called: then the table has all
    rows from the start, and any other key is a device-side assertion. On several ranks each sends its predictions to
    all others, so all must call the loss; their numbers of rows may differ. In ``eval()`` the table is neither read nor
    written: plain cross-entropy.

    Args:
        mixing: a at the end of training (the paper's α_T).

    Attributes:
        previous: the table; a row of zeros belongs to an example not seen yet.
        share: a, part of the state_dict.

    Shape:
        student [B, C]; label, key [B]; a scalar. If a key occurs twice in a batch, one of its predictions is stored.

    Raises:
        TutelageError: mixing is not in [0, 1], a shape is wrong, a key is negative, or C changes.

    Published weight: 1 alone, mixing 0.8.

    Kim et al., "Self-Knowledge Distillation with Progressive Refinement of Targets", 2021, arXiv:2006.12000.
    """

    over_classes = True
    same_on_ranks = fixed_graph = True  # on_epoch_start only changes a number

    mixing: Tensor
    share: Tensor
    previous: Tensor

    def __init__(self, mixing: float = 0.8):
        super().__init__()
        self.register_buffer("mixing", constant(mixing, "PSKD.mixing", 0.0, 1.0), persistent=False)
        self.register_buffer("share", torch.tensor(0.0))
        self.register_buffer("previous", torch.empty(0, 0))
        self.examples = 0  # number of rows, once bind has been called
        self.register_load_state_dict_pre_hook(_make_room)

    def bind(self, keys: Tensor, labels: Tensor) -> None:
        """Sizes the table for the training examples.

        Args:
            keys: [n] integers.
            labels: [n] integers; unused.
        """
        self.examples = int(keys.max()) + 1

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        """Sets a for ``epoch`` of ``epochs``, counted from 0."""
        self.share.copy_(self.mixing * ((epoch + 1) / epochs))

    @in_float32
    def forward(self, student: Tensor, label: Tensor, key: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        label, key = column(label, student, "PSKD"), column(key, student, "PSKD").squeeze(1)
        log_p = log_softmax(rows(student, "PSKD"))
        if not self.training:
            return -log_p.gather(1, label).mean()
        with torch.no_grad():
            target = self._exchange(key, log_p.exp()).to(log_p.dtype)
            share = self.share.to(log_p.dtype) * target.any(1, keepdim=True)
            target.mul_(share).scatter_add_(1, label, 1 - share)
        return -(target * log_p).sum() / len(log_p)

    def _exchange(self, key: Tensor, p: Tensor) -> Tensor:
        """Returns the table's rows of ``key`` and replaces them by ``p`` and the other ranks' predictions."""
        keys, predicted = all_ranks(key[None])[0], all_ranks(p.to(self.previous.dtype)[None])[0]
        self._grow(keys, p.shape[1])
        previous = self.previous[key]
        self.previous[keys] = predicted
        return previous

    def _grow(self, keys: Tensor, classes: int) -> None:
        """Grows the table so that it has a row for each of ``keys``."""
        if self.examples and devices.waits(keys.device):
            least, greatest = 0, self.examples - 1
        else:
            least, greatest = torch.stack(torch.aminmax(keys)).tolist()
        size, known = self.previous.shape
        if least < 0 or (size and known != classes):
            raise TutelageError(
                f"PSKD: expected keys of 0 or more and {known or classes} classes, "
                f"found key {least} and {classes} classes"
            )
        if greatest >= size:
            # Grow by half at least, so that not every batch of the first epoch copies the table.
            more = max(greatest + 1, self.examples, size + size // 2 * (not self.examples)) - size
            self.previous = torch.cat([self.previous.reshape(size, classes), self.previous.new_zeros(more, classes)])


def _make_room(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Resizes the table to that of a state dict before it is loaded."""
    if isinstance(module, PSKD) and (stored := state.get(f"{prefix}previous")) is not None:
        module.previous = module.previous.new_empty(stored.shape)
