"""A generalist and its specialists as one teacher, against a minimiser that knows nothing of EM."""

import logging

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.sources import specialists
from tutelage.sources.frozen import Frozen
from tutelage.sources.specialists import TOLERANCE, Specialists, activity, combine_experts, membership

OVERLAPPING, DISJOINT = [[0, 1, 2], [2, 3], [0, 4, 5]], [[0, 1], [2, 3], [4]]
CLASSES = 7


def drawn(rows: int = 5, scale: float = 1.5, seed: int = 0, specialists: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    generalist = scale * torch.randn(rows, CLASSES, generator=g, dtype=torch.float64)
    return generalist, generalist + scale * torch.randn(specialists, rows, CLASSES, generator=g, dtype=torch.float64)


def grouped(p: np.ndarray, group: list[int]) -> np.ndarray:
    return np.array([*p[group], p[[c for c in range(len(p)) if c not in group]].sum()])


def divergences(q: np.ndarray, p: np.ndarray, special: list[np.ndarray], groups: list[list[int]]) -> float:
    """KL(p‖q) + Σ KL(p_m‖q_m) of one example."""
    total = (p * np.log(p / q)).sum()
    for one, group in zip(special, groups, strict=True):
        ours, theirs = grouped(one, group), grouped(q, group)
        total += (ours * np.log(ours / theirs)).sum()
    return float(total)


def soft(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


@pytest.mark.parametrize("groups", [OVERLAPPING, DISJOINT])
@pytest.mark.parametrize("top", [1, 2, CLASSES])
def test_it_is_the_minimum_that_a_direct_search_finds(groups: list[list[int]], top: int) -> None:
    generalist, special = drawn()
    found, gap = combine_experts(generalist, special, membership(groups, CLASSES), top)
    assert gap.max() <= TOLERANCE
    torch.testing.assert_close(found.exp().sum(1), torch.ones(5).double())
    for row in range(5):
        p = soft(generalist[row].numpy())
        likely = set(np.argsort(-p)[:top].tolist())
        active = [m for m, group in enumerate(groups) if likely & set(group)]
        said, whose = [soft(special[m, row].numpy()) for m in active], [groups[m] for m in active]
        best = minimize(lambda z, a=(p, said, whose): divergences(soft(z), *a), np.zeros(CLASSES), tol=1e-12)
        q = found[row].exp().numpy()
        assert divergences(q, p, said, whose) == pytest.approx(best.fun, abs=2e-6)
        np.testing.assert_allclose(q, soft(best.x), atol=2e-3)


def test_one_specialist_has_a_closed_form() -> None:
    """Its classes get the mean; the others keep their proportions and share the mean of what is left."""
    generalist, special = drawn(50, scale=6.0, specialists=1)
    group, others = [0, 3], [1, 2, 4, 5, 6]
    found, gap = combine_experts(generalist, special, membership([group], CLASSES), CLASSES)
    p, own = generalist.softmax(1), special[0].softmax(1)
    expected = (p + own) / 2
    left = expected[:, others].sum(1, keepdim=True)
    expected[:, others] = left * p[:, others] / p[:, others].sum(1, keepdim=True)
    torch.testing.assert_close(found, expected.log(), rtol=1e-9, atol=1e-9)
    assert gap.max() < 1e-9


def test_a_class_that_is_rare_for_all_gets_its_mean_though_the_sum_hardly_changes() -> None:
    """The generalist's distribution is within tolerance of the minimum already, but not its logit of that class."""
    p, own = torch.full((2, 1, CLASSES), 1 / 6, dtype=torch.float64)
    p[0, 3], own[0, 3] = 1e-8, 1e-14
    found, gap = combine_experts(p.log(), own.log()[None], membership([[0, 3]], CLASSES), CLASSES)
    assert gap.max() < TOLERANCE
    assert found[0, 3].exp().item() == pytest.approx((p[0, 3] + own[0, 3]).item() / 2 / p.sum().item(), rel=1e-5)


def test_who_has_nothing_to_say_is_not_heard() -> None:
    generalist, special = drawn(200)
    inside = membership([[0, 1], [2]], CLASSES)
    active = activity(generalist, inside, 1)
    first = generalist.argmax(1)
    assert torch.equal(active, torch.stack([(first == 0) | (first == 1), first == 2], 1))
    found, _ = combine_experts(generalist, special[:2], inside, 1)
    silent = ~active.any(1)
    assert 0 < silent.sum() < 200
    assert torch.equal(found[silent], generalist[silent].log_softmax(1))
    assert (found - generalist.log_softmax(1))[~silent].abs().amax(1).min() > 1e-3


def test_specialists_that_are_the_generalist_change_nothing() -> None:
    generalist, _ = drawn(20, scale=8.0)
    for groups in (OVERLAPPING, DISJOINT):
        found, gap = combine_experts(generalist, generalist.expand(3, -1, -1), membership(groups, CLASSES), CLASSES)
        torch.testing.assert_close(found, generalist.log_softmax(1), rtol=1e-9, atol=1e-9)
        assert gap.max() < 1e-9


def test_a_row_does_not_depend_on_its_batch() -> None:
    generalist, special = drawn(40, scale=3.0)
    inside = membership(OVERLAPPING, CLASSES)
    whole, _ = combine_experts(generalist, special, inside, 3)
    alone = torch.cat([combine_experts(generalist[i : i + 1], special[:, i : i + 1], inside, 3)[0] for i in range(40)])
    torch.testing.assert_close(whole, alone, rtol=1e-12, atol=1e-12)


def test_certain_networks_give_finite_logits() -> None:
    generalist = torch.tensor([[2000.0, 0, 0, 0, 0, 0, 0], [0, 0, 0, -torch.inf, -torch.inf, -torch.inf, -torch.inf]])
    special = torch.tensor([[[0, 2000.0, 0, 0, 0, 0, 0]], [[0, 0, 0, 0, 0, 0, 2000.0]]]).expand(2, 2, CLASSES)
    found, _ = combine_experts(generalist, special, membership([[0, 1], [2, 0]], CLASSES), 3)
    assert found.float().isfinite().all()
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2).double())


# -- the source -------------------------------------------------------------------------------------------------------


def frozen(seed: int) -> Frozen:
    torch.manual_seed(seed)
    return Frozen(Tapped(nn.Sequential(nn.Flatten(), nn.Linear(4, CLASSES)), {"embedding": "0"}))


def test_the_source_says_what_its_networks_say_together() -> None:
    members, batch = [frozen(seed) for seed in range(4)], {"input": 5 * torch.randn(6, 1, 2, 2)}
    source = Specialists(members[0], members[1:], OVERLAPPING, top=2)
    source.attach({"logits"}, {})
    said = [member(batch)["logits"] for member in members]
    expected, _ = combine_experts(said[0], torch.stack(said[1:]), membership(OVERLAPPING, CLASSES), 2)
    found = source(batch)["logits"]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected.float())
    assert not list(source.parameters())
    assert not source.state_dict()
    source.verify()
    with torch.no_grad():
        members[2].net.net[1].weight.add_(1)
    with pytest.raises(TutelageError, match="frozen teacher has changed"):
        source.verify()


def test_before_its_specialists_are_trained_it_is_its_generalist() -> None:
    generalist, batch = frozen(0), {"input": torch.randn(3, 1, 2, 2)}
    for groups in (None, DISJOINT):
        source = Specialists(generalist, groups=groups)
        assert torch.equal(source(batch)["logits"], generalist(batch)["logits"])


def test_contradictions_that_take_too_long_are_said(caplog: pytest.LogCaptureFixture) -> None:
    generalist, special = drawn(300, scale=12.0)
    _, gap = combine_experts(generalist, special, membership(OVERLAPPING, CLASSES), CLASSES)
    assert TOLERANCE < gap.max() < 0.1
    assert (gap > TOLERANCE).double().mean() < 0.2
    source = Specialists(frozen(0), [frozen(1)], [[0, 1]])
    with caplog.at_level(logging.WARNING):
        source.verify()
        source.worst = TOLERANCE
        source.verify()
        assert not caplog.text
        source.worst = float(gap.max())
        source.verify()
    assert f"up to {float(gap.max()):.1e} nats above its minimum" in caplog.text


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_it_takes_so_many_steps_and_bounds_what_is_left_after_the_last(monkeypatch, steps: int) -> None:
    monkeypatch.setattr(specialists, "_STEPS", steps)
    generalist, special = drawn(1, scale=3.0)
    given, said = soft(generalist[0].numpy()), [soft(one[0].numpy()) for one in special]

    def averaged(q: np.ndarray) -> np.ndarray:
        whole = given.copy()
        for p, group in zip(said, OVERLAPPING, strict=True):
            dustbin = [c for c in range(CLASSES) if c not in group]
            whole[group] += p[group]
            whole[dustbin] += p[dustbin].sum() * q[dustbin] / q[dustbin].sum()
        return whole / (1 + len(said))

    q = given
    for _ in range(steps):
        q = averaged(q)
    found, gap = combine_experts(generalist, special, membership(OVERLAPPING, CLASSES), CLASSES)
    np.testing.assert_allclose(found[0].exp().numpy(), q, rtol=1e-12)
    assert float(gap) == pytest.approx(((averaged(q) / q).max() - 1) * (1 + len(said)), rel=1e-9)
    assert float(gap) > TOLERANCE


@pytest.mark.parametrize("group", [[], [0, 0], [7], [-1], ["a"], [True], list(range(7))])
def test_what_is_no_group_is_refused(group: list[int]) -> None:
    with pytest.raises(TutelageError, match=r"distinct classes of 0 to 6, some but not all; found \["):
        membership([[0, 1], group], CLASSES)


def test_what_makes_no_specialists_is_refused() -> None:
    with pytest.raises(TutelageError, match="1 specialists need 1 groups; found None"):
        Specialists(frozen(0), [frozen(1)])
    for value in (0, 1.5, True):
        with pytest.raises(TutelageError, match=f"top must be a whole number of at least 1; found {value}"):
            Specialists(frozen(0), top=value)
    batch = {"input": torch.randn(3, 1, 2, 2)}
    for groups in ([], [1, 2], [[0, 9]]):
        with pytest.raises(TutelageError, match=r"specialists: .*found \["):
            Specialists(frozen(0), groups=groups)(batch)
    with pytest.raises(TutelageError, match=r"logits only; the objective also reads \['embedding'\]"):
        Specialists(frozen(0)).attach({"logits", "embedding"}, {})
