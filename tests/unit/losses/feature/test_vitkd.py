import numpy as np
import pytest
import torch
from tests.unit.losses import oracles_feature as oracle
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.feature.vitkd import ViTKD


def draw(tokens: int = 9, widths: tuple[int, int] = (3, 5), seed: int = 0) -> dict[str, list[Tensor]]:
    chance = torch.Generator().manual_seed(seed)
    return {name: [torch.randn(4, tokens, dim, generator=chance, dtype=torch.float64) for _ in range(3)]
            for name, dim in zip(("student", "teacher"), widths, strict=True)}  # fmt: skip


def built(signals: dict[str, list[Tensor]], **more: float) -> ViTKD:
    torch.manual_seed(0)
    loss = ViTKD(**more)
    with torch.no_grad():
        loss(**signals)
    return loss


def formula(loss: ViTKD, signals: dict[str, list[Tensor]], low: float, high: float, ratio: float, seed: int) -> float:
    """Draws the mask as documented: of the uniform numbers of each example's tokens the smallest stay."""
    state = {name: x.double().numpy() for name, x in loss.state_dict().items()}
    ours, theirs = ([x.double().numpy()[:, -9:] for x in signals[name]] for name in ("student", "teacher"))

    def align(name: str, x: np.ndarray) -> np.ndarray:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"] if f"{name}.weight" in state else x

    near = sum(((align(f"mimic.{i}", ours[i]) - theirs[i]) ** 2).sum() for i in range(2))
    torch.manual_seed(seed)
    chance = torch.rand(4, 9).numpy()
    x, hidden = align("deep.align", ours[2]), np.zeros((4, 9), bool)
    for b in range(4):
        hidden[b, np.argsort(chance[b])[int(9 * (1 - ratio)) :]] = True
    x = np.where(hidden[..., None], state["deep.token.value"], x)
    maps = x.transpose(0, 2, 1).reshape(4, -1, 3, 3)
    made = oracle.conv(oracle.relu(oracle.conv(maps, state, "deep.generate.0")), state, "deep.generate.2")
    made = made.reshape(4, -1, 9).transpose(0, 2, 1)
    generated = (((made - theirs[2]) * hidden[..., None]) ** 2).sum()
    return float(low * near / 4 + high * generated / 4 / ratio)


@pytest.mark.parametrize("widths", [(3, 5), (4, 4)])
@pytest.mark.parametrize("tokens", [9, 10])
@pytest.mark.parametrize("ratio", [0.5, 0.25])
def test_the_value_is_the_formulas_with_and_without_a_class_token(widths, tokens, ratio) -> None:
    signals = draw(tokens, widths)
    loss = built(signals, low=0.3, high=0.7, ratio=ratio)
    with torch.no_grad():
        loss.deep["token"].value.normal_()
    torch.manual_seed(5)
    assert loss(**signals).item() == pytest.approx(formula(loss, signals, 0.3, 0.7, ratio, 5), rel=1e-6)


def test_gradients_are_the_finite_differences() -> None:
    signals = draw()
    loss = built(signals, low=1.0, high=1.0)

    def value(*student: Tensor) -> Tensor:
        torch.manual_seed(1)
        return loss(student=list(student), teacher=signals["teacher"])

    assert torch.autograd.gradcheck(value, [x.requires_grad_() for x in signals["student"]], fast_mode=True)


def test_half_precision() -> None:
    signals = {name: [x.bfloat16() for x in several] for name, several in draw().items()}
    loss = built(signals, low=1.0, high=1.0)
    torch.manual_seed(2)
    found = loss(**signals)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(formula(loss, signals, 1.0, 1.0, 0.5, 2), rel=1e-4)


def test_bad_arguments_and_shapes_are_said() -> None:
    with pytest.raises(TutelageError, match="a ratio in"):
        ViTKD(ratio=1.0)
    with pytest.raises(TutelageError, match=r"n² tokens, or one more; found \[4, 8, 3\]"):
        ViTKD()(**draw(8))
    with pytest.raises(TutelageError, match="shallow layers and a deep one; found 1"):
        ViTKD()(**{name: several[:1] for name, several in draw().items()})
