import math

import numpy as np
import pytest
import torch
from tests.unit.losses.properties import check_gradients, check_half_precision, check_padding, value
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.dense.pairwise import PairWise


def draw(*shape: int, teacher: tuple[int, ...] = ()) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = {"student": shape, "teacher": teacher or shape}
    return {name: torch.randn(*one, generator=g, dtype=torch.float64) for name, one in shapes.items()}


def mask() -> Tensor:
    found = torch.ones(2, 5, 6, dtype=torch.bool)
    found[0, 2:, 3:], found[1, 0] = False, False
    return found


def nodes(feature: np.ndarray, mask: np.ndarray, height: int, width: int) -> list[np.ndarray | None]:
    """The largest number of each channel in each window; None of a window without a place."""
    found = []
    for y in range(0, feature.shape[1], height):
        for x in range(0, feature.shape[2], width):
            window = feature[:, y : y + height, x : x + width][:, mask[y : y + height, x : x + width]]
            found.append(window.max(1) if window.size else None)
    return found


def oracle(student: Tensor, teacher: Tensor, pool: float, mask: Tensor | None = None) -> float:
    height, width = (max(1, int(side * pool)) for side in student.shape[2:])
    found = []
    for b in range(len(student)):
        kept = np.ones(student.shape[2:], bool) if mask is None else mask[b].numpy()
        s, t = (
            [x / np.linalg.norm(x) for x in nodes(one[b].numpy(), kept, height, width) if x is not None]
            for one in (student, teacher)
        )
        found.append(np.mean([[(s[i] @ s[j] - t[i] @ t[j]) ** 2 for j in range(len(s))] for i in range(len(s))]))
    return float(np.mean(found))


@pytest.mark.parametrize("pool", [0.5, 0.3, 0.0])
def test_the_value_is_the_formulas(pool: float) -> None:
    signals = draw(2, 3, 5, 6, teacher=(2, 4, 5, 6))
    assert value(PairWise(pool), signals) == pytest.approx(oracle(**signals, pool=pool), rel=1e-12)
    masked = oracle(**signals, pool=pool, mask=mask())
    assert value(PairWise(pool), signals | {"mask": mask()}) == pytest.approx(masked, rel=1e-12)


def test_at_half_the_map_has_four_nodes() -> None:
    signals = draw(2, 3, 4, 6)
    quarters = {name: torch.nn.functional.max_pool2d(x, (2, 3)) for name, x in signals.items()}
    assert quarters["student"].shape[2:] == (2, 2)
    assert value(PairWise(0.5), signals) == value(PairWise(0.0), quarters)


def test_gradients_are_the_finite_differences() -> None:
    signals = draw(2, 3, 4, 4, teacher=(2, 4, 4, 4))
    check_gradients(PairWise(), signals, ("student",))
    check_gradients(PairWise(), signals | {"mask": mask()[:, :4, 1:5]}, ("student",))


def test_a_rotation_and_the_length_of_features_mean_nothing() -> None:
    signals = draw(2, 3, 4, 4)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    turned = torch.einsum("cd,bdhw->bchw", rotation, signals["student"])
    assert value(PairWise(0.0), {"student": 3 * turned, "teacher": signals["student"]}) == pytest.approx(0, abs=1e-25)


def test_sizes_that_differ_are_pooled() -> None:
    signals = draw(2, 3, 8, 6, teacher=(2, 3, 4, 3))
    pooled = signals | {"student": torch.nn.functional.avg_pool2d(signals["student"], 2)}
    assert value(PairWise(), signals) == value(PairWise(), pooled)


def test_places_that_do_not_count_change_nothing() -> None:
    class Last(torch.nn.Module):
        def forward(self, student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
            return PairWise(0.0)(student.movedim(-1, 1), teacher.movedim(-1, 1), mask)

    signals = {name: x.movedim(1, -1) for name, x in draw(2, 3, 5, 6, teacher=(2, 4, 5, 6)).items()}
    check_padding(Last(), signals | {"mask": mask()}, {"student": "mask", "teacher": "mask"})


def test_without_a_place_it_is_0_and_zeros_send_no_gradient() -> None:
    signals = draw(2, 3, 4, 4)
    student = signals["student"].requires_grad_()
    loss = PairWise()(student, signals["teacher"], torch.zeros(2, 4, 4, dtype=torch.bool))
    assert loss == 0
    assert not torch.autograd.grad(loss, student)[0].any()
    dead = torch.zeros(2, 3, 4, 4).requires_grad_()
    PairWise()(dead, signals["teacher"].float()).backward()
    assert not dead.grad.any()


def test_half_precision() -> None:
    check_half_precision(PairWise(), draw(2, 3, 8, 8), "student")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TutelageError, match=r"PairWise takes maps \[B, C, H, W\].*; found student \[2, 3, 4\]"):
        PairWise()(**draw(2, 3, 4))
    with pytest.raises(TutelageError, match=r"equal sizes; found student \[4, 5\], teacher \[2, 5\]"):
        PairWise()(**draw(2, 3, 4, 5, teacher=(2, 3, 2, 5)), mask=mask())
    with pytest.raises(TutelageError, match=r"mask of bools \[2, 4, 5\].*; found torch.bool \[2, 5, 6\]"):
        PairWise()(**draw(2, 3, 4, 5), mask=mask())
    for pool in (-0.1, 1.5, math.nan, "half"):
        with pytest.raises(TutelageError, match=r"PairWise.pool: expected a number in \[0, 1\], found"):
            PairWise(pool)
