"""Training steps as CUDA graphs: a step's hundreds of kernels are recorded once and then started by one call.

It is off by default (``stages.<name>.graph=never``), as it has never run on a GPU. Its logic is tested on a CPU, with a
recorder of operations in the place of CUDA's.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.compat.torch import copy_all_, is_compiled
from tutelage.errors import TutelageError
from tutelage.models.quantised.network import Quantised
from tutelage.objective import Term
from tutelage.sources.base import Source
from tutelage.types import Batch

log = logging.getLogger(__name__)

OPTIONS = ("never", "auto")
WARM = 3  # eager steps first: libraries choose their kernels, optimizers make their state
PROOFS = 2  # steps that are computed both ways; a second batch shows what a first can't
TOLERANCE = 0.05  # of a tensor's change in a step; an optimizer such as Adam amplifies the last bit of a gradient

Capture = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]  # records a step → what replays it


def check_option(option: object, stage: str) -> None:
    """Refuses what is no choice.

    Raises:
        TutelageError: names the key and the choices.
    """
    if option not in OPTIONS:
        raise TutelageError(f"stages.{stage}.graph must be one of {list(OPTIONS)}; found {option!r}")


def cuda_capture(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Records ``step`` as a CUDA graph.

    CUDA's default generator takes part: a replay draws what the eager step would draw with the seed of that moment.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use CUDA meanwhile
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def why_not(module: Any, optimizer: torch.optim.Optimizer, device: torch.device, lean: bool) -> str | None:
    """Returns why the steps of a training can't be captured; None where nothing is known to prevent it.

    Args:
        module: the SupervisedModule that is trained.
        optimizer: its only one.
        device: where it trains.
        lean: whether steps are those of :class:`~tutelage.training.fast_loop.LeanEpochLoop`.
    """
    if device.type != "cuda":
        return f"the device is {device}; graphs need CUDA"
    if not lean:
        return "a callback, a hook, the strategy or an argument of the trainer needs Lightning's standard steps"
    if not all(group.get("fused") for group in optimizer.param_groups):
        return f"{type(optimizer).__name__} is not fused: optimizer.fused=true"
    for part in module.modules():
        if isinstance(part, Term) and part.chooses_rows:
            return "the number of rows that a term sees (those with a label, or of its mask) is not known before"
        if is_compiled(part):
            return "the network is compiled; stages.<name>.compile=reduce-overhead uses CUDA graphs itself"
        if isinstance(part, Quantised):
            return "torch's rounding to integers compares scales on the host"
        if isinstance(part, Source) and part.asks_host:
            return f"signals of {type(part).__name__} come from the host"
    return None


class GraphedStep:
    """Runs a step eagerly at first, then as a graph that has been compared with it.

    Args:
        step: batch → loss, detached: forward, backward and the optimizer's step.
        optimizer: takes part in ``step``; its learning rate may change from step to step, no other setting may.
        modules: everything whose tensors a step may change.
        fixed: modules whose plain attributes a step may read; where one has changed at an epoch's start, the graph is
            made anew.
        capture: records a step; by default as a CUDA graph.
    """

    def __init__(
        self,
        step: Callable[[Batch], Tensor],
        optimizer: torch.optim.Optimizer,
        modules: nn.Module,
        fixed: list[nn.Module],
        capture: Capture | None = None,
    ):
        self.step, self.optimizer, self.modules, self.fixed = step, optimizer, modules, fixed
        self.capture = capture or cuda_capture
        self.why: str | None = None  # it runs eagerly for good
        self.replayed = 0
        self._forget()

    def _forget(self) -> None:
        self._seen = 0
        self._replay: Callable[[], Tensor] | None = None
        self._static: Batch = {}
        self._rates: list[Tensor] = []
        self._filled: list[float] = []
        self._attributes: Any = None
        self._settings: Any = None

    def on_epoch_start(self) -> None:
        """Looks whether what a graph can't see has changed."""
        if self._replay is not None and self._attributes != _attributes(self.fixed):
            self._forget()

    def __call__(self, batch: Batch, prepare: Callable[[], None]) -> Tensor | None:
        """The loss of this step, or None: then the caller must compute it.

        Args:
            batch: of the step.
            prepare: seeds the step's chance; called before each way of computing it.
        """
        self._seen += 1
        if self.why is not None or self._seen <= WARM:
            return None
        if self._replay is not None and not self._fits(batch):
            return None
        if self._replay is None or self._seen <= WARM + PROOFS:
            return self._prove(batch, prepare)
        self.replayed += 1
        return self._again(batch)

    def _fits(self, batch: Batch) -> bool:
        if self._settings != _settings(self.optimizer):
            return self._give_up("the optimizer's settings change from step to step")
        same = batch.keys() == self._static.keys()
        return same and all(x.shape == self._static[name].shape for name, x in batch.items())

    def _give_up(self, why: str) -> bool:
        self._forget()
        self.why = why
        log.warning("graph=auto: steps run eagerly: %s", why)
        return False

    def _again(self, batch: Batch) -> Tensor:
        assert self._replay is not None
        copy_all_([self._static[name] for name in batch], list(batch.values()))
        for i, group in enumerate(self.optimizer.param_groups):
            if (rate := float(group["lr"])) != self._filled[i]:
                self._rates[i].fill_(rate)
                self._filled[i] = rate
        return self._replay()

    def _prove(self, batch: Batch, prepare: Callable[[], None]) -> Tensor:
        """One step both ways, from the same state; the eager result stays unless the graph has the same."""
        live = self._state()
        before = _copies(live)
        loss = self.step(batch).clone()
        eager = _copies(live)
        worst = float("inf")
        try:
            if [x.data_ptr() for x in live] != [x.data_ptr() for x in self._state()]:
                raise RuntimeError("it replaces a tensor of a module or the optimizer")
            _restore(live, before)
            if self._replay is None:
                self._record(batch)
                _restore(live, before)
            prepare()
            again = self._again(batch)
            worst = max(_deviation(before, eager, live), float((again - loss).abs() / loss.abs().clamp_min(1e-6)))
        except RuntimeError as error:
            self._give_up(f"a step can't be captured: {str(error).splitlines()[0]}")
        else:
            if not worst <= TOLERANCE:
                self._give_up(f"the captured step differs from the eager one by {worst:.1%} of its change")
        if self.why is not None:
            _restore(live, eager)
        elif self._seen == WARM + PROOFS:
            log.info("graph=auto: steps are replayed; %d differed from eager ones by at most %.1g", PROOFS, worst)
        return loss

    def _record(self, batch: Batch) -> None:
        self._static = {name: x.clone() for name, x in batch.items()}
        device = next(iter(batch.values())).device
        self._filled = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._rates = [torch.full((), rate, device=device) for rate in self._filled]
        self._attributes, self._settings = _attributes(self.fixed), _settings(self.optimizer)
        self.optimizer.zero_grad()  # so that backward makes its gradients within the graph
        with _capturable(self.optimizer, self._rates):
            self._replay = self.capture(lambda: self.step(self._static))

    def _state(self) -> list[Tensor]:
        kept = (x for state in self.optimizer.state.values() for x in state.values() if isinstance(x, Tensor))
        return [*self.modules.parameters(), *self.modules.buffers(), *kept]


@contextmanager
def _capturable(optimizer: torch.optim.Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """Lets the optimizer read its learning rates from the device inside; a scheduler sees its own numbers after."""
    groups: list[dict[str, Any]] = optimizer.param_groups
    before: list[dict[str, Any]] = [
        {key: group[key] for key in ("lr", "capturable") if key in group} for group in groups
    ]
    for group, rate in zip(groups, rates, strict=True):
        group.update({"lr": rate} | ({"capturable": True} if "capturable" in group else {}))
    try:
        yield
    finally:
        for group, own in zip(groups, before, strict=True):
            group.update(own)


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{key: value for key, value in g.items() if key not in ("params", "lr")} for g in optimizer.param_groups]


def _attributes(modules: list[nn.Module]) -> list[Any]:
    """Plain attributes, and which parameters learn."""
    plain = (bool, int, float, str, type(None))
    named = [[(key, x) for key, x in m.__dict__.items() if isinstance(x, plain)] for m in modules]
    return [named, [p.requires_grad for m in modules for p in m.parameters(recurse=False)]]


@torch.no_grad()
def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [x.clone() for x in tensors]


@torch.no_grad()
def _restore(tensors: list[Tensor], values: list[Tensor]) -> None:
    for x, value in zip(tensors, values, strict=True):
        x.copy_(value)


@torch.no_grad()
def _deviation(before: list[Tensor], eager: list[Tensor], replayed: list[Tensor]) -> float:
    """The largest difference of two results over all tensors, relative to the change of each; inf where one is NaN."""
    worst = 0.0
    for old, a, b in zip(before, eager, replayed, strict=True):
        if not a.is_floating_point():
            worst = max(worst, 0.0 if torch.equal(a, b) else float("inf"))
            continue
        old, a, b = old.double(), a.double(), b.double()
        least = torch.finfo(torch.float32).eps * a.norm()  # what rounding alone would change
        ratio = float((a - b).norm() / ((a - old).norm() + least).clamp_min(1e-30))
        worst = max(worst, ratio if ratio == ratio else float("inf"))
    return worst
