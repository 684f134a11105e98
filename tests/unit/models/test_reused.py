"""The student that answers with its teacher's classifier."""

import pytest
import torch
from tests.unit.losses import oracles_feature as oracle
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.reused import projector, reused
from tutelage.models.tapped import Tapped
from tutelage.sources.frozen import Frozen
from tutelage.sources.live import Live


def net(channels: int, side: int, classes: int = 5) -> Tapped:
    """A map of ``channels`` × ``side`` × ``side``, its mean, a classifier."""
    layers = nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1), nn.AdaptiveAvgPool2d(side), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes),
    )  # fmt: skip
    return Tapped(layers, {"map": "2", "embedding": "4", "classifier": "5"})


PAIRS = {
    "equal": (4, 4, "map"),
    "student's larger": (8, 4, "map"),
    "student's smaller": (2, 4, "map"),
    "vectors": (4, 4, "embedding"),
}
pairs = pytest.mark.parametrize(("own", "theirs", "tap"), PAIRS.values(), ids=PAIRS)


@pairs
def test_the_logits_are_projector_mean_and_the_teacher_s_classifier(own: int, theirs: int, tap: str) -> None:
    student, teacher, x = net(6, own), net(8, theirs), torch.randn(4, 3, 8, 8)
    made = reused(student, net(8, theirs), tap, (3, 8, 8))
    Live(made).attach({"projected"}, {"teacher": Frozen(teacher)})
    plain = Tapped(student.net, student.taps)
    plain.register_taps([tap])
    feature = plain(x)[tap].detach().double().numpy()
    at_teacher_size = (
        feature if tap == "embedding" else oracle.match(feature, torch.zeros(4, 8, theirs, theirs).numpy())[0]
    )
    state = {k: v.double().numpy() for k, v in made.net.state_dict().items() if isinstance(v, torch.Tensor)}
    projected = oracle.simkd_projected(state, at_teacher_size)
    mean = projected if tap == "embedding" else projected.mean((2, 3))
    classifier = teacher.net[5]
    expected = mean @ classifier.weight.detach().double().numpy().T + classifier.bias.detach().double().numpy()
    made.train()
    signals = made(x)
    torch.testing.assert_close(signals["logits"].double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(signals["projected"].double(), torch.from_numpy(projected), rtol=1e-4, atol=1e-5)


def test_the_projector_is_the_published_bottleneck() -> None:
    made = projector(torch.zeros(1, 3, 4, 4), 8, reduction=4)
    assert [tuple(m.weight.shape) for m in made if isinstance(m, nn.Conv2d)] == [
        (2, 3, 1, 1),
        (2, 2, 3, 3),
        (8, 2, 1, 1),
    ]
    assert [type(m).__name__ for m in made] == ["Conv2d", "BatchNorm2d", "ReLU"] * 3


def test_what_the_feature_does_not_need_is_left_out_or_does_not_learn() -> None:
    made = reused(net(6, 4), net(8, 4), "map", (3, 8, 8))
    assert isinstance(made.net.backbone[5], nn.Identity)
    assert {name.split(".")[0] for name, p in made.net.named_parameters() if p.requires_grad} == {
        "backbone",
        "projector",
    }
    made(torch.randn(2, 3, 8, 8))["logits"].sum().backward()
    assert all(p.grad is not None for p in made.parameters() if p.requires_grad)


def test_the_student_s_taps_are_there_beside_its_own() -> None:
    made = reused(net(6, 4), net(8, 4), "map", (3, 8, 8))
    made.register_taps({"map", "embedding", "projected", "classifier.weight"})
    signals = made(torch.randn(2, 3, 8, 8))
    assert {name: list(x.shape) for name, x in signals.items()} == {
        "logits": [2, 5], "map": [2, 6, 4, 4], "embedding": [2, 6],
        "projected": [2, 8, 4, 4], "classifier.weight": [5, 8],
    }  # fmt: skip


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TutelageError, match=r"no tap 'mpa' \(loss.tap\) in the student Sequential; did you mean 'map'"):
        reused(net(6, 4), net(8, 4), "mpa", (3, 8, 8))
    wide = net(8, 4)
    wide.net[5] = nn.Linear(9, 5)
    wide.net[4] = nn.Sequential(nn.Flatten(), nn.Linear(8, 9))
    with pytest.raises(TutelageError, match=r"classifier, of weight \[5, 9\], does not read its tap 'map'"):
        reused(net(6, 4), wide, "map", (3, 8, 8))
    for path in ("2.input", "2[0]"):
        cut = Tapped(net(6, 4).net, {"map": path, "classifier": "5"})
        with pytest.raises(TutelageError, match=r"tap 'map' of Sequential is '2.*'; expected the whole"):
            reused(cut, net(8, 4), "map", (3, 8, 8))
        with pytest.raises(TutelageError, match=r"tap 'classifier' of Sequential is '5\.input'; expected the whole"):
            reused(net(6, 4), Tapped(net(8, 4).net, {"map": "2", "classifier": "5.input"}), "map", (3, 8, 8))
    with pytest.raises(TutelageError, match="reduction must be at least 1; found 0"):
        reused(net(6, 4), net(8, 4), "map", (3, 8, 8), reduction=0)
    with pytest.raises(TutelageError, match="needs sources=frozen"):
        Live(reused(net(6, 4), net(8, 4), "map", (3, 8, 8))).attach(set(), {})
