"""Soft targets (Hinton, Vinyals & Dean 2015)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from tutelage.compat.torch import inside_functorch
from tutelage.losses.logits import LOWEST, checked_temperature, kl, log_softmax, paired_rows
from tutelage.losses.precision import in_float32


class SoftTarget(nn.Module):
    """Matches the student's softened distribution to the teacher's.

    ``T² · mean_b KL(q‖p)``, ``q = softmax(z_t / T)``, ``p = softmax(z_s / T)``: summed over classes, averaged over
    rows, T² inside, so that the gradient ``T (p − q) / B`` keeps its size as T grows. torch's
    ``KLDivLoss(reduction="mean")`` would divide by B·C.

    A class masked (−inf) in both contributes 0; one that only the student masks contributes about 1e30 times the
    teacher's probability; a fully masked row counts as uniform. NaN stays NaN. In float32, the relative error for
    logits that differ by δ is about 1e-7·(1 + T/δ).

    Args:
        temperature: T.

    Shape:
        student, teacher [B, C]; a scalar.

    Raises:
        TutelageError: T is not finite or below 1e-3, or the shapes differ.

    Published weight: 0.9 with 0.1 of cross-entropy, T = 4 (CIFAR-100; RepDistiller, mdistiller).

    Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, arXiv:1503.02531.
    """

    over_classes = True
    temperature: Tensor

    def __init__(self, temperature: float = 4.0):
        super().__init__()
        self.register_buffer("temperature", checked_temperature(temperature, "SoftTarget"), persistent=False)

    @in_float32
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns the loss, a scalar."""
        student, teacher = paired_rows(student, teacher, "SoftTarget")
        return soft_target(student, teacher, self.temperature)


def soft_target(student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
    """Computes :class:`SoftTarget` as a function of logits [B, C], [B, C] and a 0-dim temperature; returns a scalar.

    Uses a closed form of the gradient, except if the temperature needs one too or inside ``torch.func`` transforms.
    """
    # torch.func would need a Function with setup_context, which is a third slower at [64, 10].
    if temperature.requires_grad or inside_functorch():
        return _composed(student, teacher, temperature)
    loss: Tensor = _ClosedForm.apply(student, teacher, temperature)
    return loss


def _composed(student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
    return temperature**2 * kl(log_softmax(teacher, temperature), log_softmax(student, temperature)).mean()


class _ClosedForm(Function):
    """``T²/B Σ (p − q − q∘d)``, d = log(p/q); gradients ``T/B (p − q)`` and ``−T/B q∘(d − Σ q∘d)``.

    :func:`~tutelage.losses.logits.kl` gives the reason for this form. At most three full-size tensors exist at once
    besides its arguments; four in backward if both gradients are needed.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
        log_p, log_q = _log_softmax_in_place(student, temperature), _log_softmax_in_place(teacher, temperature)
        d = log_p - log_q
        q = log_q.exp_()
        total = log_p.exp_().add_(q)
        cross = q.mul_(d).sum(1)
        difference = d.div_(2).tanh_().mul_(total)
        ctx.save_for_backward(student, teacher, temperature, difference if ctx.needs_input_grad[0] else None)
        return (difference.sum(1) - cross).sum() * temperature**2 / len(student)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, difference = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: autograd cannot differentiate the saved tensors
            wanted = [x for x, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
            found = iter(torch.autograd.grad(_composed(*inputs), wanted, grad, create_graph=True))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        factor = grad * inputs[2] / len(inputs[0])
        of_teacher = _of_teacher(*inputs).mul_(-factor) if ctx.needs_input_grad[1] else None
        return None if difference is None else difference * factor, of_teacher, None


def _of_teacher(student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
    """Returns ``q∘(d − Σ q∘d)``, recomputed, as teachers are rarely trained."""
    log_p, log_q = _log_softmax_in_place(student, temperature), _log_softmax_in_place(teacher, temperature)
    d = log_p.sub_(log_q)
    q = log_q.exp_()
    return d.sub_((q * d).sum(1, keepdim=True)).mul_(q)


def _log_softmax_in_place(logits: Tensor, temperature: Tensor) -> Tensor:
    """Computes :func:`log_softmax` without autograd and with one full-size tensor less."""
    return logits.clamp(min=LOWEST).div_(temperature).log_softmax(1)
