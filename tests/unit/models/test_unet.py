"""The U-Net: a class for each pixel, classes last, with the taps that losses over maps read."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate

from tutelage.config.paths import conf_dir
from tutelage.errors import TutelageError
from tutelage.models.unet import UNet


def images(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_the_yaml_tells_its_size_and_its_taps_are_maps(compose):
    tapped = instantiate(compose("data=mnist_segmentation").student)
    comment = (Path(conf_dir()) / "model" / "unet.yaml").read_text().splitlines()[0]
    [told] = re.findall(r"\(([\d,]+) parameters at 1×32×32, 11 classes\)", comment)
    assert sum(p.numel() for p in tapped.net.parameters()) == int(told.replace(",", ""))
    tapped.register_taps(tapped.taps)
    signals = tapped({"input": images(2, 1, 32, 32)})
    sides = {name: tuple(signals[name].shape[1:]) for name in tapped.taps}
    assert sides == {
        "stage1": (16, 32, 32), "stage2": (32, 16, 16), "stage3": (64, 8, 8), "decoder2": (32, 16, 16),
        "decoder1": (16, 32, 32), "classifier": (11, 32, 32),
    }  # fmt: skip
    assert torch.equal(signals["logits"], signals["classifier"].movedim(1, -1))
    assert set(tapped.maps) <= set(tapped.taps)


@pytest.mark.parametrize(("shape", "widths"), [((3, 16, 24), (4, 8)), ((1, 8, 8), (2, 3, 4, 5)), ((2, 5, 7), (4,))])
def test_every_parameter_learns_at_other_sizes(shape, widths):
    net = UNet(shape, 5, widths)
    logits = net(images(2, *shape))
    assert logits.shape == (2, *shape[1:], 5)
    F.cross_entropy(logits.flatten(0, 2), torch.zeros(logits.shape[:3].numel(), dtype=torch.long)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_pixel_sees_its_surroundings_through_the_deepest_stage():
    torch.manual_seed(0)
    net = UNet([1, 32, 32], 2, (4, 8, 16)).eval()
    x = images(1, 1, 32, 32).requires_grad_()
    net(x)[0, 16, 16, 0].backward()
    reached = (x.grad[0, 0] != 0).nonzero()
    assert int(reached.amin()) < 10
    assert int(reached.amax()) > 21


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([1, 30, 32], 3), r"3 stages needs sides that 4 divides; found \[30, 32\]"),
        (([1, 32, 32], 0), "num_classes must be positive"),
        (([1, 32, 32], 3, [4, 0]), "widths must be positive"),
        (([1, 32, 32], 3, []), "stages must be positive"),
        (([10], 3), "input_shape must be"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(TutelageError, match=said):
        UNet(*arguments)
