"""Diffusion between features, once more in NumPy; random numbers are drawn as documented."""

import copy

import numpy as np
import pytest
import torch
from tests.unit.losses import oracles_feature as oracle
from torch import Tensor
from torch.func import functional_call

from tutelage.errors import TutelageError
from tutelage.losses.feature.diffkd import DiffKD

MAPS = {"student": (5, 3, 4, 3), "teacher": (5, 6, 2, 3)}
VECTORS = {"student": (5, 3), "teacher": (5, 6)}
every = pytest.mark.parametrize("shapes", [MAPS, VECTORS], ids=["maps", "vectors"])


def draw(shapes, seed: int = 0) -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=chance, dtype=torch.float64) for name, shape in shapes.items()}


def built(signals: dict[str, Tensor], **options) -> DiffKD:
    torch.manual_seed(1)
    loss = DiffKD(**options)
    with torch.no_grad():
        loss(**signals)
    return loss


def through(state: oracle.State, name: str, layers: str, x: np.ndarray) -> np.ndarray:
    """Layers of a Sequential by a letter each: convolution, normalisation, ReLU."""
    for place, kind in enumerate(layers):
        at = f"{name}.{place}"
        x = oracle.relu(x) if kind == "r" else (oracle.conv if kind == "c" else oracle.batch_norm)(x, state, at)
    return x


def bottleneck(state: oracle.State, name: str, x: np.ndarray) -> np.ndarray:
    return x + through(state, f"{name}.block", "cnrcnrcn", x)


def formula(loss: DiffKD, signals: dict[str, Tensor], seed: int, dtype=torch.float64) -> list[float]:
    state = {name: x.double().numpy() for name, x in loss.state_dict().items()}
    student, teacher = (signals[name].double().numpy() for name in ("student", "teacher"))
    maps = student.ndim == 4
    student, teacher = oracle.match(student, teacher) if maps else (x[..., None, None] for x in (student, teacher))
    hidden, rebuilt = teacher, 0.0
    if loss.channels != 0:
        hidden = through(state, "encoder", "cn", teacher)
        rebuilt = ((oracle.conv(hidden, state, "decoder") - teacher) ** 2).mean()
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))

    def noise_of(x: np.ndarray, time: np.ndarray) -> np.ndarray:
        x = x + state["times.weight"][time][:, :, None, None]
        if not maps:
            return through(state, "noise", "cnrcncnrc", x)
        x = bottleneck(state, "noise.1", bottleneck(state, "noise.0", x))
        return oracle.batch_norm(oracle.conv(x, state, "noise.2"), state, "noise.3")

    torch.manual_seed(seed)
    like = torch.empty(hidden.shape, dtype=dtype)
    first, second = (torch.randn_like(like).double().numpy() for _ in range(2))
    times = torch.randint(1000, (len(hidden),)).numpy()
    x = oracle.conv(student, state, "align")
    seen = bottleneck(state, "adapter.0", x) if maps else through(state, "adapter.0", "cnrcn", x)
    scores = seen.mean((2, 3)) @ state["adapter.3.weight"].T + state["adapter.3.bias"]
    share = (1 / (1 + np.exp(scores[:, 1] - scores[:, 0])))[:, None, None, None]
    x = share * x + (1 - share) * first
    stride = 500 // loss.steps
    for time in range(500 - stride, -1, -stride):
        now, after = kept[time], kept[time - stride] if time else 1.0
        noise = noise_of(x, np.full(1, time))
        clean = (x - np.sqrt(1 - now) * noise) / np.sqrt(now)
        x = np.sqrt(after) * clean + np.sqrt(1 - after) * noise
    apart = ((oracle.conv(x, state, "project") - hidden) ** 2).mean()
    share = kept[times][:, None, None, None]
    error = ((noise_of(np.sqrt(share) * hidden + np.sqrt(1 - share) * second, times) - second) ** 2).mean()
    return [apart, error, rebuilt]


@every
@pytest.mark.parametrize("options", [{}, {"channels": 0, "steps": 2}, {"channels": 4, "diffusion": 0.3}])
def test_the_value_is_the_formulas(shapes, options) -> None:
    signals = draw(shapes)
    loss = built(signals, **options)
    torch.manual_seed(7)
    apart, error, rebuilt = formula(loss, signals, 7)
    torch.manual_seed(7)
    expected = apart + options.get("diffusion", 1.0) * error + rebuilt
    assert loss(**signals).item() == pytest.approx(expected, rel=1e-6)


@every
def test_gradients_are_the_finite_differences(shapes) -> None:
    signals = draw({name: (3, *shape[1:]) for name, shape in shapes.items()})
    loss = built(signals, channels=2, steps=1)
    own = ("project", "decoder", "adapter.3")  # the encoder's end is detached
    names = [name for name, _ in loss.named_parameters() if name.startswith(own)]

    def value(student: Tensor, *learned: Tensor) -> Tensor:
        torch.manual_seed(0)
        return functional_call(loss, dict(zip(names, learned, strict=True)), kwargs=signals | {"student": student})

    free = [signals["student"], *(loss.get_parameter(name).detach() for name in names)]
    assert torch.autograd.gradcheck(value, [x.clone().requires_grad_() for x in free], fast_mode=True)


@every
def test_half_precision_is_computed_in_float32(shapes) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        signals = {name: x.to(dtype) for name, x in draw(shapes).items()}
        loss = built(signals)
        torch.manual_seed(3)
        found = loss(**signals)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(sum(formula(loss, signals, 3, torch.float32)), rel=1e-4)


def test_without_noise_to_remove_the_feature_is_only_scaled() -> None:
    signals = draw(MAPS)
    loss = built(signals)
    with torch.no_grad():
        loss.noise[3].weight.zero_()
        loss.noise[3].bias.zero_()
        loss.adapter[3].weight.zero_()
        loss.adapter[3].bias.copy_(torch.tensor([800.0, 0.0]))  # the adapter adds no noise
    feature = torch.randn(5, 3, 2, 3, dtype=torch.float64)
    assert torch.allclose(loss.denoised(feature), feature / loss.kept[400].sqrt())


def test_the_students_gradient_reaches_no_target_and_the_autoencoder_learns_from_the_teacher_alone() -> None:
    signals = draw(MAPS)
    loss = built(signals, diffusion=0.0, reconstruction=0.0)
    student = signals["student"].requires_grad_()
    loss(**signals).backward()
    assert student.grad.any()
    assert not loss.encoder[0].weight.grad.any()
    other = built(signals | {"student": student.detach()})
    other(**(signals | {"student": student.detach()})).backward()
    assert other.encoder[0].weight.grad.any()


def test_state_round_trips_and_an_optimizer_made_before_the_first_call_trains_it() -> None:
    signals = draw(MAPS)
    loss, other = DiffKD(), built(draw(MAPS, 9))
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    loss(**signals).backward()
    before = [x.detach().clone() for x in loss.parameters()]
    optimizer.step()
    assert sum(not torch.equal(a, b) for a, b in zip(before, loss.parameters(), strict=True)) > 20
    other.load_state_dict(copy.deepcopy(loss.state_dict()))
    values = []
    for one in (loss, other):
        torch.manual_seed(0)
        values.append(one(**signals))
    assert torch.equal(*values)


@pytest.mark.parametrize("options", [{"channels": -1}, {"steps": 0}, {"steps": 3}, {"diffusion": -1.0}])
def test_arguments_out_of_range(options) -> None:
    with pytest.raises(TutelageError, match=f"DiffKD.{next(iter(options))}"):
        DiffKD(**options)
