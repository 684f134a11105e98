"""Distances of student and teacher that a student minimises and a generator, with a negative weight, maximises."""

import torch.nn.functional as F
from torch import Tensor, nn

from tutelage.losses.logits import checked_temperature, kl, log_softmax, paired_rows
from tutelage.losses.precision import in_float32


class LogitL1(nn.Module):
    """Mean absolute difference of logits: ``mean_{b,c} |z_s − z_t|``.

    Averaged over rows and classes, as DFAD's code does. There is no T, hence no T². Both sides have gradients where
    they are a term's ``inputs``.

    Shape:
        student, teacher: [B, C]. A scalar.

    Raises:
        TutelageError: the shapes differ, or are not [B, C].

    Published weight: 1 for the student, −1 for the generator.

    Fang et al., "Data-Free Adversarial Distillation", 2019, arXiv:1912.11006.
    """

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the distance, a scalar."""
        return F.l1_loss(*paired_rows(student, teacher, "LogitL1"))


class ElementKL(nn.Module):
    """KL divergence averaged over classes as well: ``mean_{b,c} q_c (log q_c − log p_c)``, so KL / C.

    ``q = softmax(z_t / T)``, ``p = softmax(z_s / T)``. This is torch's ``kl_div`` with its default reduction, as ZSKT's
    code has it; T² is not part of it. Both sides have gradients where they are a term's ``inputs``.

    Args:
        temperature: T.

    Shape:
        student, teacher: [B, C]. A scalar.

    Raises:
        TutelageError: the shapes differ, or are not [B, C]; T is below 1e-3.

    Published weight: 1 for the student, −1 for the generator, T = 1.

    Micaelli & Storkey, "Zero-shot Knowledge Transfer via Adversarial Belief Matching", 2019, arXiv:1905.09768.
    """

    over_classes = True
    temperature: Tensor

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.register_buffer("temperature", checked_temperature(temperature, "ElementKL"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the divergence, a scalar."""
        student, teacher = paired_rows(student, teacher, "ElementKL")
        divergence = kl(log_softmax(teacher, self.temperature), log_softmax(student, self.temperature))
        return divergence.mean() / student.shape[1]


class AgreedKL(nn.Module):
    """KL divergence of the images on which student and teacher agree: ``mean_b 1[argmax z_s = argmax z_t] · KL(q‖p)``.

    ``q = softmax(z_t)``, ``p = softmax(z_s)``, T = 1. Images on which they don't agree count as 0 in the mean: a
    generator that maximises it looks for images that are hard, not wrong. Both sides have gradients where they are a
    term's ``inputs``; the choice of images has none.

    Shape:
        student, teacher: [B, C]. A scalar.

    Raises:
        TutelageError: the shapes differ, or are not [B, C].

    Published weight: −0.5 in CMI, −1 to −1.33 in Fast.

    Fang et al., "Contrastive Model Inversion for Data-Free Knowledge Distillation", 2021, arXiv:2105.08584.
    """

    over_classes = True

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the divergence, a scalar."""
        student, teacher = paired_rows(student, teacher, "AgreedKL")
        agreed = student.argmax(1) == teacher.argmax(1)
        return (kl(log_softmax(teacher), log_softmax(student)) * agreed).mean()
