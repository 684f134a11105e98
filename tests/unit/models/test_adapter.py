import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutelage.checkpoints.weights import digest
from tutelage.errors import TutelageError
from tutelage.evaluation.cost import multiply_adds, parameters
from tutelage.models.adapter import Renormalise, Resize
from tutelage.models.tapped import Tapped
from tutelage.sources.frozen import Frozen

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5] * 3, [0.5] * 3)
PIXELS = torch.rand(4, 3, 8, 6, generator=torch.Generator().manual_seed(0))


def normalised(pixels, mean, std):
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
    return (pixels.double() - mean) / std


@pytest.mark.parametrize(("here", "there"), [(IMAGENET, HALF), (HALF, IMAGENET), (IMAGENET, IMAGENET)])
def test_renormalising_is_normalising_by_hand_to_rounding(here, there):
    adapter = Renormalise(*here, *there)
    expected = normalised(PIXELS, *there)
    x = normalised(PIXELS, *here).float()
    found = adapter(x)
    assert found.dtype == torch.float32
    # x and both constants are rounded once each, and so is the result: four half units of the largest summand.
    assert (found - expected).abs().max() <= 4 * 2**-24 * float((x.abs() * adapter.scale + adapter.shift.abs()).max())
    torch.testing.assert_close(adapter.double()(normalised(PIXELS, *here)), expected, rtol=1e-6, atol=1e-6)


def test_the_same_statistics_change_nothing():
    x = normalised(PIXELS, *IMAGENET).float()
    assert torch.equal(Renormalise(*IMAGENET, *IMAGENET)(x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest", "nearest-exact", "area"])
def test_resizing(mode, dtype):
    x = PIXELS.to(dtype)
    found = Resize([16, 3], mode)(x)
    assert found.shape == (4, 3, 16, 3)
    assert found.dtype == dtype
    assert torch.equal(Resize([8, 6], mode)(x), x)
    constant = torch.full_like(x, 0.75)
    torch.testing.assert_close(Resize(5, mode)(constant), torch.full((4, 3, 5, 5), 0.75, dtype=dtype))


def test_shrinking_is_antialiased():
    """A grid of single pixels becomes grey: without antialiasing half of it would be missed."""
    grid = torch.zeros(1, 1, 16, 16)
    grid[..., ::2, ::2] = 1
    for mode in ("bilinear", "area"):
        inner = Resize([4, 4], mode)(grid)[..., 1:-1, 1:-1]
        torch.testing.assert_close(inner, torch.full_like(inner, 0.25), rtol=0, atol=0.04)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Renormalise([0.5], [0.5, 0.5], [0.5], [0.5]), "expected one number per channel"),
        (lambda: Renormalise([], [], [], []), "expected one number per channel"),
        (lambda: Renormalise([0.5], [0.5], [0.5], [0.0]), "std and to_std must be above 0"),
        (lambda: Resize([4, 4, 4]), r"size must be \[height, width\] of at least 1; found \[4, 4, 4\]"),
        (lambda: Resize(0), "size must be"),
        (lambda: Resize(4, "bilinaer"), "unknown mode 'bilinaer'; did you mean 'bilinear'"),
        (lambda: Renormalise(*IMAGENET, *HALF)(PIXELS[:, :1]), r"statistics of 3 channels for images \[4, 1, 8, 6\]"),
        (lambda: Renormalise([0.5], [0.5], [0.0], [1.0])(PIXELS), r"of 1 channels for images \[4, 3, 8, 6\]"),
        (lambda: Tapped(nn.Flatten(), adapter=nn.Conv2d(3, 3, 1)), r"must have no state; found \['bias', 'weight'\]"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(make, said):
    with pytest.raises(TutelageError, match=said):
        make()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 5))


def adapter():
    return nn.Sequential(Resize([16, 16]), Renormalise(*IMAGENET, *HALF))


def by_hand(x):
    return net()(Renormalise(*IMAGENET, *HALF)(F.interpolate(x, (16, 16), mode="bilinear", antialias=True)))


def test_a_tapped_network_sees_what_its_adapter_gives():
    one = Tapped(net(), {"first": "0"}, adapter())
    one.register_taps(["first"])
    found = one(PIXELS)
    torch.testing.assert_close(found["logits"], by_hand(PIXELS))
    assert found["first"].shape == (4, 4, 14, 14)
    torch.testing.assert_close(one.net(PIXELS), by_hand(PIXELS))  # whoever runs the network alone, too


def test_weights_and_state_are_the_network_s_alone():
    one = Tapped(net(), adapter=adapter())
    assert one.state_dict().keys() == {f"net.{name}" for name in net().state_dict()}
    assert digest(one.net) == digest(net())
    assert parameters(one) == parameters(net())


def test_the_cost_is_that_of_the_network_on_its_own_images():
    one = Tapped(net(), adapter=adapter())
    assert multiply_adds(one.net, [3, 8, 6]) == multiply_adds(net(), [3, 16, 16])
    torch.testing.assert_close(one.net(PIXELS), by_hand(PIXELS))  # still on its device


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_has_its_own_adapter(copied):
    one = Tapped(net(), adapter=adapter())
    other = copied(one)
    other.adapter[1].scale.zero_()
    assert not torch.equal(other.net(PIXELS), one.net(PIXELS))
    torch.testing.assert_close(one.net(PIXELS), by_hand(PIXELS))


def test_a_compiled_network_has_its_adapter():
    one = Tapped(net(), adapter=adapter())
    one.net.compile(backend="eager")
    torch.testing.assert_close(one(PIXELS)["logits"], by_hand(PIXELS))


def test_a_frozen_teacher_takes_it_along():
    teacher = Frozen(Tapped(net(), adapter=adapter()))
    torch.testing.assert_close(teacher({"input": PIXELS})["logits"], by_hand(PIXELS))
    teacher.double()
    assert teacher({"input": PIXELS.double()})["logits"].dtype == torch.float64
