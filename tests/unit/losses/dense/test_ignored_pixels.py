"""Losses of a segmentation, as their yamls bind them: pixels without a label teach nothing."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

from tutelage.config import factory
from tutelage.losses.dense.pairwise import PairWise
from tutelage.losses.masks import of_map
from tutelage.types import NO_LABEL, Signals

IGNORED = (slice(None), slice(0, 4), slice(2, 8))  # whole positions of a map of half the size, too


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [8, 4])  # of the last map; pixels are 8 × 8
@pytest.mark.parametrize("name", ["pixelwise", "cwd", "pairwise"])
def test_a_pixel_without_a_label_changes_no_value_and_gets_no_gradient(
    compose: Callable[..., DictConfig], name: str, size: int
) -> None:
    cfg = compose("data=mnist_segmentation", f"loss=segmentation/{name}", *(["loss.pool=0.25"] * (name == "pairwise")))
    objective = factory.objective(factory.stage_config(cfg, "student"))
    label = torch.arange(2 * 64).view(2, 8, 8) % 11
    label[IGNORED] = NO_LABEL

    def signals(spoil: float) -> dict[str, Signals]:
        found = {}
        for seed, whose in enumerate(("student", "teacher")):
            logits, last = draw(2, 8, 8, 11, seed=seed), draw(2, 3, size, size, seed=seed + 2)
            logits[IGNORED] += spoil * draw(2, 4, 6, 11, seed=seed + 4)
            part = size // 2, slice(size // 4, size)
            last[:, :, : part[0], part[1]] += spoil * draw(2, 3, size, size, seed=seed + 6)[:, :, : part[0], part[1]]
            found[whose] = {"logits": logits.requires_grad_(), "decoder1": last.requires_grad_()}
        return {**found, "batch": {"label": label}}

    plain, spoilt = signals(0), signals(100)
    value, other = objective(plain)[0], objective(spoilt)[0]
    assert other.item() == pytest.approx(value.item(), rel=1e-6)
    value.backward()
    gradients = [x.grad for x in plain["student"].values() if x.grad is not None]
    assert gradients
    assert not gradients[0][IGNORED].any()
    assert gradients[0][label >= 0].any()
    if name == "pairwise":
        last = gradients[1]
        assert not last[:, :, : size // 2, size // 4 :].any()
        assert last[:, :, : size // 2, : size // 4].any()
        assert last[:, :, size // 2 :].any()
    assert all(x.grad is None for x in plain["teacher"].values())


def test_a_position_of_a_map_is_valid_if_a_pixel_in_it_is() -> None:
    pixels = torch.zeros(1, 4, 6, dtype=torch.bool)
    pixels[0, 1, 5] = True
    assert of_map(pixels, torch.Size([2, 2])).tolist() == [[[False, True], [False, False]]]
    assert of_map(pixels, torch.Size([2, 3])).tolist() == [[[False, False, True], [False, False, False]]]
    assert of_map(pixels, torch.Size([4, 6])) is pixels
    assert of_map(pixels, torch.Size([3, 3])) is pixels  # refused by the loss
    student, teacher = draw(1, 3, 2, 3, seed=0), draw(1, 3, 2, 3, seed=1)
    pixels[0, 2:, :2] = True
    small = of_map(pixels, torch.Size([2, 3]))
    assert PairWise(0.0)(student, teacher, pixels) == PairWise(0.0)(student, teacher, small) > 0
