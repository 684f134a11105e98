"""Magnitude pruning along a cubic schedule."""

from collections.abc import Sequence
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn

from tutelage.checkpoints.weights import is_shard
from tutelage.errors import TutelageError, nearest
from tutelage.models.blocks import WITH_UNITS
from tutelage.models.quantised.network import Quantised
from tutelage.models.quantised.weights import PerChannel
from tutelage.models.wrapper import Wrapper
from tutelage.training.callbacks.freeze import FollowsLength
from tutelage.training.fast_loop import Quiet
from tutelage.training.module import SupervisedModule

_SCOPES = ("global", "layer")


class Prune(Quiet, FollowsLength):
    """Sets the smallest weights to 0, for good, ever more of them: ``s_t = s·(1 − (1 − (t − t₀)/(t₁ − t₀))³)``.

    At step t₀, at every n-th from there on and at t₁ the round(s_t·N) smallest |w| of the N weights are masked, those
    that were masked before first, and of equal ones the first; after each step masked weights are 0. Weights are those
    of linear layers and convolutions of the network that is written, which is a plain one with exact zeros: there is
    nothing to take off. Zhu & Gupta, "To prune, or not to prune" (2017, arXiv:1710.01878), who prune each layer by the
    same share (``scope: layer``).

    The masks are part of a run's state; every rank has the same. The best weights on validation may be those of an
    epoch before t₁, with fewer zeros.

    Args:
        sparsity: s, the share of zeros at the end, in (0, 1).
        start: t₀ as a share of the steps.
        end: t₁ as a share of the steps, above ``start``.
        every_n_steps: n.
        scope: ``global``: the smallest of all layers together; ``layer``: of each.
        keep: names of weights, without ``student.``, that are left alone, such as ``[classifier.weight]``.

    Raises:
        TutelageError: an argument is out of range.
    """

    def __init__(
        self,
        sparsity: float,
        start: float = 0.0,
        end: float = 0.75,
        every_n_steps: int = 100,
        scope: str = "global",
        keep: Sequence[str] = (),
    ):
        if not 0 < sparsity < 1:
            raise TutelageError(f"callbacks.prune.sparsity must be between 0 and 1; found {sparsity}")
        if not 0 <= start < end <= 1:
            raise TutelageError(f"callbacks.prune: expected 0 <= start < end <= 1; found {start} and {end}")
        if every_n_steps < 1:
            raise TutelageError(f"callbacks.prune.every_n_steps must be at least 1; found {every_n_steps}")
        if scope not in _SCOPES:
            raise TutelageError(f"callbacks.prune.scope={scope}: {nearest(scope, _SCOPES)}")
        self.sparsity, self.start, self.end, self.every = sparsity, start, end, every_n_steps
        self.scope, self.keep = scope, list(keep)
        self._masks: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._last_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finds the weights.

        Raises:
            TutelageError: there are none, or zeros would not stay zeros.
        """
        learner = cast(SupervisedModule, pl_module)
        net = learner.student.net.net
        if learner.average is not None:
            raise TutelageError("callbacks.prune: an average of weights (callbacks.ema) does not keep zeros")
        rounders = net.weights.values() if isinstance(net, Quantised) else ()
        if not all(isinstance(rounder, PerChannel) for rounder in rounders):
            raise TutelageError(
                "callbacks.prune: buckets and points round zeros to other values; use quantise=int8 or int4"
            )
        self._weights = self._found(net.student if isinstance(net, Quantised | Wrapper) else net)
        if any(is_shard(weight) for weight in self._weights.values()):
            raise TutelageError("callbacks.prune: not supported for sharded networks (trainer=fsdp)")
        total = learner.course("step", trainer)
        self._first, self._end = round(self.start * total), max(1, round(self.end * total))
        self._masks = {name: mask.to(self._weights[name].device) for name, mask in self._masks.items()}
        self._last_step = trainer.global_step

    def _found(self, net: nn.Module) -> dict[str, Tensor]:
        found = {
            f"{path}.weight".lstrip("."): part.weight
            for path, part in net.named_modules()
            if isinstance(part, WITH_UNITS)
        }
        for name in self.keep:
            if name not in found:
                raise TutelageError(f"callbacks.prune.keep: no weight {name!r}; {nearest(name, found)}")
        found = {name: weight for name, weight in found.items() if name not in self.keep}
        if not found:
            raise TutelageError(f"callbacks.prune: no weight to prune in {type(net).__name__}")
        return found

    def share(self, step: int) -> float:
        """Returns the share of zeros after optimizer step ``step``, once training has begun."""
        gone = (step - self._first) / max(1, self._end - self._first)
        return self.sparsity * (1 - (1 - min(max(gone, 0.0), 1.0)) ** 3)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Masks more weights where it is time, and sets those that are masked to 0."""
        if (step := trainer.global_step) == self._last_step:
            return
        self._last_step = step
        if self._first <= step <= self._end and ((step - self._first) % self.every == 0 or step == self._end):
            self._masks = masks(self._weights, self.share(step), self.scope)
        with torch.no_grad():
            for name, mask in self._masks.items():
                self._weights[name].mul_(mask)

    def state_dict(self) -> dict[str, Any]:
        """Returns the masks."""
        return {"masks": self._masks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with the masks."""
        self._masks = state_dict["masks"]


@torch.no_grad()
def masks(weights: dict[str, Tensor], share: float, scope: str = "global") -> dict[str, Tensor]:
    """Returns masks of 0 and 1 in which round(share·N) of the smallest |w| are 0.

    Args:
        weights: by name.
        share: of zeros.
        scope: ``global`` or ``layer``: of which N is the number.
    """
    groups = [list(weights)] if scope == "global" else [[name] for name in weights]
    found: dict[str, Tensor] = {}
    for names in groups:
        sizes = torch.cat([weights[name].abs().flatten() for name in names])
        mask = torch.ones_like(sizes)
        mask[sizes.sort(stable=True).indices[: round(share * len(sizes))]] = 0
        parts = mask.split([weights[name].numel() for name in names])
        found |= {name: part.view(weights[name].shape) for name, part in zip(names, parts, strict=True)}
    return found
