"""One-for-all distillation between unlike networks (Hao et al. 2023): its loss of logits."""

from torch import Tensor, nn

from tutelage.losses.logits import checked_temperature, column, constant, log_softmax, paired_rows
from tutelage.losses.precision import in_float32


class OFA(nn.Module):
    """Soft targets with the label's class enhanced where the teacher is unsure of it.

    ``mean_B [ −(1 + q_y)^ε · log p_y + log p_y − Σ_{c≠y} q_c^ε · log p_c ]``: the target of the label's class is
    ``(1 + q_y)^ε − 1``, that of others ``q_c^ε``. At ε = 1 it is the cross-entropy to q. No T².

    Args:
        eps: ε; above 1 the label gains on the other classes.
        temperature: T of both softmaxes.

    Shape:
        student, teacher [B, C]; label [B]; a scalar.

    Raises:
        TutelageError: ε is not finite or below 0, T is not finite or below 1e-3, or a shape is wrong.

    Published weight: 1 with cross-entropy at 1, T = 1; ε = 1 for CIFAR-100 and between 1 and 1.5 for ImageNet. It is
    applied to the student's logits and, through :class:`~tutelage.losses.feature.ofa.OFAStages`, to its stages.

    Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation", 2023,
    arXiv:2310.19444.
    """

    over_classes = True
    eps: Tensor
    temperature: Tensor

    def __init__(self, eps: float = 1.0, temperature: float = 1.0):
        super().__init__()
        self.register_buffer("eps", constant(eps, "OFA.eps", low=0.0), persistent=False)
        self.register_buffer("temperature", checked_temperature(temperature, "OFA"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        label = column(label, student, "OFA")
        student, teacher = paired_rows(student, teacher, "OFA")
        log_p, log_q = log_softmax(student, self.temperature), log_softmax(teacher, self.temperature)
        q_label = log_q.gather(1, label).exp()
        target = (self.eps * log_q).exp().scatter(1, label, (1 + q_label).pow(self.eps) - 1)
        return -(target * log_p).sum(1).mean()
