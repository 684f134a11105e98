"""Several teachers that speak as one."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.sources.ensemble import Ensemble, combined, learned_weights, scaled
from tutelage.sources.frozen import Frozen


def members(count: int = 3) -> list[Frozen]:
    return [Frozen(Tapped(nn.Sequential(nn.Flatten(), nn.Linear(4, 5)), {"embedding": "0"})) for _ in range(count)]


def batch(rows: int = 6) -> dict[str, torch.Tensor]:
    return {"input": torch.randn(rows, 1, 2, 2)}


def by_hand(teachers: list[Frozen], x: torch.Tensor, shares: list[float], combine: str) -> np.ndarray:
    """The distribution, in float64."""
    found = []
    for teacher in teachers:
        layer = teacher.net.net[1]
        z = x.flatten(1).double().numpy() @ layer.weight.double().numpy().T + layer.bias.double().numpy()
        found.append(z)
    soft = [np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in found]
    if combine == "probability":
        return sum(w * p for w, p in zip(shares, soft, strict=True))
    mixed = np.exp(sum(w * z for w, z in zip(shares, found, strict=True)))
    return mixed / mixed.sum(1, keepdims=True)


@pytest.mark.parametrize("combine", ["probability", "logit"])
@pytest.mark.parametrize("weights", [None, [2.0, 1.0, 1.0], [0.0, 0.0, 3.0]])
def test_it_is_the_mean_by_hand(combine: str, weights: list[float] | None) -> None:
    teachers, given = members(), batch()
    source = Ensemble(teachers, combine, weights)
    source.attach({"logits"}, {})
    shares = [1 / 3] * 3 if weights is None else [w / sum(weights) for w in weights]
    found = source(given)["logits"].double().softmax(1).numpy()
    np.testing.assert_allclose(found, by_hand(teachers, given["input"], shares, combine), rtol=1e-5)
    source.verify()


def test_one_member_is_itself() -> None:
    [teacher], given = members(1), batch()
    for combine in ("probability", "logit"):
        found = Ensemble([teacher], combine)(given)["logits"]
        torch.testing.assert_close(found.log_softmax(1), teacher(given)["logits"].log_softmax(1))


def test_nothing_of_it_learns_and_a_changed_member_is_found_out() -> None:
    teachers = members()
    source = Ensemble(teachers)
    assert not list(source.parameters())
    assert not source.state_dict()
    with torch.no_grad():
        teachers[1].net.net[1].weight.add_(1)
    with pytest.raises(TutelageError, match="frozen teacher has changed"):
        source.verify()


def test_learned_weights_are_the_best_on_the_data_given() -> None:
    """Against a grid over the simplex of three members, of which one is right more often."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 4, (300,), generator=generator)
    logits = torch.randn(3, 300, 4, generator=generator)
    logits[0, torch.arange(300), label] += 1.5
    logits[1, torch.arange(300), label] += 1.0
    for combine in ("probability", "logit"):
        found = torch.tensor(learned_weights(logits, label, combine))
        assert found.sum().item() == pytest.approx(1)
        best = min(
            loss(logits, label, torch.tensor([a, b, 1 - a - b]).double(), combine)
            for a in np.linspace(0, 1, 41)
            for b in np.linspace(0, 1 - a, 41)
        )
        assert loss(logits, label, found.double(), combine) <= best + 1e-9


def loss(logits: torch.Tensor, label: torch.Tensor, weights: torch.Tensor, combine: str) -> float:
    return nn.functional.cross_entropy(combined(logits.double(), weights.clamp_min(0), combine), label).item()


def test_what_makes_no_ensemble_is_refused() -> None:
    with pytest.raises(TutelageError, match="needs members; found none"):
        Ensemble([])
    with pytest.raises(TutelageError, match=r"one of \['probability', 'logit'\]; found 'mean'"):
        Ensemble(members(), "mean")
    for weights in ([1.0, 1.0], [-1.0, 1.0, 1.0], [0.0] * 3, [math.nan, 1.0, 1.0]):
        with pytest.raises(TutelageError, match="an ensemble of 3 members needs 3 weights"):
            scaled(weights, 3)
    with pytest.raises(TutelageError, match=r"logits only; the objective also reads \['embedding'\]"):
        Ensemble(members()).attach({"logits", "embedding"}, {})
