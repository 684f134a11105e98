"""Gradient norm of each term of the objective at the student, and its cosine to the other terms' gradient."""

import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from tutelage.objective import Term
from tutelage.training.fsdp import Sharded
from tutelage.training.module import SupervisedModule

log = logging.getLogger(__name__)

_STEPS = 100  # between two measurements, for each term
_SAFE = 48  # a sum of squares of numbers below 2^48 is far from float32's largest, 2^128


class GradientNorms(L.Callback):
    """Measures the gradient of each term, weights included, with respect to the student's parameters.

    On the last batch of an epoch, in the pass that is trained with anyway: every chance is the step's own, and its
    result stays as it is to the bit. Each term costs one more backward; so epochs are passed over until 100 steps a
    term have gone by, but for the last. Over ranks gradients are averaged first. A training of one term has nothing to
    compare, and in shards (``trainer=fsdp``) nothing is measured.

    Logs ``grad_norm/<term>``, the norm ‖g_t‖, and ``grad_cosine/<term>``, cos(g_t, Σ_{s≠t} g_s): whether the other
    terms point the same way. Both are in ``stage.json`` as ``gradient_norms``: epoch → term → [norm, cosine]. A batch
    with a gradient that is not finite, as half precision has them, is not measured.
    """

    def __init__(self) -> None:
        self.measured: dict[int, dict[str, list[float]]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Asks the module for its terms at every step; a training made longer forgets what its end alone asked for."""
        if isinstance(trainer.strategy, Sharded) or not isinstance(pl_module, SupervisedModule):
            return
        if len(pl_module.objective.terms) > 1:
            pl_module.watch = partial(self._watch, trainer, pl_module)
            terms = len(pl_module.objective.terms)
            self.measured = {epoch: of for epoch, of in self.measured.items() if is_due_epoch(trainer, epoch, terms)}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Asks no more."""
        if isinstance(pl_module, SupervisedModule):
            pl_module.watch = None

    def _watch(self, trainer: L.Trainer, module: SupervisedModule, parts: Mapping[str, Tensor], batch_idx: int) -> None:
        if not is_due(trainer, batch_idx, len(parts)):
            return
        try:
            found = gradient_norms(module, parts, trainer)
        except RuntimeError as error:  # a compiled network may free what its backward needs
            log.warning("gradients of single terms can't be measured: %s", str(error).splitlines()[0])
            module.watch = None
            return
        if not is_finite(found):
            return
        self.measured[trainer.current_epoch] = found
        for name, (norm, cosine) in found.items():
            both = {f"grad_norm/{name}": norm, f"grad_cosine/{name}": cosine}
            module.log_dict(both, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)  # equal on all ranks

    def state_dict(self) -> dict[str, Any]:
        """Returns the recorded norms and cosines."""
        return {"measured": self.measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on."""
        self.measured = state_dict["measured"]


def is_due(trainer: L.Trainer, batch_idx: int, terms: int) -> bool:
    """Checks whether to measure on this batch, from the epoch alone, so that a resumed run measures the same."""
    return batch_idx + 1 == int(trainer.num_training_batches) and is_due_epoch(trainer, trainer.current_epoch, terms)


def is_due_epoch(trainer: L.Trainer, epoch: int, terms: int) -> bool:
    """Checks whether to measure in this epoch."""
    batches = int(trainer.num_training_batches)
    before, after = (end * batches // (_STEPS * terms) for end in (epoch, epoch + 1))
    return before != after or epoch + 1 == trainer.max_epochs


def gradient_norms(module: SupervisedModule, parts: Mapping[str, Tensor], trainer: L.Trainer) -> dict[str, list[float]]:
    """Term → norm of its weighted gradient, and cosine with that of all others together (0 where one vanishes).

    Args:
        module: whose student's parameters are meant.
        parts: term → unweighted loss, with its graph, which is kept.
        trainer: has the ranks, and the factor that keeps half-precision gradients from vanishing.
    """
    student = [parameter for parameter in module.student.parameters() if parameter.requires_grad]
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    factor = 1.0 if scaler is None else float(scaler.get_scale())
    gradients = {}
    for name, part in parts.items():
        loss = factor * cast(Term, module.objective.terms[name]).scale * part
        found = torch.autograd.grad(loss, student, retain_graph=True, materialize_grads=True)
        flat = torch.cat([gradient.flatten().float() for gradient in found]) / factor
        gradients[name] = trainer.strategy.reduce(flat, reduce_op="mean")
    return {name: [float(norm), float(cosine)] for name, (norm, cosine) in compared(gradients).items()}


def compared(gradients: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Term → norm of its gradient, and cosine with the sum of all others; [..., P] → [...]."""
    together = torch.stack(list(gradients.values()))
    largest = together.abs().amax((0, -1))[..., None]
    power = torch.frexp(largest).exponent.clamp_min(_SAFE) - _SAFE  # 0 but where squares would overflow
    scaled = torch.ldexp(together, -power) if power.any() else together
    total = scaled.sum(0)
    return {
        name: (torch.ldexp(own.norm(dim=-1), power[..., 0]), F.cosine_similarity(own, total - own, dim=-1, eps=1e-12))
        for name, own in zip(gradients, scaled, strict=True)
    }


def is_finite(found: Mapping[str, Sequence[float]]) -> bool:
    """Checks whether norms and cosines of all terms are numbers that a file can hold."""
    return all(math.isfinite(value) for values in found.values() for value in values)
