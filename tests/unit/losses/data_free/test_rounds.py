"""Terms that remember earlier rounds, and the contrast of images, against plain sums."""

import copy
import math

import pytest
import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.data_free.batch_norm import BatchNormStatistics, SmoothedStatistics
from tutelage.losses.data_free.contrast import InstanceContrast
from tutelage.losses.schedules import after


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def views(seed: int = 0, count: int = 3) -> tuple[list[Tensor], list[Tensor]]:
    """Two layers of 2 and 3 channels, of parts and of wholes."""
    part = [draw(count, 2, 4, 4, seed=seed), draw(count, 3, 2, 2, seed=seed + 1)]
    return part, [draw(count, 2, 4, 4, seed=seed + 2), draw(count, 3, 2, 2, seed=seed + 3)]


def means(view: list[Tensor]) -> list[list[float]]:
    return [[x for layer in view for x in layer[i].flatten(1).mean(1).tolist()] for i in range(len(view[0]))]


def projected(rows: list[list[float]], loss: InstanceContrast) -> list[list[float]]:
    (w1, b1), (w2, b2) = ((loss.head[i].weight.tolist(), loss.head[i].bias.tolist()) for i in (0, 2))
    found = []
    for row in rows:
        hidden = [max(0.0, sum(w * x for w, x in zip(ws, row, strict=True)) + b) for ws, b in zip(w1, b1, strict=True)]
        out = [sum(w * x for w, x in zip(ws, hidden, strict=True)) + b for ws, b in zip(w2, b2, strict=True)]
        length = math.sqrt(sum(x * x for x in out))
        found.append([x / length for x in out])
    return found


def contrast(part: list[list[float]], whole: list[list[float]], count: int, loss: InstanceContrast, t: float) -> float:
    u, v = projected(part, loss), projected(whole, loss)
    each = []
    for i, row in enumerate(u):
        powers = [math.exp(sum(a * b for a, b in zip(row, other, strict=True)) / t) for other in v]
        each.append(-math.log(powers[i] / sum(powers)))
    own, kept = each[:count], each[count:]
    return sum(own) / len(own) + (sum(kept) / len(kept) if kept else 0.0)


def test_the_contrast_equals_plain_sums_with_and_without_a_bank():
    loss = InstanceContrast(dim=4, temperature=0.2, size=5, negatives=9).double()
    first = views()
    found = loss(*first)
    assert found.item() == pytest.approx(contrast(*map(means, first), 3, loss, 0.2), rel=1e-6)  # 0.2 in float32
    loss.on_best()
    loss.on_round_end()
    second = views(seed=10)
    (part, whole), (part2, whole2) = (tuple(map(means, one)) for one in (first, second))
    expected = contrast(part2 + part, whole2 + whole, 3, loss, 0.2)  # sums don't depend on the bank's order
    assert loss(*second).item() == pytest.approx(expected, rel=1e-6)


def test_wholes_have_no_gradient_and_parts_and_head_have():
    torch.manual_seed(0)
    loss = InstanceContrast(dim=4, size=8, negatives=8).double()
    part, whole = ([x.requires_grad_() for x in view] for view in views())
    loss(part, whole).backward()
    assert all(x.grad is None for x in whole)
    assert all(bool(x.grad.abs().sum() > 0) for x in part)
    assert all(bool(p.grad.isfinite().all()) for p in loss.parameters())
    whole = [x.detach() for x in whole]
    assert torch.autograd.gradcheck(lambda *given: loss([*given], whole), part)


def test_the_contrast_in_half_precision():
    loss = InstanceContrast(dim=4, size=8, negatives=8).double()
    loss(*views())
    given = [[x.bfloat16().requires_grad_() for x in view] for view in views()]
    exact = copy.deepcopy(loss)(*[[x.detach().double() for x in view] for view in given]).item()
    found = loss.float()(*given)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact, rel=1e-3)
    found.backward()
    assert all(x.grad.dtype == torch.bfloat16 and bool(x.grad.isfinite().all()) for x in given[0])


def test_equal_images_cannot_be_told_apart():
    """log of the number of rows, the greatest that the mean of equal ones is."""
    part = [torch.ones(6, 2, 3, 3)]
    assert InstanceContrast(dim=4)(part, part).item() == pytest.approx(math.log(6))


def test_a_bank_keeps_the_best_of_each_round_and_the_newest_of_all():
    loss = InstanceContrast(dim=4, size=5, negatives=2).double()
    rounds = [views(seed=10 * i) for i in range(3)]
    for number, best in enumerate(rounds):
        loss(*best)
        loss.on_best()
        loss(*views(seed=99))  # a later step, which is worse
        loss.on_round_end()
        assert len(loss.bank) == min(5, 3 * (number + 1))
    expected = [a + b for one in rounds for a, b in zip(*map(means, one), strict=True)][-5:]
    assert torch.allclose(loss.bank, torch.tensor(expected, dtype=torch.float64))
    torch.manual_seed(3)
    value = loss(*views(seed=50)).item()
    other = InstanceContrast(dim=4, size=5, negatives=2).double()
    other(*rounds[0])  # which draws its weights
    other.load_state_dict(loss.state_dict())
    torch.manual_seed(3)
    assert other(*views(seed=50)).item() == value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (([], []), "expected both views' layers, at least one"),
        ((views()[0], views()[1][:1]), "expected both views' layers"),
        ((views()[0], views(count=2)[1]), "expected both views' layers"),
    ],
)
def test_views_that_do_not_match_are_refused(given, said):
    with pytest.raises(TutelageError, match=said):
        InstanceContrast()(*given)


@pytest.mark.parametrize("name", ["dim", "size", "negatives"])
def test_a_number_of_the_contrast_is_checked(name):
    with pytest.raises(TutelageError, match=rf"InstanceContrast.{name} must be a whole number of at least 1; found 0"):
        InstanceContrast(**{name: 0})


def moments(feature: Tensor) -> tuple[list[float], list[float]]:
    found = []
    for c in range(feature.shape[1]):
        values = feature[:, c].flatten().tolist()
        mean = sum(values) / len(values)
        found.append((mean, sum((x - mean) ** 2 for x in values) / len(values)))
    return [mean for mean, _ in found], [spread for _, spread in found]


def test_statistics_are_averaged_with_those_of_earlier_rounds():
    """The first round alone, then with r = 0.75 of the averages; each round's last step counts."""
    loss = SmoothedStatistics(momentum=0.75).double()
    mean, variance = draw(3, seed=7), draw(3, seed=8).abs()
    earlier: tuple[list[float], list[float]] | None = None
    for number in range(3):
        for seed in (number, 50 + number):
            feature = draw(4, 3, 2, 2, seed=seed)
            own = moments(feature)
            if earlier is not None:
                own = tuple(
                    [0.75 * a + 0.25 * b for a, b in zip(*pair, strict=True)] for pair in zip(earlier, own, strict=True)
                )
            expected = sum(math.dist(a, b.tolist()) for a, b in zip(own, (mean, variance), strict=True))
            assert loss([feature], [mean], [variance]).item() == pytest.approx(expected, rel=1e-9)
        earlier = own
        loss.on_round_end()
    feature = feature.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss([x], [mean], [variance]), feature)
    other = SmoothedStatistics(momentum=0.75).double()
    other.load_state_dict(loss.state_dict())
    assert other([feature], [mean], [variance]).item() == loss([feature], [mean], [variance]).item()


def test_without_momentum_only_the_images_count():
    given = [draw(4, 3, 2, 2)], [draw(3, seed=1)], [draw(3, seed=2)]
    loss = SmoothedStatistics(momentum=0, first=10.0).double()
    loss([draw(4, 3, 2, 2, seed=9)], *given[1:])
    loss.on_round_end()
    assert loss(*given).item() == pytest.approx(BatchNormStatistics(first=10.0).double()(*given).item())
    with pytest.raises(TutelageError, match=r"SmoothedStatistics.momentum must be from 0 to below 1; found 1"):
        SmoothedStatistics(1)


def test_a_term_may_begin_with_an_epoch_counted_from_one():
    assert [after(epoch, 9, 3) for epoch in range(5)] == [0, 0, 1, 1, 1]
