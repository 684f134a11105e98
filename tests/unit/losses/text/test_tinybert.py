import math

import pytest
import torch
from tests.unit.losses import reference
from tests.unit.losses.properties import Signals, check_gradients, check_half_precision, check_padding, value
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.losses.text.tinybert import TinyBERTAttention, TinyBERTStates

KEYS = ("student_query", "student_key", "teacher_query", "teacher_key")


def attention(**others: Tensor) -> dict[str, Tensor]:
    return {name: reference.states()[name] for name in KEYS} | others


def states(**others: Tensor) -> dict[str, Tensor]:
    found = reference.states()
    return {"student": found["student_query"], "teacher": found["teacher_query"]} | others


def identity(loss: TinyBERTStates, width: int = 6) -> TinyBERTStates:
    """The loss with the identity for a projection."""
    with torch.no_grad():
        value(loss, states())
        for projection in loss.projections:
            projection.weight.copy_(torch.eye(width))
            projection.bias.zero_()
    return loss


def of_attention(heads: int, padding: bool, mask: Tensor, **signals: Tensor) -> float:
    """Head by head and pair by pair."""
    found = []
    for b in range(len(mask)):
        for head in range(heads):
            for i in range(mask.shape[1]):
                for j in range(mask.shape[1]):
                    scores = []
                    for whose in ("student", "teacher"):
                        query, key = (signals[f"{whose}_{x}"][b, at] for x, at in (("query", i), ("key", j)))
                        width = len(query) // heads
                        part = slice(head * width, (head + 1) * width)
                        scores.append(float(query[part] @ key[part]) / math.sqrt(width) if mask[b, j] else 0.0)
                    if padding or (mask[b, i] and mask[b, j]):
                        found.append((scores[0] - scores[1]) ** 2)
    return sum(found) / len(found)


def test_the_values_of_the_reference() -> None:
    signals = attention(mask=reference.MASK)
    assert value(TinyBERTAttention(2, padding=True), signals) == pytest.approx(2.8555497592, abs=1e-9)
    assert value(TinyBERTAttention(2), signals) == pytest.approx(3.0664869305, abs=1e-9)
    signals = states(mask=reference.MASK)
    assert value(identity(TinyBERTStates(padding=True)), signals) == pytest.approx(1.5520363640, abs=1e-9)
    assert value(identity(TinyBERTStates()), signals) == pytest.approx(1.4928919415, abs=1e-9)


def test_the_values_of_the_reference_on_logits() -> None:
    """Theirs is the cross-entropy with the teacher's probabilities: the divergence at T = 1 and their entropy."""
    student, teacher = (x[:, 0] for x in reference.logits())
    q = teacher.softmax(-1)
    entropy = -(q * q.log()).sum(-1).mean().item()
    found = value(SoftTarget(1.0), {"student": student, "teacher": teacher}) + entropy
    assert (found, found / 6) == (pytest.approx(2.9321249571, abs=1e-9), pytest.approx(0.4886874928, abs=1e-9))


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("padding", [False, True])
def test_the_value_of_scores_is_the_formulas(heads: int, padding: bool) -> None:
    signals = attention()
    for name in ("teacher_query", "teacher_key"):  # twice as wide
        signals[name] = torch.cat([signals[name], signals[name].sin()], 2)
    expected = of_attention(heads, padding, reference.MASK, **signals)
    found = value(TinyBERTAttention(heads, padding), signals | {"mask": reference.MASK})
    assert found == pytest.approx(expected, rel=1e-12)


def test_layers_add_up() -> None:
    one = attention(mask=reference.MASK)
    other = one | {"student_query": one["teacher_query"]}
    both: Signals = {name: [one[name], other[name]] for name in KEYS} | {"mask": reference.MASK}
    loss = TinyBERTAttention(2)
    assert value(loss, both) == pytest.approx(value(loss, one) + value(loss, other), rel=1e-12)
    shared, one = TinyBERTStates(), states(mask=reference.MASK)
    other = one | {"student": one["student"].cos()}
    both = {name: [one[name], other[name]] for name in ("student", "teacher")} | {"mask": reference.MASK}
    first = value(shared, one)
    assert value(shared, both) == pytest.approx(first + value(shared, other), rel=1e-12)


def test_gradients_are_the_finite_differences() -> None:
    for padding in (False, True):
        check_gradients(TinyBERTAttention(2, padding), attention(mask=reference.MASK), KEYS[:2])
        loss = TinyBERTStates(padding=padding)
        value(loss, states())
        check_gradients(loss, states(mask=reference.MASK), ("student",))


def test_what_padding_holds_changes_nothing() -> None:
    cut = reference.MASK.clone()
    cut[1, 3] = False
    valid = {name: x[:, :3] for name, x in attention().items()}
    check_padding(TinyBERTAttention(2), attention(mask=cut), dict.fromkeys(KEYS, "mask"), valid)
    loss = TinyBERTStates()
    value(loss, states())
    valid = {name: x[:, :3] for name, x in states().items()}
    check_padding(loss, states(mask=cut), {"student": "mask", "teacher": "mask"}, valid)


def test_with_padding_its_keys_are_0_and_its_queries_count() -> None:
    signals = attention(mask=reference.MASK)
    spoilt = signals | {"student_key": signals["student_key"].where(reference.MASK[..., None], math.nan)}
    assert value(TinyBERTAttention(2, padding=True), spoilt) == value(TinyBERTAttention(2, padding=True), signals)
    other = signals | {"student_query": signals["student_query"].where(reference.MASK[..., None], 3.0)}
    assert value(TinyBERTAttention(2, padding=True), other) != value(TinyBERTAttention(2, padding=True), signals)


def test_a_batch_without_a_token_costs_nothing() -> None:
    none = torch.zeros(2, 4, dtype=torch.bool)
    assert value(TinyBERTAttention(2), attention(mask=none)) == 0
    assert value(TinyBERTStates(), states(mask=none)) == 0


def test_one_projection_serves_all_layers_or_each_has_its_own() -> None:
    signals = {"student": [torch.randn(2, 4, 3) for _ in range(3)], "teacher": [torch.randn(2, 4, 5)] * 3}
    shared, own = TinyBERTStates(), TinyBERTStates(projection="layer", layers=3)
    for loss, parameters in ((shared, 2), (own, 6)):
        assert len(list(loss.parameters())) == parameters  # before the first call, too
        value(loss, signals)
        assert len(list(loss.parameters())) == parameters
    widths = {"student": [torch.randn(2, 4, 3), torch.randn(2, 4, 6)], "teacher": [torch.randn(2, 4, 5)] * 2}
    assert math.isfinite(value(TinyBERTStates(projection="layer"), widths))
    with pytest.raises(TutelageError, match=r"states of width 3; found \[2, 4, 6\]: use projection=layer"):
        TinyBERTStates()(**widths)


def test_the_projection_learns() -> None:
    torch.manual_seed(0)
    student = torch.randn(8, 5, 3)
    signals = {"student": student, "teacher": student @ torch.randn(3, 7) + 1}
    loss = TinyBERTStates()
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    first = value(loss, signals)
    for _ in range(300):
        optimizer.zero_grad()
        loss(**signals).backward()
        optimizer.step()
    assert value(loss, signals) < 1e-4 * first


def test_half_precision() -> None:
    check_half_precision(TinyBERTAttention(2), attention(mask=reference.MASK), "student_query")
    check_half_precision(identity(TinyBERTStates()), states(mask=reference.MASK), "student")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TutelageError, match=r"multiple of 4 heads; found student_query \[2, 4, 6\]"):
        TinyBERTAttention(4)(**attention())
    with pytest.raises(TutelageError, match=r"TinyBERTAttention.heads: expected an integer of 1 or more, found 0"):
        TinyBERTAttention(0)
    with pytest.raises(TutelageError, match="as many layers of all; found student_query 2, student_key 1"):
        TinyBERTAttention(2)(**attention() | {"student_query": [torch.ones(2, 4, 6)] * 2})
    with pytest.raises(TutelageError, match=r"mask of bools \[2, 4\].*; found torch.int64 \[2, 4\]"):
        TinyBERTStates()(**states(mask=reference.MASK.long()))
    with pytest.raises(TutelageError, match=r"same B and L; found student \[2, 4, 6\], teacher \[2, 3, 6\]"):
        TinyBERTStates()(torch.ones(2, 4, 6), torch.ones(2, 3, 6))
    with pytest.raises(TutelageError, match="projection: expected shared or layer, found 'both'"):
        TinyBERTStates(projection="both")
