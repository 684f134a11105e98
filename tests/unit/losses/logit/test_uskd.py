import numpy as np
import pytest
import torch
from tests.unit.losses import oracles_logit as oracle
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.logit.uskd import USKD


def draw(rows: int = 5, seed: int = 0) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    shapes = {"student": (rows, 4), "middle": (rows, 3, 2, 2)}
    found = {n: 2 * torch.randn(shape, generator=chance, dtype=torch.float64) for n, shape in shapes.items()}
    return {**found, "label": torch.randint(4, (rows,), generator=chance)}


def formula(loss: USKD, signals: dict[str, Tensor], alpha: float, beta: float, mu: float) -> float:
    state = {name: x.double().numpy() for name, x in loss.state_dict().items()}
    student, label = signals["student"].double().numpy(), signals["label"].numpy()
    weak = signals["middle"].double().numpy().mean((2, 3)) @ state["weak.weight"].T + state["weak.bias"]
    trust = np.array([oracle.softmax(row)[y] ** 2 for row, y in zip(student, label, strict=True)])
    total = []
    for i, y in enumerate(label):
        p, w, log_p = oracle.softmax(student[i]), oracle.softmax(weak[i]), oracle.log_softmax(student[i])
        of_label = -(1 + trust[i] - trust.mean()) * log_p[y]
        score = w / (1 - w[y] + 1e-6) + p / (1 - p[y] + 1e-6)
        law = {c: 1 / (1 + sum(score > score[c])) for c in range(4) if c != y}
        others = oracle.log_softmax(np.delete(student[i], y))
        of_others = -sum(z / sum(law.values()) * others[k] for k, z in enumerate(law.values()))
        smoothed = 0.9 * np.eye(4)[y] + 0.1 / 4
        total.append(alpha * of_label + beta * of_others - mu * smoothed @ oracle.log_softmax(weak[i]))
    return float(np.mean(total))


def built(signals: dict[str, Tensor], **weights: float) -> USKD:
    loss = USKD(4, **weights)
    loss(**signals)
    return loss


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("weights", [(0.1, 0.1, 0.1), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_the_value_is_the_formulas(seed: int, weights: tuple[float, float, float]) -> None:
    signals = draw(seed=seed)
    loss = built(signals, **dict(zip(("alpha", "beta", "mu"), weights, strict=True)))
    assert loss(**signals).item() == pytest.approx(formula(loss, signals, *weights), rel=1e-6)


def test_targets_are_detached_and_the_middle_learns_from_its_own_part_alone() -> None:
    signals = draw()
    student, middle = (signals[name].requires_grad_() for name in ("student", "middle"))
    for weights, reached in (({"mu": 0.0}, student), ({"alpha": 0.0, "beta": 0.0}, middle)):
        gradients = torch.autograd.grad(built(draw(), **weights)(**signals), (student, middle), allow_unused=True)
        for x, gradient in zip((student, middle), gradients, strict=True):
            assert (gradient is not None and bool(gradient.any())) == (x is reached)


def test_equal_trust_leaves_the_cross_entropy() -> None:
    signals = draw() | {"student": torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 5).double(), "label": torch.zeros(5).long()}
    loss = built(signals, alpha=1.0, beta=0.0, mu=0.0)(**signals)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(signals["student"], signals["label"]))


def test_half_precision() -> None:
    signals = {name: x.bfloat16() if x.is_floating_point() else x for name, x in draw().items()}
    loss = built(signals)
    found = loss(**signals)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(formula(loss, signals, 0.1, 0.1, 0.1), rel=1e-4)


def test_bad_arguments_and_shapes_are_said() -> None:
    with pytest.raises(TutelageError, match=r"USKD\.num_classes"):
        USKD(1)
    with pytest.raises(TutelageError, match=r"USKD\.mu"):
        USKD(4, mu=-1)
    with pytest.raises(TutelageError, match=r"middle feature \[B, D, H, W\] or \[B, D\]; found \[5, 2, 3\]"):
        USKD(4)(**draw() | {"middle": torch.zeros(5, 2, 3)})
