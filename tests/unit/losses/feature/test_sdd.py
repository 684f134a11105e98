import numpy as np
import pytest
import torch
from tests.unit.losses import oracles_feature, oracles_logit
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.feature.sdd import SDD
from tutelage.losses.logit.dkd import DKD
from tutelage.losses.logit.soft_target import SoftTarget


def draw(seed: int = 0, size: int = 5) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    shapes = {
        "student": (6, 3, size, 4),
        "teacher": (6, 4, 4, size),
        "student_weight": (3, 3),
        "teacher_weight": (3, 4),
    }
    found = {name: torch.randn(shape, generator=chance, dtype=torch.float64) for name, shape in shapes.items()}
    bias = {name: torch.randn(3, generator=chance, dtype=torch.float64) for name in ("student_bias", "teacher_bias")}
    return found | bias | {"label": torch.randint(3, (6,), generator=chance)}


def cells(feature: np.ndarray, weight: np.ndarray, bias: np.ndarray, scales: list[int]) -> list[np.ndarray]:
    """The logits [B, K] of each cell."""
    found = []
    for n in scales:
        pooled = oracles_feature.pool(feature, (n, n))
        found += [pooled[:, :, i, j] @ weight.T + bias for i in range(n) for j in range(n)]
    return found


def oracle(signals: dict[str, Tensor], scales: list[int], of_row) -> float:
    given = {name: x.numpy() for name, x in signals.items()}
    ours = cells(given["student"], given["student_weight"], given["student_bias"], scales)
    theirs = cells(given["teacher"], given["teacher_weight"], given["teacher_bias"], scales)
    total = []
    for s_cell, t_cell in zip(ours, theirs, strict=True):
        for row, y in enumerate(given["label"]):
            whole, here = (logits[row].argmax() == y for logits in (theirs[0], t_cell))
            total.append((1 if whole == here else 2) * of_row(s_cell[row : row + 1], t_cell[row : row + 1], y))
    return float(np.mean(total))


@pytest.mark.parametrize("scales", [[1], [1, 2], [1, 2, 4]])
@pytest.mark.parametrize("seed", range(3))
def test_the_value_is_the_formulas(scales: list[int], seed: int) -> None:
    signals = draw(seed)
    soft = SDD(SoftTarget(4.0), scales)(**signals)
    assert soft.item() == pytest.approx(
        oracle(signals, scales, lambda s, t, y: oracles_logit.soft_target(s, t, 4.0)), rel=1e-6
    )
    decoupled = SDD(DKD(1.0, 8.0, 4.0), scales, labelled=True)(**signals)
    expected = oracle(signals, scales, lambda s, t, y: oracles_logit.dkd(s, t, np.array([y]), 1.0, 8.0, 4.0))
    assert decoupled.item() == pytest.approx(expected, rel=1e-6)


def test_the_whole_image_alone_is_the_loss_itself() -> None:
    signals = draw()
    logits = [signals[n].mean((2, 3)) @ signals[f"{n}_weight"].T + signals[f"{n}_bias"] for n in ("student", "teacher")]
    torch.testing.assert_close(SDD(SoftTarget(2.0), [1])(**signals), SoftTarget(2.0)(*logits))


def test_gradients_are_the_finite_differences() -> None:
    signals = draw()
    free = [signals.pop(name).requires_grad_() for name in ("student", "student_weight", "student_bias")]
    loss = SDD(DKD(), [1, 2], labelled=True).double()
    assert torch.autograd.gradcheck(
        lambda s, w, b: loss(student=s, student_weight=w, student_bias=b, **signals), free, fast_mode=True
    )


def test_half_precision() -> None:
    signals = {name: x.bfloat16() if x.is_floating_point() else x for name, x in draw().items()}
    found = SDD(DKD(), [1, 2], labelled=True)(**signals)
    exact = {name: x.double() if x.is_floating_point() else x for name, x in signals.items()}
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(SDD(DKD(), [1, 2], labelled=True)(**exact).item(), rel=1e-4)


def test_bad_scales_and_small_maps_are_said() -> None:
    for scales in ([], [2], [1, 0], [1, 2.5]):
        with pytest.raises(TutelageError, match="begin with 1"):
            SDD(SoftTarget(), scales)
    with pytest.raises(TutelageError, match=r"a map of \[3, 4\] has no 4 cells a side; scales=\[1, 2\]"):
        SDD(SoftTarget(), [1, 2, 4])(**draw(size=3))
