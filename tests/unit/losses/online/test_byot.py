"""BYOT: exits learn the logits and the feature of the last one, by both published distances."""

import math

import pytest
import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.online.byot import BYOT


def signals() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    generator = torch.Generator().manual_seed(0)
    return draw(5, 4), draw(5, 6), draw(5, 2, 4), draw(5, 2, 6)


def softened(row: list[float]) -> list[float]:
    powers = [math.exp(z / 3) for z in row]
    return [p / sum(powers) for p in powers]


def oracle(distance: str, hints: int) -> float:
    student, embedding, exits, features = (x.tolist() for x in signals())
    soft = hint = 0.0
    for i in range(2):
        squares = 0.0
        for b in range(5):
            p, q = softened(exits[b][i]), softened(student[b])
            soft += 9 * sum(t * math.log(t / s) for s, t in zip(p, q, strict=True)) / 5
            for own, last in zip(features[b][i], embedding[b], strict=True):
                squares += (own - last) ** 2 * (distance == "norm" or own > 0 or last > 0)
        if i < hints:
            hint += math.sqrt(squares) if distance == "norm" else squares / 5
    return 0.3 * soft + 0.02 * hint


@pytest.mark.parametrize("distance", ["masked", "norm"])
@pytest.mark.parametrize("hints", [None, -1])
def test_equals_plain_sums(distance: str, hints: int | None):
    loss = BYOT(0.3, 0.02, 3.0, distance, hints)
    expected = oracle(distance, 2 if hints is None else 1)
    assert loss(*signals()).item() == pytest.approx(expected, rel=1e-6)
    found = loss(*(x.bfloat16() for x in signals()))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("distance", ["masked", "norm"])
def test_the_gradient_is_right_and_does_not_reach_the_last_exit(distance: str):
    student, embedding, exits, features = (x.requires_grad_() for x in signals())
    loss = BYOT(0.3, 0.5, 3.0, distance).double()
    last = student.detach(), embedding.detach()
    assert torch.autograd.gradcheck(lambda e, f: loss(*last, e, f), (exits, features))
    loss(student, embedding, exits, features).backward()
    assert student.grad is None
    assert embedding.grad is None


def test_exits_equal_to_the_last_have_nothing_to_learn():
    student, embedding, _, _ = signals()
    value = BYOT()(student, embedding, student[:, None], embedding[:, None])
    assert value.item() == pytest.approx(0, abs=1e-15)


def test_bad_input_is_refused_with_a_sentence():
    student, embedding, exits, features = signals()
    with pytest.raises(TutelageError, match=r"BYOT: expected exits \[B, K, C\] and features \[B, K, D\]"):
        BYOT()(student, embedding, exits, features[:, :1])
    with pytest.raises(TutelageError, match=r"BYOT\.distance: found 'l2'"):
        BYOT(distance="l2")
    with pytest.raises(TutelageError, match=r"BYOT\.soft"):
        BYOT(soft=-1.0)


def test_what_is_inactive_in_both_features_does_not_count():
    """Both at or below 0: neither a 0 of one's own nor one of the last exit's is active."""
    own, last = torch.tensor([[[0.0, -1.0, 0.5, -2.0]]]), torch.tensor([[-3.0, 0.0, 0.0, 1.0]])
    loss = BYOT(soft=0.0, feature=1.0)
    assert loss(torch.zeros(1, 3), last, torch.zeros(1, 1, 3), own).item() == 0.5**2 + 3.0**2
