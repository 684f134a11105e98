"""What losses share: schedules, masks, checks of logits, precision."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.losses import logits, masks, precision, schedules

E5 = math.exp(-5)
SCHEDULES: list[tuple[Callable[..., float], int, dict[str, Any], list[float]]] = [  # epochs in all: factor of each
    (schedules.warmup, 4, {"length": 3}, [1 / 3, 2 / 3, 1, 1]),
    (schedules.warmup, 2, {"length": 1}, [1, 1]),
    (schedules.linear, 3, {"start": 4.0, "end": 1.0}, [4, 2.5, 1]),
    (schedules.linear, 2, {"start": 4.0, "end": 1.0}, [4, 1]),
    (schedules.linear, 1, {"start": 4.0, "end": 1.0}, [1]),
    (schedules.cosine, 3, {"start": 4.0, "end": 1.0}, [4, 2.5, 1]),
    (schedules.cosine, 5, {"start": 4.0, "end": 1.0}, [4, 2.5 + 1.5 * 0.5**0.5, 2.5, 2.5 - 1.5 * 0.5**0.5, 1]),
    (schedules.cosine, 1, {"start": 4.0, "end": 1.0}, [1]),
    (schedules.between, 4, {"start": 0.25, "end": 0.75}, [0, 1, 1, 0]),
    (schedules.after, 4, {"first": 3}, [0, 0, 1, 1]),
    (schedules.after, 2, {"first": 1}, [1, 1]),
    (schedules.ramp_up, 4, {"share": 0.5}, [E5, E5**0.25, 1, 1]),
    (schedules.ramp_up, 2, {"share": 1.0}, [E5, E5**0.25]),
]


@pytest.mark.parametrize(("schedule", "epochs", "arguments", "expected"), SCHEDULES)
def test_a_factor_of_every_epoch(schedule, epochs, arguments, expected):
    found = [schedule(epoch, epochs, **arguments) for epoch in range(epochs)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert all(isinstance(one, float) for one in found)


def test_a_mask_is_of_bools_and_of_its_shape():
    shape = torch.Size([2, 3])
    masks.check_mask(torch.ones(2, 3, dtype=torch.bool), shape, "x")
    for mask in (torch.ones(2, 3), torch.ones(2, 1, dtype=torch.bool), torch.ones(2, 3, 1, dtype=torch.bool)):
        with pytest.raises(TutelageError, match=r"x: expected a mask of bools \[2, 3\]"):
            masks.check_mask(mask, shape, "x")


def test_a_mask_of_pixels_is_pooled_along_one_axis_too():
    pixels = torch.zeros(1, 2, 4, dtype=torch.bool)
    pixels[0, 1, 3] = True
    assert masks.of_map(pixels, torch.Size([2, 2])).tolist() == [[[False, False], [False, True]]]
    assert masks.of_map(pixels, torch.Size([1, 4])).tolist() == [[[False, False, False, True]]]
    assert masks.of_map(pixels, torch.Size([2, 3])) is pixels
    assert masks.of_map(pixels, torch.Size([4, 4])) is pixels  # a larger map


def test_a_mean_of_valid_elements_is_over_their_own_axes_too():
    x, mask = torch.arange(12.0).view(2, 3, 2), torch.tensor([[True, False, True], [False, False, True]])
    assert masks.masked_mean(x, None).item() == pytest.approx(5.5)
    assert masks.masked_mean(x, mask).item() == pytest.approx((0 + 1 + 4 + 5 + 10 + 11) / 6)
    assert masks.masked_mean(x[..., 0], mask).item() == pytest.approx((0 + 4 + 10) / 3)
    assert masks.masked_mean(x / 0.0, torch.zeros_like(mask)).item() == 0
    assert masks.masked_mean(torch.zeros(0), None).item() == 0
    assert torch.equal(masks.only(x, None), x)
    assert masks.only(x.log(), mask)[~mask].tolist() == [[0.0, 0.0]] * 3
    assert masks.trailing(mask, 4).shape == (2, 3, 1, 1)
    assert masks.trailing(mask, 2).shape == (2, 3)


def test_a_constant_is_a_finite_number_within_its_bounds():
    assert logits.constant(2, "x").item() == 2.0
    assert logits.constant("0.5", "x", 0.5, 0.5).item() == 0.5
    for value in (math.inf, -math.inf, math.nan, None, "a", [1]):
        with pytest.raises(TutelageError, match=r"x: expected a finite number in \[-inf, inf\]"):
            logits.constant(value, "x")
    for value in (0.999, 2.001):
        with pytest.raises(TutelageError, match=rf"x: expected a finite number in \[1, 2\], found {value}"):
            logits.constant(value, "x", 1.0, 2.0)
    assert logits.checked_temperature(1e-3, "x").item() == pytest.approx(1e-3)
    with pytest.raises(TutelageError, match=r"x\.temperature"):
        logits.checked_temperature(9.99e-4, "x")


@pytest.mark.parametrize(
    ("shape", "advice"),
    [((3,), ""), ((0, 3), ""), ((2, 0), ""), ((2, 3, 4), r"flatten\(0, -2\)"), ((2, 3, 4, 5), "movedim"),
     ((1, 2, 3, 4, 5), "")],
)  # fmt: skip
def test_logits_are_rows(shape, advice):
    with pytest.raises(TutelageError, match=r"x: expected non-empty logits \[B, C\]") as error:
        logits.rows(torch.zeros(shape), "x")
    assert ("for one row per position" in str(error.value)) == bool(advice)
    error.match(advice)


def test_rows_of_two_classes_have_no_relations():
    logits.check_relations(torch.zeros(2, 3), "x")
    with pytest.raises(TutelageError, match="x compares rows"):
        logits.check_relations(torch.zeros(3, 2), "x")


def test_labels_are_a_column_of_integers():
    assert logits.column(torch.tensor([1, 0], dtype=torch.int32), torch.zeros(2, 3), "x").tolist() == [[1], [0]]
    positions = torch.arange(8).view(2, 4)  # of logits that a loss refuses next, and says how to flatten
    assert logits.column(positions, torch.zeros(2, 4, 3), "x").tolist() == [[i] for i in range(8)]
    for label in (torch.zeros(2), torch.zeros(3, dtype=torch.long), torch.zeros(2, 1, dtype=torch.long)):
        with pytest.raises(TutelageError, match=r"x: expected integers \[2\]"):
            logits.column(label, torch.zeros(2, 3), "x")


def test_logarithms_of_masked_classes_are_finite_and_a_label_is_split_from_the_rest():
    z = torch.tensor([[1.0, -math.inf, 3.0], [-math.inf] * 3, [0.0, math.nan, 1.0]], dtype=torch.float64)
    found = logits.log_softmax(z, torch.tensor(2.0))
    assert found[0, [0, 2]].tolist() == pytest.approx([-math.log(1 + math.e), 1 - math.log(1 + math.e)])
    assert found[0, 1] < -1e29
    assert found[1].tolist() == pytest.approx([-math.log(3)] * 3)
    assert found[2].isnan().all()
    log_p = torch.tensor([[0.5, 0.2, 0.3]], dtype=torch.float64).log()
    binary, others = logits.label_and_rest(log_p, torch.tensor([[1]]))
    assert binary.exp().tolist()[0] == pytest.approx([0.2, 0.8])
    assert others.exp().tolist()[0] == pytest.approx([0.625, 0.0, 0.375])
    log_q = torch.tensor([[0.1, 0.6, 0.3]], dtype=torch.float64).log()
    expected = 0.1 * math.log(0.1 / 0.5) + 0.6 * math.log(3)
    assert logits.kl(log_q, log_p).item() == pytest.approx(expected, rel=1e-12)


def test_half_precision_is_raised_wherever_it_stands():
    half, single, whole = (torch.ones(1, dtype=dtype) for dtype in (torch.float16, torch.float32, torch.int64))
    given = {"a": [half, (single, whole)], "b": half.bfloat16(), "c": "text", "d": half.double()}
    found = precision.at_least_float32(given)
    assert found["a"][0].dtype == found["b"].dtype == torch.float32
    assert found["a"][1] == (single, whole)
    assert isinstance(found["a"][1], tuple)
    assert found["a"][1][0] is single
    assert found["a"][1][1] is whole
    assert found["c"] == "text"
    assert found["d"].dtype == torch.float64


class Doubled:
    @precision.in_float32
    def forward(self, x: Any, **others: Any) -> tuple[Any, bool]:
        return x, torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("given", [torch.ones(2).half(), [torch.ones(2).half()], {"a": torch.ones(2).bfloat16()}])
def test_what_is_given_by_position_or_name_is_raised_without_autocast(given):
    for arguments, named in (((given,), {}), ((), {"x": given}), ((given,), {"y": 3})):
        with torch.autocast("cpu", torch.bfloat16):
            found, autocast = Doubled().forward(*arguments, **named)
        assert not autocast
        [tensor] = [found] if torch.is_tensor(found) else found.values() if isinstance(found, dict) else found
        assert tensor.dtype == torch.float32
    x = torch.ones(2)
    assert Doubled().forward(x)[0] is x
    assert Doubled().forward(3) == (3, False)
    with torch.autocast("cpu", torch.bfloat16):
        assert Doubled().forward(x) == (x, False)
        assert Doubled().forward(3) == (3, False)
