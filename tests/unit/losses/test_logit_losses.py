"""Properties of every logit loss: value, gradient, minimum, invariances, half precision, masks, sweeps, errors."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.losses.cases_logit import CASES, Case, Signals
from torch import Tensor, nn
from torch.func import functional_call, vmap

from tutelage.errors import TutelageError
from tutelage.losses.logit.dist import DIST
from tutelage.losses.logit.lskd import LSKD
from tutelage.losses.logit.mlkd import MLKD


def over(**properties: bool) -> pytest.MarkDecorator:
    """Parametrises over the cases that have these properties."""
    names = [n for n, case in CASES.items() if all(getattr(case, key) is value for key, value in properties.items())]
    return pytest.mark.parametrize("case", [CASES[n] for n in names], ids=names)


def draw(case: Case, rows: int = 5, classes: int = 7, scale: float = 3.0, seed: int = 0) -> Signals:
    g = torch.Generator().manual_seed(seed)
    every = {
        "student": scale * torch.randn(rows, classes, generator=g, dtype=torch.float64),
        "teacher": scale * torch.randn(rows, classes, generator=g, dtype=torch.float64),
        "label": torch.randint(classes, (rows,), generator=g),
    }
    return {name: every[name] for name in case.inputs}


def logits_only(signals: Signals, change: Callable[[Tensor], Tensor]) -> Signals:
    return {name: x if name == "label" else change(x) for name, x in signals.items()}


def number(loss: Tensor) -> float:
    return loss.detach().item()


def double(case: Case, **options: Any) -> nn.Module:
    return case.make(**(options or case.middle())).double()


@over()
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_the_value_is_the_formulas(case: Case, data: st.DataObject) -> None:
    options = {name: data.draw(st.sampled_from(values), name) for name, values in case.options.items()}
    shape = data.draw(st.integers(1, 6), "rows"), data.draw(st.integers(case.classes, 12), "classes")
    signals = draw(case, *shape, data.draw(st.floats(0.1, case.scale), "scale"), data.draw(st.integers(0, 999), "seed"))
    expected = case.value(signals, **options)
    assert number(double(case, **options)(**signals)) == pytest.approx(expected, rel=1e-5, abs=1e-9)
    single = logits_only(signals, Tensor.float)
    found = case.make(**options)(**single)
    assert found.dtype == torch.float32
    tolerance = 2e-6 * max(options.get("temperature", 4.0), *options.get("temperatures", (1.0,))) ** 2
    assert number(found) == pytest.approx(case.value(single, **options), rel=2e-4, abs=tolerance)


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.gradient], ids=[n for n in CASES if CASES[n].gradient])
def test_gradients_are_the_finite_differences(case: Case) -> None:
    loss, signals = double(case), draw(case, 3, 4, 1.0)
    free = [signals.pop(name).requires_grad_() for name in case.gradient]
    assert torch.autograd.gradcheck(lambda *x: loss(**dict(zip(case.gradient, x, strict=True)), **signals), free)


@over(zero=True)
def test_agreement_is_the_minimum(case: Case) -> None:
    loss, signals = double(case), draw(case)
    free = signals["student"].clone().requires_grad_()
    same = loss(**(signals | {"student": free, "teacher": signals["student"]}))
    assert number(same) == pytest.approx(0.0, abs=1e-13)
    assert torch.autograd.grad(same, free)[0].abs().max() < 1e-13
    assert number(loss(**signals)) > 1e-3


@over(shift=True)
def test_a_constant_added_to_a_row_changes_nothing(case: Case) -> None:
    loss, signals = double(case), draw(case)
    moved = logits_only(signals, lambda z: z + 7.0 * torch.arange(len(z))[:, None])
    assert number(loss(**moved)) == pytest.approx(number(loss(**signals)), rel=1e-10)


@over()
def test_the_order_of_classes_and_of_rows_means_nothing(case: Case) -> None:
    loss, signals = double(case), draw(case)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    classes = logits_only(signals, lambda z: z[:, order])
    if "label" in signals:
        classes["label"] = order.argsort()[signals["label"]]
    rows = {name: x[torch.tensor([4, 2, 0, 1, 3])] for name, x in signals.items()}
    expected = pytest.approx(number(loss(**signals)), rel=1e-12)
    assert number(loss(**classes)) == expected
    assert number(loss(**rows)) == expected


@over()
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (1, 2, 3, 4, 5)], ids=["tokens", "map", "volume"])
def test_more_than_a_row_an_example_is_refused(case: Case, shape: tuple[int, ...]) -> None:
    """Of a segmentation network's [B, C, H, W] the softmax over W would be as good a loss as any."""
    loss, signals = double(case), draw(case, math.prod(shape))
    folded = {name: x.unflatten(0, shape) for name, x in signals.items()}
    with pytest.raises(TutelageError, match=r"expected non-empty logits \[B, C\], classes last") as error:
        loss(**folded)
    assert f"found {[*shape, 7]}" in str(error.value)
    assert ("flatten(0, -2)" in str(error.value)) == (len(shape) < 4)


@pytest.mark.parametrize("case", [CASES["LSKD"], CASES["DIST"]], ids=["LSKD", "DIST"])
def test_two_classes_teach_nothing_and_are_refused(case: Case) -> None:
    with pytest.raises(TutelageError, match=r"needs 3 classes or more, found \[5, 2\]"):
        double(case)(**draw(case, classes=2))
    assert double(case)(**draw(case, classes=3)).isfinite()


def test_dist_of_classes_alone_takes_two() -> None:
    signals = draw(CASES["DIST"], classes=2)
    found = DIST(beta=0.0, temperature=1.0).double()(**signals)
    expected = CASES["DIST"].value(signals, beta=0.0, gamma=1.0, temperature=1.0)
    assert number(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "name", ["SoftTarget", "DKD", "DTKD", "TTM", "WTTM", "ReverseKL", "JSD", "SkewKL", "SkewReverseKL", "AKL"]
)
@pytest.mark.parametrize("gap", [3e-2, 3e-3, 3e-4])
def test_between_near_equals_float32_keeps_its_digits_and_its_sign(name: str, gap: float) -> None:
    """Σ q log(q/p) alone is rounding there: negative as often as not, and a student that is nearly right sees noise."""
    case, temperature = CASES[name], 1.0 if "TTM" in name else 4.0
    signals = draw(case, 64, 100)
    noise = torch.randn(64, 100, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    signals = logits_only(signals | {"student": signals["teacher"] + gap * noise}, Tensor.float)
    options = case.middle() | {"temperature": temperature}
    found, expected = number(case.make(**options)(**signals)), case.value(signals, **options)
    assert found > 0
    assert found == pytest.approx(expected, rel=3e-7 * (1 + 4 * temperature / gap))


def test_multi_level_weights_are_the_authors_ratios() -> None:
    """Their code: two views, a half of the weak one's, relations of that alone; 0.9 of each to 0.1 of cross-entropy."""
    signals = draw(CASES["MLKD"])
    parts = [CASES["MLKD"].value(signals, temperatures=(2.0, 5.0), instance=i, batch=b, classes=c) for i, b, c in
             ((1, 0, 0), (0, 1, 0), (0, 0, 1))]  # fmt: skip
    theirs = 0.9 * (1.5 * parts[0] + 0.5 * parts[1] + 0.5 * parts[2]), 2 * 0.1  # teacher's terms, cross-entropy
    ours = 0.675 * number(MLKD((2.0, 5.0)).double()(**signals)), 0.1  # conf/loss/mlkd.yaml at alpha = 0.9
    assert ours[0] / ours[1] == pytest.approx(theirs[0] / theirs[1], rel=1e-6)


@over()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_half_precision(case: Case, dtype: torch.dtype, temperature: float) -> None:
    name = next((n for n in ("temperature", "temperatures", "start") if n in case.options), None)
    options = case.middle()
    if name:
        options[name] = (temperature,) if name == "temperatures" else temperature
    loss = case.make(**options)
    signals = logits_only(draw(case, 8, 10), lambda z: z.to(dtype).requires_grad_())
    found = loss(**signals)
    found.backward()
    exact = {n: x.detach() for n, x in signals.items()}
    assert number(found) == pytest.approx(case.value(exact, **options), rel=1e-3)
    assert signals["student"].grad is not None
    assert signals["student"].grad.dtype == dtype
    assert signals["student"].grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(**signals), found)


@over()
def test_far_apart_logits_stay_finite(case: Case) -> None:
    signals = logits_only(draw(case, scale=1e4), lambda z: z.float().requires_grad_())
    found = case.make(**case.middle())(**signals)
    found.backward()
    assert found.isfinite()
    assert all(x.grad is None or x.grad.isfinite().all() for x in signals.values() if x.is_floating_point())


@over(drop=True)
def test_a_class_that_both_mask_is_as_good_as_absent(case: Case) -> None:
    loss, signals = double(case), draw(case)
    if "label" in signals:
        signals["label"] = signals["label"] % 6
    masked = logits_only(signals, lambda z: z.index_fill(1, torch.tensor([6]), -math.inf).requires_grad_())
    absent = logits_only(signals, lambda z: z[:, :6].clone().requires_grad_())
    found, expected = loss(**masked), loss(**absent)
    assert number(found) == pytest.approx(number(expected), rel=1e-12)
    found.backward()
    expected.backward()
    for name in case.gradient:
        torch.testing.assert_close(masked[name].grad[:, :6], absent[name].grad)
        assert not masked[name].grad[:, 6].any()


@over()
def test_masks_never_make_a_nan(case: Case) -> None:
    signals = draw(case)
    if "label" in signals:
        signals["label"] = signals["label"] % 6
    signals = logits_only(signals, lambda z: z.float())
    masks = torch.zeros(5, 7, dtype=torch.bool)
    masks[:, 6] = True  # one class of all rows,
    masks[2] = True  # all classes of one row
    signals = logits_only(signals, lambda z: z.masked_fill(masks, -math.inf).requires_grad_())
    found = case.make(**case.middle())(**signals)
    assert not found.isnan()
    found.backward()
    assert not any(x.grad.isnan().any() for x in signals.values() if x.requires_grad and x.grad is not None)


@over()
def test_nan_is_not_hidden(case: Case) -> None:
    for name in set(case.inputs) - {"label"}:
        signals = draw(case)
        signals[name][1, 2] = math.nan
        assert double(case)(**signals).isnan()


@over()
def test_hyperparameters_are_stackable_and_not_saved(case: Case) -> None:
    loss = case.make(**case.middle())
    buffers = {name: x for name, x in loss.named_buffers() if not name.endswith("reversal")}
    assert not set(buffers) & set(loss.state_dict())
    assert {name.split(".")[-1] for name in buffers} == set(case.options)
    signals = draw(case)
    single = logits_only(signals, Tensor.float)
    stacked = {name: torch.stack([x, 0.9 * x, 0.5 * x]) for name, x in buffers.items()}
    if not stacked:
        return
    found = vmap(lambda b: functional_call(loss, b, kwargs=single))(stacked)
    each = [functional_call(loss, {n: x[i] for n, x in stacked.items()}, kwargs=single) for i in range(3)]
    torch.testing.assert_close(found, torch.stack(each))


@pytest.mark.long
@over()
def test_compiled_is_the_same(case: Case) -> None:
    torch._dynamo.reset()
    loss = case.make(**case.middle())
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    signals = logits_only(draw(case), Tensor.float)
    free = [signals["student"].clone().requires_grad_() for _ in range(2)]
    found, expected = compiled(**signals | {"student": free[0]}), loss(**signals | {"student": free[1]})
    assert torch.equal(found, expected)
    found.backward()
    expected.backward()
    assert torch.equal(free[0].grad, free[1].grad)


@over()
def test_shapes_that_do_not_fit_are_refused(case: Case) -> None:
    loss, signals = double(case), draw(case, 5, 10)
    misfits = [{"student": signals["student"][0]}, {"student": torch.empty(0, 10)}]
    if "teacher" in signals:
        misfits += [{"teacher": signals["teacher"][:, :1]}, {"teacher": signals["teacher"][:1]}]
        misfits[0] |= {"teacher": signals["teacher"][0]}
        misfits[1] |= {"teacher": torch.empty(0, 10)}
    if "label" in signals:
        misfits += [{"label": signals["label"][:1]}, {"label": signals["label"].double()}]
        misfits[0] |= {"label": signals["label"][0]}
        misfits[1] |= {"label": torch.empty(0, dtype=torch.long)}
    for misfit in misfits:
        with pytest.raises(TutelageError, match=type(loss).__name__ if type(loss) is not LSKD else "LSKD|SoftTarget"):
            loss(**signals | misfit)


@over()
@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, None, "warm"])
def test_bad_hyperparameters_are_refused(case: Case, bad: Any) -> None:
    for name in case.options:
        with pytest.raises(TutelageError, match=f"temperature.*found.*{bad}|{name}.*found.*{bad}"):
            case.make(**{name: (bad,) if name == "temperatures" else bad})


@over()
def test_a_temperature_of_0_is_refused(case: Case) -> None:
    for name in {"temperature", "start"} & set(case.options):
        with pytest.raises(TutelageError, match=r"\[0.001, inf\], found 0"):
            case.make(**{name: 0})
