"""Channel-wise distillation (Shu et al. 2021)."""

from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, TOKENS, Lazy, check_pair, match_size, pointwise, width
from tutelage.losses.logits import LOWEST, checked_temperature, kl, log_softmax
from tutelage.losses.masks import check_mask, of_map, only
from tutelage.losses.precision import check_same_shape, in_float32


class CWD(Lazy):
    """Matches the softmax over the positions of each channel to the teacher's.

    ``T²/(B·C) Σ_b Σ_c KL(q_bc ‖ p_bc)``, ``q_bc = softmax(f_t[b, c] / T)`` over the H·W positions of a channel, p
    likewise of the student: summed over positions, averaged over channels and examples, T² inside, as published.
    Invariant to a constant added to a channel. For logits, the channels are the classes.

    If the widths differ, a learned 1×1 convolution (a linear layer for tokens) first projects the student's channels to
    the teacher's; the authors add batch normalisation and ReLU. Maps of different sizes are pooled by the size rule of
    :mod:`tutelage.losses.feature.adapt`. Masked positions are excluded from every softmax; an example without a valid
    position contributes 0.

    Args:
        temperature: T.
        channels_last: whether features are [B, H, W, C], as logits are, instead of [B, C, H, W].

    Shape:
        student [B, C_s, H, W], with ``channels_last`` [B, H, W, C_s], or tokens [B, N, C_s]; teacher the same but for
        C, H and W. mask [B, H, W] or [B, N] bools, true for valid positions, or of k·H and l·W pixels (a position
        with a valid pixel is valid); it needs equal sizes of maps. A scalar.

    Raises:
        TutelageError: T is not finite or below 1e-3, or shapes do not fit.

    Published weight: 3, T = 4, on logits (Cityscapes; the authors' code), cross-entropy at 1.

    Shu, Liu, Gao, Yan & Shen, "Channel-wise Knowledge Distillation for Dense Prediction", 2021, arXiv:2011.13256.
    """

    temperature: Tensor
    projection: nn.Module

    def __init__(self, temperature: float = 4.0, channels_last: bool = False):
        super().__init__()
        self.channels_last = channels_last
        self.register_buffer("temperature", checked_temperature(temperature, "CWD"), persistent=False)
        self.outline()

    def build(self, student: Tensor, teacher: Tensor) -> None:
        """Creates the projection if the widths differ."""
        widths = width(student), width(teacher)
        self.projection = nn.Identity() if widths[0] == widths[1] else pointwise(student.ndim, *widths)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """Returns the loss, a scalar."""
        check_pair(student, teacher, "CWD", (MAPS, TOKENS))
        if self.channels_last and student.ndim == MAPS:
            student, teacher = student.movedim(-1, 1), teacher.movedim(-1, 1)
        self.build_once(student, teacher)
        if mask is not None:
            mask = of_map(mask, student.shape[2:]) if student.ndim == MAPS and mask.ndim == 3 else mask
            _check_positions(student, teacher, mask)
            student, teacher = _masked(student, mask), _masked(teacher, mask)
        student, teacher = match_size(student, teacher)
        student = self.projection(student)
        check_same_shape(student, teacher, "CWD")
        log_q, log_p = (self._log_attention(feature, mask) for feature in (teacher, student))
        return self.temperature**2 * kl(log_q, log_p).mean()

    def _log_attention(self, feature: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the log-softmax over positions, [B, C, positions]."""
        positions = feature.flatten(2) if feature.ndim == MAPS else feature.transpose(1, 2)
        if mask is not None:
            positions = positions.masked_fill(~mask.flatten(1)[:, None], LOWEST)
        return log_softmax(positions, self.temperature)


def _check_positions(student: Tensor, teacher: Tensor, mask: Tensor) -> None:
    own, theirs = (one.shape[2:] if one.ndim == MAPS else one.shape[1:2] for one in (student, teacher))
    if own != theirs:
        raise TutelageError(f"CWD with a mask needs equal sizes; found student {list(own)}, teacher {list(theirs)}")
    check_mask(mask, student.shape[:1] + own, "CWD")


def _masked(feature: Tensor, mask: Tensor) -> Tensor:
    """Returns the feature with masked positions set to 0, so that their content reaches no learned part."""
    return only(feature.movedim(1, -1), mask).movedim(-1, 1) if feature.ndim == MAPS else only(feature, mask)
