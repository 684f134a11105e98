"""Soft targets (Hinton, Vinyals & Dean 2015)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from tutelage.losses.logits import LOWEST, checked_temperature, kl, log_softmax, paired_rows
from tutelage.losses.precision import in_float32


class SoftTarget(nn.Module):
    """The student's softened distribution should be the teacher's.

    ``T² · mean_b KL(q‖p)``, ``q = softmax(z_t / T)``, ``p = softmax(z_s / T)``: summed over classes, averaged over
    rows, T² inside, so that the gradient ``T (p − q) / B`` keeps its size as T grows. torch's
    ``KLDivLoss(reduction="mean")`` would divide by B·C.

    A class that is masked (−inf) in both adds nothing; one that the student alone masks costs some 1e30 times the
    teacher's probability; a row that is masked whole counts as uniform. NaN stays NaN. In float32 the value of a row is
    right to some 1e-7·T², so between near-equal logits it may be as much below 0; it is not clamped.

    Args:
        temperature: T.

    Shape:
        student, teacher [B, C] or [..., C]; a scalar.

    Raises:
        TutelageError: T is not finite or below 1e-3, or the shapes differ.

    Published weight: 0.9 with 0.1 of cross-entropy, T = 4 (CIFAR-100; RepDistiller, mdistiller).

    Distilling the Knowledge in a Neural Network, arXiv:1503.02531.
    """

    temperature: Tensor

    def __init__(self, temperature: float = 4.0):
        super().__init__()
        self.register_buffer("temperature", checked_temperature(temperature, "SoftTarget"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "SoftTarget")
        return soft_target(student, teacher, self.temperature)


def soft_target(student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
    """What :class:`SoftTarget` computes, of [B, C], [B, C] and a 0-dim temperature.

    In closed form, but for a temperature that needs a gradient and inside ``torch.func``'s transforms (vmap, grad …).
    """
    # A Function that torch.func can look into needs a setup_context, which makes it a third slower at [64, 10].
    if temperature.requires_grad or torch._C._are_functorch_transforms_active():
        return _composed(student, teacher, temperature)
    loss: Tensor = _ClosedForm.apply(student, teacher, temperature)
    return loss


def _composed(student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
    return temperature**2 * kl(log_softmax(teacher, temperature), log_softmax(student, temperature)).mean()


class _ClosedForm(Function):
    """``T²/B Σ e``, e = q∘log(q/p); gradients ``T/B (p − q)`` and ``T/B (e − q Σe)``.

    Beyond its arguments, three full-size tensors at most live at once; four in backward if both gradients are wanted.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
        log_p = student.clamp(min=LOWEST).div_(temperature).log_softmax(1)
        e = teacher.clamp(min=LOWEST).div_(temperature).log_softmax(1)
        q = e.exp()
        e.sub_(log_p).mul_(q)
        loss = e.sum() * temperature**2 / len(e)
        of_student, of_teacher, _ = ctx.needs_input_grad
        ctx.save_for_backward(
            student,
            teacher,
            temperature,
            log_p.exp_().sub_(q) if of_student else None,
            e.addcmul_(q, e.sum(1, keepdim=True), value=-1) if of_teacher else None,
        )
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, of_student, of_teacher = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: what was saved is not known to autograd
            wanted = [x for x, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
            found = iter(torch.autograd.grad(_composed(*inputs), wanted, grad, create_graph=True))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        student, _, temperature = inputs
        factor = grad * temperature / len(student)
        return (
            None if of_student is None else of_student * factor,
            None if of_teacher is None else of_teacher * factor,
            None,
        )
