"""Properties of every feature loss: the oracle's value, gradients, half precision, state, errors."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.losses import oracles_feature as oracle
from torch import Tensor, nn
from torch.func import functional_call

from tutelage.errors import TutelageError
from tutelage.losses.feature.ab import AB
from tutelage.losses.feature.adapt import Lazy, width
from tutelage.losses.feature.at import AT
from tutelage.losses.feature.cat_kd import CATKD
from tutelage.losses.feature.fitnet import FitNet
from tutelage.losses.feature.fsp import FSP
from tutelage.losses.feature.ft import FT
from tutelage.losses.feature.mgd import MGD
from tutelage.losses.feature.nst import NST
from tutelage.losses.feature.ofd import OFD
from tutelage.losses.feature.reviewkd import ReviewKD
from tutelage.losses.feature.srrl import SRRL
from tutelage.losses.feature.vid import VID

Signals = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """Of one stage: batch, channels of student and teacher, their sizes (or numbers of tokens)."""

    kind: str = "map"
    batch: int = 3
    s: int = 3
    t: int = 4
    s_size: tuple[int, int] = (4, 4)
    t_size: tuple[int, int] = (4, 4)

    def draw(self, rng: torch.Generator, teacher: bool, channels: int | None = None) -> Tensor:
        channels = channels or (self.t if teacher else self.s)
        size = self.t_size if teacher else self.s_size
        shape = {"map": (channels, *size), "token": (self.s_size[0], channels), "vector": (channels,)}[self.kind]
        return torch.randn(self.batch, *shape, generator=rng, dtype=torch.float64)


def one(shape: Shape, rng: torch.Generator) -> Signals:
    return {"student": shape.draw(rng, False), "teacher": shape.draw(rng, True)}


def several(shape: Shape, rng: torch.Generator) -> Signals:
    """Two stages, the second one channel wider."""
    return {
        name: [shape.draw(rng, teacher, (shape.t if teacher else shape.s) + i) for i in range(2)]
        for name, teacher in (("student", False), ("teacher", True))
    }


def alike(shape: Shape, rng: torch.Generator) -> Signals:
    """Three stages with the teacher's channels in both."""
    return {
        name: [shape.draw(rng, teacher, shape.t + i) for i in range(3)]
        for name, teacher in (("student", False), ("teacher", True))
    }


def with_norm(shape: Shape, rng: torch.Generator) -> Signals:
    signals = several(shape, rng)
    for name in ("bn_weight", "bn_bias"):
        signals[name] = [torch.randn(width(t), generator=rng, dtype=torch.float64) for t in signals["teacher"]]
    return signals


def with_classifier(shape: Shape, rng: torch.Generator) -> Signals:
    shapes = {"classifier_weight": (5, shape.t), "classifier_bias": (5,), "teacher_logits": (shape.batch, 5)}
    draw = {name: torch.randn(*sizes, generator=rng, dtype=torch.float64) for name, sizes in shapes.items()}
    return one(shape, rng) | draw


def with_weights(shape: Shape, rng: torch.Generator) -> Signals:
    widths = {"student_weight": shape.s, "teacher_weight": shape.t}
    return one(shape, rng) | {n: torch.randn(5, c, generator=rng, dtype=torch.float64) for n, c in widths.items()}


def mgd_oracle(state: oracle.State, student: oracle.Array, teacher: oracle.Array) -> float:
    """Draws the mask as documented: one uniform number a pixel from the global generator, 0 where below the ratio."""
    size = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return oracle.mgd(state, student, teacher, (torch.rand(len(student), 1, *size) >= 0.5).numpy())


def prepared(loss: FT) -> None:
    """As if its paraphraser had learned: the oracle needs no particular one."""
    loss.set_extra_state({"prepared": True})


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    signals: Callable[[Shape, torch.Generator], Signals]
    oracle: Callable[..., float]
    kinds: tuple[str, ...] = ("map",)
    smallest: int = 1  # side of a map
    ready: Callable[[Any], None] = field(default=lambda loss: None)

    def draw(self, shape: Shape, seed: int = 0) -> Signals:
        return self.signals(shape, torch.Generator().manual_seed(seed))

    def built(self, signals: Signals, seed: int = 1) -> nn.Module:
        """The loss as the framework makes it: shaped by a first call without gradients."""
        loss = self.make()
        torch.manual_seed(seed)
        with torch.no_grad():
            loss(**signals)
        self.ready(loss)
        return loss


CASES = {
    "fitnet": Case(FitNet, one, oracle.fitnet, ("map", "token", "vector")),
    "fitnet_rectify": Case(lambda: FitNet(rectify=True), one, oracle.fitnet, ("map", "vector")),
    "at": Case(AT, several, oracle.at, ("map", "token")),
    "vid": Case(VID, several, oracle.vid, ("map", "token", "vector")),
    "nst": Case(NST, several, oracle.nst, ("map", "token")),
    "fsp": Case(FSP, alike, oracle.fsp),
    "ab": Case(AB, several, oracle.ab, ("map", "vector")),
    "ft": Case(FT, one, oracle.ft, ready=prepared),
    "ofd": Case(OFD, with_norm, oracle.ofd, ("map", "vector")),
    "reviewkd": Case(ReviewKD, several, oracle.reviewkd, ("map", "vector")),
    "srrl": Case(SRRL, with_classifier, oracle.srrl, ("map", "vector")),
    "cat_kd": Case(CATKD, with_weights, oracle.cat_kd, smallest=2),
    "mgd": Case(MGD, one, mgd_oracle),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
learning = pytest.mark.parametrize(
    "case", [c for c in CASES.values() if issubclass(type(c.make()), Lazy)], ids=lambda c: type(c.make()).__name__
)


def convert(x: Any, how: Callable[[Tensor], Any]) -> Any:
    if isinstance(x, dict):
        return {k: convert(v, how) for k, v in x.items()}
    return [convert(v, how) for v in x] if isinstance(x, list) else how(x)


def expected(case: Case, loss: nn.Module, signals: Signals) -> float:
    state = {k: v.double().numpy() for k, v in loss.state_dict().items() if isinstance(v, Tensor)}
    return float(case.oracle(state, **convert(signals, lambda x: x.double().numpy())))


def shapes(case: Case) -> st.SearchStrategy[Shape]:
    side, channels = st.integers(case.smallest, 9), st.integers(1, 5)
    size = st.tuples(side, side)
    return st.builds(Shape, st.sampled_from(case.kinds), st.integers(2, 4), channels, channels, size, size)


@every
def test_value_is_the_oracle_s(case: Case) -> None:
    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(shapes(case), st.integers(0, 10**6))
    def check(shape: Shape, seed: int) -> None:
        signals = case.draw(shape, seed)
        loss = case.built(signals, seed)
        torch.manual_seed(seed)
        value = loss(**signals)
        torch.manual_seed(seed)
        assert value.dtype == torch.float64
        assert value.shape == ()
        assert value.item() == pytest.approx(expected(case, loss, signals), rel=1e-8, abs=1e-12)

    check()


@every
def test_gradcheck(case: Case) -> None:
    for kind in case.kinds:
        signals = case.draw(Shape(kind, batch=3, s=2, t=3, s_size=(4, 3), t_size=(2, 3)), seed=5)
        check_gradients(case.built(signals), signals)


def check_gradients(loss: nn.Module, signals: Signals) -> None:
    """With respect to the student's stages and every parameter that learns."""
    stages = stage_list(signals["student"])
    learned = {name: p for name, p in loss.named_parameters() if p.requires_grad}

    def value(*tensors: Tensor) -> Tensor:
        torch.manual_seed(0)
        student = list(tensors[: len(stages)]) if isinstance(signals["student"], list) else tensors[0]
        parameters = dict(zip(learned, tensors[len(stages) :], strict=True))
        return functional_call(loss, parameters, kwargs=signals | {"student": student})

    assert torch.autograd.gradcheck(
        value, [x.detach().clone().requires_grad_() for x in (*stages, *learned.values())], fast_mode=True
    )


def stage_list(x: Tensor | list[Tensor]) -> list[Tensor]:
    return x if isinstance(x, list) else [x]


@every
def test_gradients_reach_student_and_every_learned_part(case: Case) -> None:
    signals = convert(case.draw(Shape()), Tensor.float)
    loss = case.built(signals)
    leaves = [x.requires_grad_() for x in stage_list(signals["student"])]
    value = loss(**signals)
    assert value.dtype == torch.float32
    assert value.isfinite()
    value.backward()
    assert all(x.grad.abs().sum() > 0 for x in leaves)
    for name, parameter in loss.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
def test_half_precision_is_within_1e_5_of_the_oracle_on_the_rounded_signals(
    case: Case, dtype: torch.dtype, autocast: bool
) -> None:
    signals = convert(case.draw(Shape(batch=4, s_size=(8, 8), t_size=(4, 6))), lambda x: x.to(dtype))
    loss = case.built(signals)
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value = loss(**signals)
    torch.manual_seed(3)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected(case, loss, signals), rel=1e-5)


@learning
def test_state_round_trips_into_a_module_shaped_by_another_call(case: Case) -> None:
    signals = case.draw(Shape())
    loss = case.built(signals)
    other = case.built(case.draw(Shape(), seed=9), seed=9)
    assert different(loss, other)
    other.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert not different(loss, other)
    torch.manual_seed(0)
    value = loss(**signals)
    torch.manual_seed(0)
    assert torch.equal(value, other(**signals))


def different(a: nn.Module, b: nn.Module) -> bool:
    return any(not torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@learning
def test_a_deep_copy_made_before_the_first_call_is_shaped_by_its_own(case: Case) -> None:
    signals = case.draw(Shape())
    first = case.make()
    second = copy.deepcopy(first)
    for loss in (first, second):
        torch.manual_seed(2)
        with torch.no_grad():
            loss(**signals)
    assert first.built
    assert not different(first, second)
    assert not {id(p) for p in first.parameters()} & {id(p) for p in second.parameters()}


@learning
def test_the_first_call_keeps_mode_and_takes_dtype(case: Case) -> None:
    loss = case.make().eval()
    with torch.no_grad():
        loss(**case.draw(Shape()))
    assert all(not part.training for part in loss.modules())
    assert {p.dtype for p in loss.parameters()} == {torch.float64}
    assert any(p.requires_grad for p in loss.parameters())


@every
def test_other_batches_are_refused(case: Case) -> None:
    signals = case.draw(Shape(batch=3)) | {"teacher": case.draw(Shape(batch=2))["teacher"]}
    with pytest.raises(TutelageError, match=r"\[3, 3, 4, 4\].*\[2, 4, 4, 4\]|\[3, 4, 4, 4\].*\[2, 4, 4, 4\]"):
        case.make()(**signals)


@every
def test_other_kinds_are_refused(case: Case) -> None:
    for kind in {"map", "token", "vector"} - set(case.kinds):
        signals = case.draw(Shape()) | case.signals(Shape(kind), torch.Generator())
        with pytest.raises(TutelageError, match=r"maps \[B, C, H, W\].*found student \[3, .*teacher \[3, "):
            case.make()(**signals)
    mixed = case.draw(Shape()) | {"teacher": convert(case.draw(Shape())["teacher"], lambda x: x.flatten(1))}
    with pytest.raises(TutelageError, match=r"the same for student and teacher; found .*\[3, \d+, 4, 4\].*\[3, \d+\]"):
        case.make()(**mixed)


@every
def test_another_number_of_stages_is_refused(case: Case) -> None:
    signals = case.draw(Shape())
    if isinstance(signals["teacher"], list):
        with pytest.raises(TutelageError, match=r"the same number of stages of both; found student .* teacher "):
            case.make()(**signals | {"teacher": signals["teacher"][1:]})


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
@pytest.mark.parametrize("name", ["at", "fitnet_rectify", "ofd", "reviewkd"])
def test_compiled_is_the_same(name: str) -> None:
    case = CASES[name]
    signals = convert(case.draw(Shape(t_size=(2, 2))), Tensor.float)
    loss = case.built(signals)
    compiled = torch.compile(loss, backend="eager")
    torch.testing.assert_close(compiled(**signals), loss(**signals), rtol=0, atol=0)
