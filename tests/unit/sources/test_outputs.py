import numpy as np
import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.sources.outputs import FLOOR, as_logits, check_kind

KEYS = [10, 20, 30]


def logits(values, kind="logits", classes=2, floor=FLOOR):
    return as_logits(np.asarray(values), kind, classes, floor, "box", KEYS)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64])
def test_logits_are_what_they_were_in_float32(dtype):
    values = np.array([[1, -2], [3, 4], [0, 7]], dtype)
    found = logits(values)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_probabilities_stand_for_the_logits_behind_them(temperature):
    behind = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).mul(8).double()
    found = torch.from_numpy(logits(behind.softmax(1).numpy(), "probabilities", 5))
    expected = (behind / temperature).softmax(1).float()
    torch.testing.assert_close((found / temperature).softmax(1), expected, rtol=2e-5, atol=1e-9)


def test_a_zero_changes_nothing_at_temperature_1_and_a_floor_lifts_it():
    sure = [[1.0, 0.0]] * 3
    found = torch.from_numpy(logits(sure, "probabilities"))
    assert found.isfinite().all()
    torch.testing.assert_close(found.softmax(1), torch.tensor(sure), rtol=0, atol=1e-37)
    lifted = torch.from_numpy(logits(sure, "probabilities", floor=5e-4))
    torch.testing.assert_close(lifted[:, 1].exp(), torch.full((3,), 5e-4))


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ([[1, 2], [3, np.nan], [np.nan, 6]], "logits",
         r"box: expected finite logits, found nan for class 1 of example 20 \(row 1\); 2 of 3 rows"),
        ([[1, 2], [3, 1e39], [5, 6]], "logits", "found inf for class 1 of example 20"),
        ([[0.5, 0.5], [0.5, 0.5], [1.5, -0.5]], "probabilities",
         r"expected probabilities ≥ 0, found -0\.5 for class 1 of example 30 \(row 2\); 1 of 3 rows"),
        ([[0.5, 0.5], [0.5, 0.502], [1.5, 2.5]], "probabilities",
         r"that sum to 1, found 1\.002 for example 20 \(row 1\); 2 of 3 rows .*kind=logits"),
        ([[1, 2], [3, 4]], "logits", r"expected logits \[3, 2\] \(examples, classes\), found \[2, 2\]"),
        ([[1, 2, 3]] * 3, "logits", r"expected logits \[3, 2\] \(examples, classes\), found \[3, 3\]"),
        ([["a", "b"]] * 3, "logits", "expected logits that are numbers, found <U1"),
        ([[True, False]] * 3, "logits", "expected logits that are numbers, found bool"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused_by_example(values, kind, said):
    with pytest.raises(TutelageError, match=said):
        logits(values, kind)


def test_sums_are_1_within_a_thousandth():
    logits([[0.5, 0.5009], [0.4995, 0.5], [0, 1]], "probabilities")


@pytest.mark.parametrize("floor", [0.0, -1.0, 1.0, 1e-40, float("nan")])
def test_a_floor_that_is_none(floor):
    with pytest.raises(TutelageError, match="floor must be a probability"):
        check_kind("probabilities", floor)
