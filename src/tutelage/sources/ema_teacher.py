"""The student's own moving average as its teacher (mean teacher)."""

import copy
from collections.abc import Iterable, Mapping

import torch

from tutelage.compat.torch import lerp_all_
from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.sources.base import CountingSource, Source
from tutelage.types import Batch, Signals


class EMATeacher(CountingSource):
    """Signals of an exponential moving average of the student: θ' ← d·θ' + (1 − d)·θ after every optimizer step.

    As in the paper, the decay ramps up as min(d, 1 − 1/(step + 1)), so that the initial weights soon lose influence;
    for another ramp r it is min(d, 1 − (r − 1)/(step − 1 + r)). Floating-point buffers (BatchNorm statistics) are
    averaged as well, integer ones copied. Runs in eval mode.

    Args:
        decay: d, in [0, 1).
        ramp: r, at least 1; 1 is no ramp.

    Raises:
        TutelageError: an argument is out of range.

    Tarvainen & Valpola, "Mean Teachers Are Better Role Models", 2017, arXiv:1703.01780.
    """

    net: Tapped
    student: Tapped

    def __init__(self, decay: float = 0.999, ramp: float = 2.0):
        super().__init__()
        if not 0.0 <= decay < 1.0:
            raise TutelageError(f"sources: ema_teacher's decay must be in [0, 1); found {decay}")
        if not ramp >= 1.0:
            raise TutelageError(f"sources: ema_teacher's ramp must be at least 1; found {ramp}")
        self.decay, self.ramp = decay, ramp

    def attach(self, needs: Iterable[str], sources: Mapping[str, Source]) -> None:
        """Copies the student."""
        net: Tapped = sources["student"].net  # type: ignore[assignment]
        self.net = copy.deepcopy(net).requires_grad_(False).eval()
        self.net.register_taps(needs)
        object.__setattr__(self, "student", net)  # not a submodule: its own source saves its weights

    def train(self, mode: bool = True) -> "EMATeacher":
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, batch: Batch) -> Signals:
        """Returns the signals of the average, without gradient."""
        with torch.no_grad():
            return self.net(batch)

    def network(self) -> Tapped:
        """Returns the average."""
        return self.net

    def trained_networks(self) -> dict[str, Tapped]:
        """Returns the average."""
        return {"": self.net}

    def decay_at(self, step: int) -> float:
        """Returns the decay after optimizer step ``step``, from 1."""
        return min(self.decay, 1.0 - (self.ramp - 1.0) / (step - 1 + self.ramp))

    @torch.no_grad()
    def after_step(self) -> None:
        """Updates the average with the student's weights."""
        decay = self.decay_at(self.count_step())
        mine, theirs = self.net.net, self.student.net
        lerp_all_(list(mine.parameters()), list(theirs.parameters()), 1.0 - decay)
        for own, other in zip(mine.buffers(), theirs.buffers(), strict=True):
            if own.is_floating_point():
                own.lerp_(other, 1.0 - decay)
            else:
                own.copy_(other)
