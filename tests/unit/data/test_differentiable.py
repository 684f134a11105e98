"""The differentiable augmentation: each operation against NumPy, its gradients, and what it depends on."""

import numpy as np
import pytest
import torch

from tutelage import seeding
from tutelage.data.augment import Augment, Step
from tutelage.data.differentiable import Differentiable
from tutelage.errors import TutelageError

NAMES = ("color", "crop", "cutout", "flip", "scale", "rotate")


def images(count=4, channels=3, height=8, width=6):
    return torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(0)).double()


def chance(*numbers):
    return torch.tensor([[0.0, *numbers, 0.0, 0.0, 0.0][:4]])


def read_at(image, places):
    """Bilinear, zero outside: ``places(x, y)`` says where in [−1, 1]² the pixel at (x, y) is read."""
    _, height, width = image.shape
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            x, y = places((2 * column + 1) / width - 1, (2 * row + 1) / height - 1)
            across, down = ((x + 1) * width - 1) / 2, ((y + 1) * height - 1) / 2
            for i in (int(np.floor(down)), int(np.floor(down)) + 1):
                for j in (int(np.floor(across)), int(np.floor(across)) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        out[:, row, column] += image[:, i, j] * (1 - abs(down - i)) * (1 - abs(across - j))
    return out


def test_color_is_brightness_then_saturation_then_contrast():
    [x] = images(1).numpy()
    [found] = Differentiable(["color"])(images(1), chance(0.75, 0.125, 0.25)).numpy()
    x = x + 0.25
    x = 0.25 * (x - x.mean(0)) + x.mean(0)
    np.testing.assert_allclose(found, 0.75 * (x - x.mean()) + x.mean(), rtol=1e-10)


@pytest.mark.parametrize(("u", "v", "down", "right"), [(0.0, 0.0, -1, -1), (0.5, 0.999, 0, 1), (0.999, 0.4, 1, 0)])
def test_a_crop_reads_an_eighth_beside(u, v, down, right):
    [x], (height, width) = images(1).numpy(), (8, 6)
    [found] = Differentiable(["crop"])(images(1), chance(u, v)).numpy()
    for row in range(height):
        for column in range(width):
            inside = 0 <= row + down < height and 0 <= column + right < width
            expected = x[:, row + down, column + right] if inside else 0
            np.testing.assert_array_equal(found[:, row, column], expected)


@pytest.mark.parametrize(("u", "v"), [(0.0, 0.0), (0.5, 0.3), (0.999, 0.999)])
def test_a_cutout_is_a_box_of_half_the_sides(u, v):
    [x] = images(1).numpy()
    [found] = Differentiable(["cutout"])(images(1), chance(u, v)).numpy()
    expected = x.copy()
    top, left = int(u * 9) - 2, int(v * 6) - 1  # sizes 4 and 3, centres 0 to 8 and 0 to 5
    expected[:, max(top, 0) : top + 4, max(left, 0) : left + 3] = 0
    np.testing.assert_array_equal(found, expected)


def test_a_flip_has_probability_one_half():
    x = images(1)
    assert torch.equal(Differentiable(["flip"])(x, chance(0.49)), x.flip(-1))
    assert torch.equal(Differentiable(["flip"])(x, chance(0.5)), x)


def test_scale_and_rotation_read_bilinearly():
    [x] = images(1).numpy()
    [found] = Differentiable(["scale"])(images(1), chance(0.1, 0.9)).numpy()
    across, down = (u * (1.2 - 1 / 1.2) + 1 / 1.2 for u in np.float32([0.1, 0.9]))
    np.testing.assert_allclose(found, read_at(x, lambda a, b: (across * a, down * b)), atol=1e-6)
    [found] = Differentiable(["rotate"])(images(1), chance(0.9)).numpy()
    t = 0.8 * np.pi / 12
    turned = read_at(x, lambda a, b: (np.cos(t) * a - np.sin(t) * b, np.sin(t) * a + np.cos(t) * b))
    np.testing.assert_allclose(found, turned, atol=1e-6)
    untouched = (Differentiable(["rotate"]), chance(0.5)), (Differentiable(["scale"]), chance(*[1 / 2.2] * 2))
    for augment, drawn in untouched:
        torch.testing.assert_close(augment(images(1), drawn), images(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_its_gradient_is_that_of_finite_differences(name):
    augment, drawn = Differentiable([name]), torch.rand(2, 4, generator=torch.Generator().manual_seed(3))
    assert torch.autograd.gradcheck(lambda x: augment(x, drawn), images(2, 2, 4, 4).requires_grad_())


def test_equal_numbers_do_the_same_and_a_row_depends_on_its_own():
    augment, keys = Differentiable(), torch.tensor([7, 2, 7, 900])
    drawn = seeding.uniform(1, keys, augment.draws)
    whole = augment(images(4), drawn)
    for i in range(4):
        torch.testing.assert_close(augment(images(4)[i : i + 1], drawn[i : i + 1])[0], whole[i])
    twins = augment(images(1).repeat(4, 1, 1, 1), drawn)
    assert torch.equal(twins[0], twins[2])
    assert not torch.equal(twins[0], twins[1])


def test_each_operation_is_as_likely_as_another():
    augment, drawn = Differentiable(["flip", "cutout"]), seeding.uniform(0, torch.arange(4000), 4)
    ones = torch.arange(24.0).reshape(1, 1, 4, 6).add(1).expand(4000, 1, 4, 6)
    cut = (augment(ones, drawn) == 0).flatten(1).any(1).float().mean().item()
    assert cut == pytest.approx(0.5, abs=0.03)


def test_it_is_a_step_of_data_augment_on_pixels():
    augment = Differentiable(mean=[0.2, 0.4, 0.1], std=[0.5, 0.3, 0.2])
    assert isinstance(augment, Step)
    pixels, drawn = images(6).sigmoid().float(), seeding.uniform(2, torch.arange(6), 4)
    mean, std = torch.tensor([0.2, 0.4, 0.1])[:, None, None], torch.tensor([0.5, 0.3, 0.2])[:, None, None]
    expected = Differentiable()((pixels - mean) / std, drawn) * std + mean
    torch.testing.assert_close(augment(pixels, drawn), expected)
    assert Augment([augment], seed=0)(pixels, torch.arange(6), view=3).shape == pixels.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_it_keeps_the_type(dtype):
    drawn = seeding.uniform(2, torch.arange(4), 4)
    assert Differentiable()(images().to(dtype), drawn).dtype == dtype


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strategy": ["crop", "twist"]}, "expected some of color, crop, cutout, flip, scale, rotate; found 'twist'"),
        ({"strategy": []}, "found none"),
        ({"mean": [0.5]}, "mean and std belong together"),
    ],
)
def test_what_does_not_fit_is_one_sentence(options, said):
    with pytest.raises(TutelageError, match=said):
        Differentiable(**options)
