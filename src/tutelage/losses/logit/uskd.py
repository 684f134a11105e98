"""Universal self-knowledge distillation (Yang et al. 2023), without a teacher."""

from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.adapt import MAPS, VECTORS, Lazy, pooled, width
from tutelage.losses.logits import column, constant, label_and_rest, log_softmax, rows
from tutelage.losses.precision import in_float32


class USKD(Lazy):
    """Soft labels out of the student alone: its own trust in the label, and a rank of the other classes.

    ``−α · mean t_b log p_y − β · mean Σ_{c≠y} z_c log p̂_c + μ · CE(w, smoothed label)``, averaged over rows. Target
    class: ``t_b = 1 + p_y² − mean_b p_y²``, detached. Other classes: p̂ is the student's distribution over them, z is
    Zipf's law, 1/rank normalised to sum 1, by the rank of ``w_c / (1 − w_y) + p_c / (1 − p_y)`` among all classes,
    detached. w is the softmax of a linear layer on an earlier feature, averaged over positions; it learns from the
    label smoothed by 0.1. No T. The authors' released code ranks by log p where the paper has p; this is the paper's.

    Args:
        num_classes: C.
        alpha: weight of the target class.
        beta: weight of the other classes.
        mu: weight of the linear layer's cross-entropy.

    Shape:
        student [B, C]; middle [B, D, H, W] or [B, D], of the stage before the last; label [B]. A scalar.

    Raises:
        TutelageError: a weight is negative or not finite, there are fewer than two classes, or a shape is wrong.

    Published weight, cross-entropy at 1: α = β = μ = 0.1 (CIFAR-100, ResNet-18); α = 1, β = 0.1, μ = 0.005 (ImageNet).

    Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized Loss
    and Customized Soft Labels", 2023, arXiv:2303.13005.
    """

    over_classes = True
    weak: nn.Module
    alpha: Tensor
    beta: Tensor
    mu: Tensor

    def __init__(self, num_classes: int, alpha: float = 0.1, beta: float = 0.1, mu: float = 0.1):
        super().__init__()
        if not isinstance(num_classes, int) or num_classes < 2:
            raise TutelageError(f"USKD.num_classes: expected 2 or more, found {num_classes!r}")
        for name, value in (("alpha", alpha), ("beta", beta), ("mu", mu)):
            self.register_buffer(name, constant(value, f"USKD.{name}", low=0.0), persistent=False)
        self.num_classes = num_classes
        self.outline()

    def build(self, middle: Tensor, _: Tensor) -> None:
        """Makes the linear layer."""
        self.weak = nn.Linear(width(middle), self.num_classes)

    @in_float32
    def forward(self, student: Tensor, middle: Tensor, label: Tensor) -> Tensor:
        """Returns the weighted sum of the three parts, a scalar."""
        label, student = column(label, student, "USKD"), rows(student, "USKD")
        if middle.ndim not in (MAPS, VECTORS):
            raise TutelageError(f"USKD takes a middle feature [B, D, H, W] or [B, D]; found {list(middle.shape)}")
        self.build_once(middle, middle)
        log_w = self.weak(pooled(middle)).log_softmax(1)
        log_p = log_softmax(student)
        _, log_others = label_and_rest(log_p, label)
        trust = log_p.detach().gather(1, label).exp().square()
        of_label = -((1 + trust - trust.mean()) * log_p.gather(1, label)).mean()
        of_others = -(_zipf(log_w.detach(), log_p.detach(), label) * log_others).sum(1).mean()
        smoothed = 0.9 * log_w.gather(1, label)[:, 0] + 0.1 * log_w.mean(1)
        return self.alpha * of_label + self.beta * of_others - self.mu * smoothed.mean()


def _zipf(log_w: Tensor, log_p: Tensor, label: Tensor) -> Tensor:
    """Returns the soft labels of the other classes, [B, C], 0 at the label."""
    weak, own = (x.exp() / (1 - x.gather(1, label).exp() + 1e-6) for x in (log_w, log_p))
    place = (weak + own).argsort(1, descending=True).argsort(1)
    law = (1 / (place + 1).to(log_p.dtype)).scatter(1, label, 0.0)
    return law / law.sum(1, keepdim=True)
