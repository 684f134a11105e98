import numpy as np
import pytest
import torch
from tests.unit.losses.properties import check_gradients, check_half_precision, check_padding, value
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.dense.cwd import CWD
from tutelage.losses.logit.soft_target import SoftTarget


def draw(*shape: int, teacher: tuple[int, ...] = ()) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = {"student": shape, "teacher": teacher or shape}
    return {name: 2 * torch.randn(*one, generator=g, dtype=torch.float64) for name, one in shapes.items()}


def mask() -> Tensor:
    found = torch.ones(2, 4, 5, dtype=torch.bool)
    found[0, 2:], found[1, :, 4] = False, False
    return found


def oracle(student: Tensor, teacher: Tensor, temperature: float, mask: Tensor | None = None) -> float:
    """Channel by channel of maps [B, C, H, W]."""
    found = []
    for b in range(len(student)):
        kept = slice(None) if mask is None else mask[b].flatten().numpy()
        for c in range(student.shape[1]):
            q, p = (np.exp(one[b, c].flatten().numpy()[kept] / temperature) for one in (teacher, student))
            q, p = q / q.sum(), p / p.sum()
            found.append((q * np.log(q / p)).sum())
    return temperature**2 * float(np.mean(found))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_value_is_the_formulas(temperature: float) -> None:
    signals = draw(2, 3, 4, 5)
    assert value(CWD(temperature), signals) == pytest.approx(oracle(**signals, temperature=temperature))
    assert value(CWD(temperature), signals | {"mask": mask()}) == pytest.approx(
        oracle(**signals, temperature=temperature, mask=mask())
    )


def test_a_channel_s_kl_as_published() -> None:
    """torch's, summed, over the numbers of examples and channels, times T²: what the authors' code computes."""
    signals = draw(2, 3, 4, 5)
    p, q = ((x.flatten(2) / 4).log_softmax(2) for x in signals.values())
    expected = torch.nn.functional.kl_div(p, q, reduction="sum", log_target=True) / (2 * 3) * 16
    assert value(CWD(4.0), signals) == pytest.approx(expected.item(), rel=1e-12)


def test_channels_may_be_last_as_those_of_logits_are() -> None:
    signals = draw(2, 3, 4, 5)
    last = {name: x.movedim(1, -1) for name, x in signals.items()}
    assert value(CWD(channels_last=True), last) == value(CWD(), signals)
    assert value(CWD(channels_last=True), last | {"mask": mask()}) == value(CWD(), signals | {"mask": mask()})


def test_tokens_are_places_of_their_channels() -> None:
    signals = draw(2, 3, 4, 5)
    tokens = {name: x.flatten(2).transpose(1, 2) for name, x in signals.items()}
    assert value(CWD(), tokens) == pytest.approx(value(CWD(), signals), rel=1e-12)
    assert value(CWD(), tokens | {"mask": mask().flatten(1)}) == pytest.approx(
        value(CWD(), signals | {"mask": mask()}), rel=1e-12
    )


def test_it_is_the_soft_target_of_places() -> None:
    signals = draw(2, 3, 4, 5)
    rows = {name: x.flatten(2).flatten(0, 1) for name, x in signals.items()}
    assert value(CWD(4.0), signals) == pytest.approx(value(SoftTarget(4.0).double(), rows), rel=1e-12)


@pytest.mark.parametrize("channels", [3, 5])
def test_gradients_are_the_finite_differences(channels: int) -> None:
    signals = draw(2, 3, 2, 3, teacher=(2, channels, 2, 3))
    loss = CWD()
    value(loss, signals)  # builds the projection
    assert bool(list(loss.parameters())) == (channels == 5)
    check_gradients(loss, signals, ("student",))
    check_gradients(loss, signals | {"mask": mask()[:, :2, 2:]}, ("student",))


def test_widths_that_differ_are_projected_and_the_projection_learns() -> None:
    loss = CWD()
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    signals = draw(2, 3, 4, 5, teacher=(2, 6, 4, 5))
    first = loss(**signals)
    first.backward()
    optimizer.step()
    assert loss(**signals) < first
    projected = {"student": loss.projection(signals["student"]).detach(), "teacher": signals["teacher"]}
    assert value(loss, signals) == pytest.approx(oracle(**projected, temperature=4.0))


def test_sizes_that_differ_are_pooled() -> None:
    signals = draw(2, 3, 8, 6, teacher=(2, 3, 4, 3))
    pooled = signals | {"student": torch.nn.functional.avg_pool2d(signals["student"], 2)}
    assert value(CWD(), signals) == value(CWD(), pooled)


def test_agreement_and_a_constant_of_a_channel_cost_nothing() -> None:
    student = draw(2, 3, 4, 5)["student"].requires_grad_()
    loss = CWD()(student, student.detach() + 5 * torch.randn(2, 3, 1, 1, dtype=torch.float64))
    assert loss.item() == pytest.approx(0, abs=1e-14)
    assert torch.autograd.grad(loss, student)[0].abs().max() < 1e-14


@pytest.mark.parametrize("channels", [3, 5])
def test_places_that_do_not_count_change_nothing(channels: int) -> None:
    signals = draw(2, 3, 4, 5, teacher=(2, channels, 4, 5)) | {"mask": mask()}
    signals = {name: x if name == "mask" else x.movedim(1, -1) for name, x in signals.items()}
    loss = CWD(channels_last=True)
    value(loss, signals)
    check_padding(loss, signals, {"student": "mask", "teacher": "mask"})


def test_an_example_without_a_place_adds_0() -> None:
    signals, places = draw(2, 3, 4, 5), mask()
    places[0] = False
    second = {name: x[1:] for name, x in signals.items()} | {"mask": places[1:]}
    assert value(CWD(), signals | {"mask": places}) == pytest.approx(value(CWD(), second) / 2, rel=1e-12)
    assert value(CWD(), signals | {"mask": torch.zeros(2, 4, 5, dtype=torch.bool)}) == 0


def test_half_precision() -> None:
    check_half_precision(CWD(4.0), draw(2, 3, 8, 8), "student")


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TutelageError, match=r"CWD takes maps .* or tokens .*; found student \[2, 3\]"):
        CWD()(**draw(2, 3))
    with pytest.raises(TutelageError, match=r"equal sizes; found student \[4, 5\], teacher \[2, 5\]"):
        CWD()(**draw(2, 3, 4, 5, teacher=(2, 3, 2, 5)), mask=mask())
    with pytest.raises(TutelageError, match=r"mask of bools \[2, 4, 5\].*; found torch.float32 \[2, 4, 5\]"):
        CWD()(**draw(2, 3, 4, 5), mask=mask().float())
    with pytest.raises(TutelageError, match=r"CWD.temperature"):
        CWD(0.0)
