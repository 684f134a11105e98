"""The student's own moving average as its teacher (mean teacher)."""

import copy
from collections.abc import Iterable, Mapping

import torch

from tutelage.compat.torch import lerp_all_
from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.sources.base import Source
from tutelage.types import Batch, Signals


class EMATeacher(Source):
    """Signals of an exponential moving average of the student: θ' ← d·θ' + (1 − d)·θ after every optimizer step.

    Tarvainen & Valpola 2017, "Mean teachers are better role models" (arXiv:1703.01780). As there, the decay ramps up as
    min(d, 1 − 1/(step + 1)), so that the random first weights are soon forgotten (with another ramp r as
    min(d, 1 − (r − 1)/(step − 1 + r))). Floating buffers (BatchNorm
    statistics) are averaged as well, integer ones copied. Runs in eval mode.

    Args:
        decay: d, in [0, 1).
        ramp: r, at least 1; 1 is no ramp.

    Raises:
        TutelageError: an argument is out of range.
    """

    net: Tapped
    student: Tapped
    steps: torch.Tensor

    def __init__(self, decay: float = 0.999, ramp: float = 2.0):
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise TutelageError(f"sources: ema_teacher's decay must be in [0, 1); found {decay}")
        if not ramp >= 1.0:
            raise TutelageError(f"sources: ema_teacher's ramp must be at least 1; found {ramp}")
        self.decay, self.ramp = decay, ramp
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._counted: int | None = None  # `steps` as the host knows it: to read it would make it wait at every step
        self.register_load_state_dict_post_hook(_forget)

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Starts as a copy of the student."""
        net: Tapped = sources["student"].net  # type: ignore[assignment]
        self.net = copy.deepcopy(net).requires_grad_(False).eval()
        self.net.register_taps(needs)
        object.__setattr__(self, "student", net)  # no child: its weights are its own source's to save

    def train(self, mode: bool = True) -> "EMATeacher":
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, batch: Batch) -> Signals:
        """One pass of the average."""
        with torch.no_grad():
            return self.net(batch)

    def network(self) -> Tapped:
        """The average."""
        return self.net

    def trained_network(self) -> Tapped:
        """The average."""
        return self.net

    @torch.no_grad()
    def after_step(self) -> None:
        """Moves the average towards the student."""
        self.steps += 1
        self._counted = int(self.steps) if self._counted is None else self._counted + 1
        decay = min(self.decay, 1.0 - (self.ramp - 1.0) / (self._counted - 1 + self.ramp))
        mine, theirs = self.net.net, self.student.net
        lerp_all_(list(mine.parameters()), list(theirs.parameters()), 1.0 - decay)
        for own, other in zip(mine.buffers(), theirs.buffers(), strict=True):
            if own.is_floating_point():
                own.lerp_(other, 1.0 - decay)
            else:
                own.copy_(other)


def _forget(module: torch.nn.Module, incompatible: object) -> None:
    """Has the host read the count that was loaded."""
    module._counted = None  # type: ignore[assignment]
