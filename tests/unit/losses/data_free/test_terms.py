"""The terms of generators and their students, against plain sums."""

import math

import pytest
import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.data_free.batch_norm import BatchNormStatistics
from tutelage.losses.data_free.competition import Competition
from tutelage.losses.data_free.dafl import Activation, ClassBalance, OneHot
from tutelage.losses.data_free.distances import AgreedKL, ElementKL, LogitL1


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def shares(row: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(z / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def one_hot(logits: Tensor) -> float:
    return -sum(math.log(max(shares(row))) for row in logits.tolist()) / len(logits)


def balance(logits: Tensor) -> float:
    mean = [sum(column) / len(logits) for column in zip(*map(shares, logits.tolist()), strict=True)]
    return sum(p * math.log10(p) for p in mean)


def activation(feature: Tensor) -> float:
    return -sum(map(abs, feature.flatten().tolist())) / feature.numel()


def l1(student: Tensor, teacher: Tensor) -> float:
    pairs = zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True)
    return sum(abs(s - t) for s, t in pairs) / student.numel()


def element_kl(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> float:
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        pairs = zip(shares(t, temperature), shares(s, temperature), strict=True)
        total += sum(q * math.log(q / p) for q, p in pairs)
    return total / student.numel()


def agreed_kl(student: Tensor, teacher: Tensor) -> float:
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        if s.index(max(s)) == t.index(max(t)):
            total += sum(q * math.log(q / p) for q, p in zip(shares(t), shares(s), strict=True))
    return total / len(student)


def competition(student: Tensor, teacher: Tensor) -> float:
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = shares(s, 3.0), shares(t, 3.0)
        mixed = [min(max((a + b) / 2, 0.01), 0.99) for a, b in zip(p, q, strict=True)]
        for side in (p, q):
            total += sum(m * math.log(m / min(max(a, 0.01), 0.99)) for m, a in zip(mixed, side, strict=True)) / 2
    return 1 - min(max(total / len(student), 0.0), 1.0)


PEAKS = 9 * torch.eye(4, dtype=torch.float64)[[0, 0, 1, 2, 3]]  # of which the first three rows agree

CASES = [
    (Competition(), competition, (draw(5, 4), draw(5, 4, seed=1))),
    (OneHot(), one_hot, (draw(5, 4),)),
    (ClassBalance(), balance, (draw(5, 4),)),
    (Activation(), activation, (draw(5, 3, 2, 2),)),
    (LogitL1(), l1, (draw(5, 4), draw(5, 4, seed=1))),
    (
        AgreedKL(),
        agreed_kl,
        (draw(5, 4) + PEAKS, draw(5, 4, seed=1) + PEAKS.roll(1, 0) * (torch.arange(5) > 2)[:, None]),
    ),
    (ElementKL(3.0), element_kl, (draw(5, 4), draw(5, 4, seed=1))),
]


@pytest.mark.parametrize(("loss", "oracle", "given"), CASES, ids=[type(case[0]).__name__ for case in CASES])
def test_equals_plain_sums_with_their_gradient_and_in_half_precision(loss, oracle, given):
    expected = oracle(*given)
    assert loss.double()(*given).item() == pytest.approx(expected, rel=1e-9)
    free = [x.clone().requires_grad_() for x in given]
    assert torch.autograd.gradcheck(loss, free)
    half = [x.bfloat16().requires_grad_() for x in given]
    found = loss.float()(*half)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected, rel=2e-2)
    found.backward()
    assert all(x.grad is not None and x.grad.dtype == torch.bfloat16 and bool(x.grad.isfinite().all()) for x in half)


def test_the_least_of_the_balance_is_that_of_equally_frequent_classes():
    """Base 10: five times it is 2.17 times the entropy in nats, as the authors' code has it."""
    assert ClassBalance()(torch.eye(10) * 1e4).item() == pytest.approx(-1.0)
    assert ClassBalance(math.e)(torch.eye(10) * 1e4).item() == pytest.approx(-math.log(10))
    assert ClassBalance()(torch.tensor([[1e4, 0.0], [1e4, 0.0]])).item() == pytest.approx(0.0)
    with pytest.raises(TutelageError, match=r"ClassBalance.base must be above 1; found 1"):
        ClassBalance(1)


def test_the_divergence_is_that_of_torch_with_its_default_reduction():
    student, teacher = draw(6, 10), draw(6, 10, seed=1)
    theirs = nn.KLDivLoss(reduction="none")(student.log_softmax(1), teacher.softmax(1)).mean()
    assert ElementKL().double()(student, teacher).item() == pytest.approx(theirs.item())
    assert ElementKL().double()(student, student).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("loss", [OneHot(), ClassBalance()])
def test_logits_of_pixels_are_refused(loss):
    with pytest.raises(TutelageError, match=r"expected non-empty logits \[B, C\]"):
        loss(torch.zeros(2, 3, 4, 4))


def statistics(features: list[Tensor], means: list[Tensor], variances: list[Tensor]) -> float:
    total = 0.0
    for layer, (feature, mean, variance) in enumerate(zip(features, means, variances, strict=True)):
        squares = [0.0, 0.0]
        for c in range(feature.shape[1]):
            values = feature[:, c].flatten().tolist()
            found = sum(values) / len(values)
            spread = sum((value - found) ** 2 for value in values) / len(values)
            squares[0] += (found - mean[c].item()) ** 2
            squares[1] += (spread - variance[c].item()) ** 2
        total += (1 if layer else 10) * sum(math.sqrt(one) for one in squares)
    return total


LAYERS = [draw(4, 3, 2, 2), draw(4, 5, seed=1)], [draw(3, seed=2), draw(5, seed=3)], [draw(3, seed=4), draw(5, seed=5)]


def test_statistics_equal_plain_sums_with_their_gradient_and_in_half_precision():
    loss, expected = BatchNormStatistics(first=10.0), statistics(*LAYERS)
    assert loss.double()(*LAYERS).item() == pytest.approx(expected, rel=1e-9)
    features, means, variances = LAYERS
    free = [x.clone().requires_grad_() for x in features]
    assert torch.autograd.gradcheck(lambda *given: loss(given, means, variances), free)
    half = [x.bfloat16().requires_grad_() for x in features]
    found = loss.float()(half, means, variances)
    assert found.item() == pytest.approx(expected, rel=2e-2)
    found.backward()
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in half)


def test_statistics_that_are_met_cost_nothing_and_have_a_gradient_of_zero():
    feature = draw(6, 3, 4, 4).requires_grad_()
    values = feature.detach().transpose(0, 1).flatten(1)
    loss = BatchNormStatistics().double()([feature], [values.mean(1)], [values.var(1, correction=0)])
    loss.backward()
    assert loss.item() == 0
    assert bool((feature.grad == 0).all())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (([], [], []), "at least one; found 0 layers, 0 means and 0 variances"),
        ((LAYERS[0], LAYERS[1][:1], LAYERS[2]), "found 2 layers, 1 means and 2 variances"),
        ((LAYERS[0][:1], LAYERS[1][1:], LAYERS[2][:1]), r"\[4, 3, 2, 2\] needs a mean .*; found \[5\] and \[3\]"),
    ],
)
def test_statistics_of_other_layers_are_refused(given, said):
    with pytest.raises(TutelageError, match=said):
        BatchNormStatistics()(*given)


def test_only_images_with_the_same_answer_count_as_divergence():
    student, teacher = torch.eye(4) * 3, torch.eye(4) * 5
    alone = AgreedKL()(student[:1], teacher[:1])
    assert AgreedKL()(student, teacher.roll(1, 0)).item() == 0
    assert AgreedKL()(student[:2], torch.stack([teacher[0], teacher[2]])).item() == pytest.approx(alone.item() / 2)
    assert AgreedKL()(student, student).item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_the_competition_by_hand(scale):
    """At the larger scale all three distributions have probabilities beyond both bounds."""
    student, teacher = scale * draw(5, 4), scale * (draw(5, 4) + 2 * torch.eye(5, 4).double())
    p, q = ((z / 3).softmax(1).tolist() for z in (student, teacher))

    def bounded(x):
        return min(max(x, 0.01), 0.99)

    total = 0.0
    for one, other in zip(p, q, strict=True):
        for a, b in zip(one, other, strict=True):
            mixed = bounded((a + b) / 2)
            total += mixed * (2 * math.log(mixed) - math.log(bounded(a)) - math.log(bounded(b))) / 2
    assert 0 < total / 5 < 1
    assert Competition().double()(student, teacher).item() == pytest.approx(1 - total / 5, rel=1e-9)


def test_the_competition_is_one_at_agreement_and_cut_off_at_zero():
    sure, other = torch.tensor([[40.0, 0, 0, 0]]), torch.tensor([[0.0, 40, 0, 0]])
    assert Competition()(sure, sure).item() == pytest.approx(1.0)
    assert Competition()(sure, other).item() == 0  # ½ KL(M‖P) + ½ KL(M‖Q) is 1.6 there, where no divergence of JS is
