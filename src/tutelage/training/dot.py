"""Optimizers that get the gradient of what teachers say apart from that of the task: DOT (Zhao et al. 2023)."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from tutelage.errors import TutelageError
from tutelage.objective import Objective, Term
from tutelage.training.gradient_checks import leaves


class GradientsApart(Optimizer):
    """Base of an optimizer that treats two gradients differently: that of the task, and that of what teachers say.

    ``parameter.grad`` is that of the terms that read nothing but the student and the batch; :attr:`taught` has that of
    all others, which :func:`hand_over` puts there before a step. A training without such terms puts nothing there.

    Attributes:
        taught: parameter → gradient of what teachers say, for the next step.
        untasked: ids of the parameters that the task's gradient does not reach, such as a loss's own.
    """

    def __init__(self, params: Any, defaults: dict[str, Any]):
        super().__init__(params, defaults)
        self.taught: Mapping[nn.Parameter, Tensor] = {}
        self.untasked: Collection[int] = ()


class DOT(GradientsApart):
    """The Distillation-Oriented Trainer: stochastic gradient descent with a momentum for each of two gradients.

    ``v ← (μ − Δ) v + g_task + λ θ``, ``w ← (μ + Δ) w + g_taught``, ``θ ← θ − η (v + w)``; each begins with its first
    gradient. Where one of the gradients does not reach a weight, the other has the momentum μ, and the weight decay
    λ θ: without teachers this is SGD with momentum μ. What counts as taught: terms that read a source beside the
    student and the batch. A step costs a second backward pass.

    Args:
        params: parameters, or groups of them.
        lr: η.
        momentum: μ.
        delta: Δ.
        weight_decay: λ.

    Raises:
        TutelageError: an argument is out of range.

    Published (the authors' code, mdistiller): Δ 0.075 with μ 0.9 for KD on CIFAR-100, rate 0.05, weight decay 5e-4.

    Zhao et al., "DOT: A Distillation-Oriented Trainer", ICCV 2023.
    """

    def __init__(
        self, params: Any, lr: float = 0.05, momentum: float = 0.9, delta: float = 0.075, weight_decay: float = 5e-4
    ):
        if not (lr >= 0 and weight_decay >= 0):
            raise TutelageError(f"DOT needs lr and weight_decay of at least 0; found {lr} and {weight_decay}")
        if not (delta >= 0 and momentum - delta >= 0 and momentum + delta < 1):
            raise TutelageError(
                f"DOT needs momentum − delta of at least 0 and momentum + delta below 1; found {momentum} and {delta}"
            )
        super().__init__(params, {"lr": lr, "momentum": momentum, "delta": delta, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        taught, self.taught = self.taught, {}
        for group in self.param_groups:
            for parameter in group["params"]:
                own = None if id(parameter) in self.untasked else parameter.grad
                self._update(parameter, own, taught.get(parameter), group)
        return loss

    def _update(self, parameter: nn.Parameter, task: Tensor | None, taught: Tensor | None, group: Any) -> None:
        gradients = {name: one for name, one in (("task", task), ("taught", taught)) if one is not None}
        delta = group["delta"] if len(gradients) == 2 else 0.0
        momenta = {"task": group["momentum"] - delta, "taught": group["momentum"] + delta}
        if group["weight_decay"] and gradients:
            decayed = next(iter(gradients))
            gradients[decayed] = gradients[decayed].add(parameter, alpha=group["weight_decay"])
        state = self.state[parameter]
        for name, gradient in gradients.items():
            if name in state:
                state[name].mul_(momenta[name]).add_(gradient)
            else:
                state[name] = gradient.clone()
            parameter.add_(state[name], alpha=-group["lr"])


def hand_over(optimizer: Optimizer, objective: Objective, loss: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
    """Gives a :class:`GradientsApart` what teachers say; returns the loss whose backward gives the task's gradient.

    The value stays that of ``loss``. Its graph reaches what teachers say with a factor of 0, as DDP waits for a
    gradient of each parameter. Over several ranks the gradient is averaged here.

    Args:
        optimizer: any; others leave the loss as it is.
        objective: has the terms.
        loss: the objective's value, a scalar.
        parts: term → unweighted loss, with its graph.
    """
    if not isinstance(optimizer, GradientsApart):
        return loss
    terms = {name: cast(Term, objective.terms[name]) for name in parts}
    named = [name for name in parts if _is_taught(terms[name]) and parts[name].requires_grad]
    if not named:
        return loss
    taught = torch.stack([terms[name].scale * parts[name] for name in named]).sum()
    others = [terms[name].scale * parts[name] for name in parts if name not in named]
    task = torch.stack(others).sum() if others else taught.new_zeros(())
    learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    with torch.autocast(taught.device.type, enabled=False):  # a backward pass runs in the precision of its forward
        found = torch.autograd.grad(taught, learning, retain_graph=True, allow_unused=True)
    gradients = {p: one for p, one in zip(learning, found, strict=True) if one is not None}
    optimizer.taught = _averaged(gradients)
    optimizer.untasked = {id(leaf) for leaf in leaves(taught)} - {id(leaf) for leaf in leaves(task)}
    return task + taught.detach() + 0.0 * (taught - taught.detach())


def _is_taught(term: Term) -> bool:
    return bool({path.split(".")[0] for path in term.paths()} - {"student", "batch"})


def _averaged(gradients: dict[nn.Parameter, Tensor]) -> dict[nn.Parameter, Tensor]:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return gradients
    flat = torch.cat([gradient.flatten() for gradient in gradients.values()])
    distributed.all_reduce(flat)
    pieces = (flat / distributed.get_world_size()).split([gradient.numel() for gradient in gradients.values()])
    return {p: piece.view_as(p) for p, piece in zip(gradients, pieces, strict=True)}


def check_apart(stage: DictConfig, kind: Any, callbacks: Collection[Any], compiles: bool) -> None:
    """Refuses what gradients apart can't be combined with: what sees the task's gradient alone.

    Args:
        stage: the config as its training sees it.
        kind: its optimizer's class.
        callbacks: classes of its callbacks.
        compiles: whether its networks run through ``torch.compile``.

    Raises:
        TutelageError: names the key and what to use instead.
    """
    if not (isinstance(kind, type) and issubclass(kind, GradientsApart)):
        return
    trainer, name = stage.trainer, kind.__name__
    accumulates = any(isinstance(one, type) and issubclass(one, GradientAccumulationScheduler) for one in callbacks)
    refused = {
        f"trainer.gradient_clip_val={trainer.get('gradient_clip_val')}": (
            bool(trainer.get("gradient_clip_val")), "it would clip one of them alone"
        ),
        "trainer.accumulate_grad_batches": (
            accumulates or (trainer.get("accumulate_grad_batches") or 1) != 1,
            "one of them would be the last batch's alone: use a larger data.batch_size",
        ),
        f"trainer.precision={trainer.precision}": (
            str(trainer.precision) == "16-mixed", "one of them alone is scaled: use bf16-mixed"
        ),
        "trainer=fsdp": ("fsdp" in str(trainer.strategy), "gradients are in shards: use trainer=ddp"),
        "a compiled network": (compiles, "it frees what a second backward pass needs: leave out stages.<name>.compile"),
        "a generator in turns": ("turns" in stage, "it has optimizer steps of its own: use another optimizer"),
    }  # fmt: skip
    for what, (found, why) in refused.items():
        if found:
            raise TutelageError(f"optimizer={name} takes two gradients apart and can't be combined with {what}: {why}")
