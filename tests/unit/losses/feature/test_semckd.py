import numpy as np
import pytest
import torch
from tests.unit.losses import oracles_feature as oracle
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.feature.semckd import SemCKD


def draw(rows: int = 6, seed: int = 0) -> dict[str, list[Tensor]]:
    chance = torch.Generator().manual_seed(seed)
    shapes = {"student": [(2, 5, 4), (3, 2, 3)], "teacher": [(3, 4, 4), (4, 3, 2)]}
    return {name: [torch.randn(rows, *shape, generator=chance, dtype=torch.float64) for shape in several]
            for name, several in shapes.items()}  # fmt: skip


def built(signals: dict[str, list[Tensor]], batch: int = 6) -> SemCKD:
    torch.manual_seed(0)
    loss = SemCKD(batch)
    with torch.no_grad():
        loss(**signals)
    return loss


def mlp(state: oracle.State, name: str, x: np.ndarray) -> np.ndarray:
    hidden = oracle.relu(x @ state[f"{name}.0.weight"].T + state[f"{name}.0.bias"])
    found = hidden @ state[f"{name}.2.weight"].T + state[f"{name}.2.bias"]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def formula(loss: SemCKD, signals: dict[str, list[Tensor]]) -> float:
    state = {name: x.double().numpy() for name, x in loss.state_dict().items()}
    ours, theirs = ([x.double().numpy() for x in signals[name]] for name in ("student", "teacher"))

    def similar(x: np.ndarray) -> np.ndarray:
        flat = x.reshape(len(x), -1)
        return np.pad(flat @ flat.T, ((0, 0), (0, loss.batch - len(x))))

    total, rows = 0.0, len(ours[0])
    for i, s in enumerate(ours):
        query = mlp(state, f"queries.{i}", similar(s))
        energy = np.stack([(query * mlp(state, f"keys.{j}", similar(t))).sum(1) for j, t in enumerate(theirs)], 1)
        attention = np.exp(energy) / np.exp(energy).sum(1, keepdims=True)
        for j, t in enumerate(theirs):
            x, target = oracle.match(s, t)
            name = f"regressors.{i}-{j}"
            for layer, norm in ((0, 1), (3, 4)):
                x = oracle.relu(oracle.batch_norm(oracle.conv(x, state, f"{name}.{layer}"), state, f"{name}.{norm}"))
            apart = ((oracle.conv(x, state, f"{name}.6") - target) ** 2).mean((1, 2, 3))
            total += float((attention[:, j] * apart).sum())
    return total / (rows * len(ours))


@pytest.mark.parametrize("batch", [6, 9])
def test_the_value_is_the_formulas_also_in_a_smaller_batch(batch: int) -> None:
    signals = draw()
    loss = built(signals, batch)
    assert loss(**signals).item() == pytest.approx(formula(loss, signals), rel=1e-6)


def test_a_single_stage_has_all_the_attention() -> None:
    signals = {name: stages[1:] for name, stages in draw().items()}
    loss = built(signals, 6)
    assert loss(**signals).item() == pytest.approx(formula(loss, signals), rel=1e-6)


def test_gradients_are_the_finite_differences() -> None:
    signals = draw(rows=3)
    loss = built(signals, 4).double()
    free = [x.requires_grad_() for x in signals["student"]]
    assert torch.autograd.gradcheck(lambda *s: loss(student=list(s), teacher=signals["teacher"]), free, fast_mode=True)


def test_an_optimizer_made_before_the_first_call_trains_the_attention() -> None:
    loss = SemCKD(16)  # of a smaller batch the attention's vectors have a single number, 1 or −1
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    loss(**draw()).backward()
    before = [x.detach().clone() for x in loss.parameters()]
    optimizer.step()
    assert sum(not torch.equal(a, b) for a, b in zip(before, loss.parameters(), strict=True)) == len(before)


def test_a_larger_batch_and_other_numbers_of_stages_are_refused() -> None:
    with pytest.raises(TutelageError, match="batch=4 is below the 6 examples"):
        SemCKD(4)(**draw())
    with pytest.raises(TutelageError, match="same number of stages"):
        SemCKD(6)(student=draw()["student"], teacher=draw()["teacher"][:1])
    with pytest.raises(TutelageError, match=r"SemCKD\.batch"):
        SemCKD(1)
