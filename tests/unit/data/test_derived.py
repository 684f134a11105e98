"""data.derived: further fields of a batch, made of its images."""

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from scipy import ndimage

from tutelage.data.derived import Sobel

EDGES = "data.derived={edges: {_target_: tutelage.data.derived.Sobel}}"
SHIFT = "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]"


@pytest.fixture
def digits(compose):
    def make(*overrides):
        data = instantiate(compose("data=digits", EDGES, *overrides).data)
        data.setup()
        return data

    return make


def test_edges_are_those_of_scipy():
    images = torch.rand(3, 2, 7, 9, generator=torch.Generator().manual_seed(0))
    for image, edges in zip(images.double().numpy().mean(1), Sobel()(images), strict=True):
        strength = np.hypot(ndimage.sobel(image, 0, mode="nearest"), ndimage.sobel(image, 1, mode="nearest")) / 4
        np.testing.assert_allclose(edges[0].numpy(), strength, atol=1e-5)
    step = torch.zeros(1, 1, 4, 6)
    step[..., 3:] = 1
    assert Sobel()(step)[0, 0].tolist() == [[0, 0, 1, 1, 0, 0]] * 4
    assert Sobel()(torch.full((1, 3, 5, 5), 0.7)).max() < 1e-6


def test_a_field_is_made_of_the_picture_that_is_seen(digits):
    for data in (digits(), digits(SHIFT)):
        batch = data.splits["train"][3, torch.tensor([5, 0, 9])]
        torch.testing.assert_close(batch["edges"], Sobel()(data.pictures(batch["input"])), rtol=0, atol=1e-5)
        again = data.splits["train"][3, torch.tensor([9])]
        assert torch.equal(again["edges"][0], batch["edges"][2])
    other = data.splits["train"][4, torch.tensor([5, 0, 9])]
    assert not torch.equal(other["edges"], batch["edges"])


def test_other_fields_stay_what_they_are_to_the_bit(digits, compose):
    plain = instantiate(compose("data=digits").data)
    plain.setup()
    for part in ("train", "test"):
        one, other = (data.splits[part][0, torch.arange(7)] for data in (plain, digits()))
        assert set(other) == {*one, "edges"}
        for name in one:
            assert torch.equal(one[name], other[name])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{label: {_target_: tutelage.data.derived.Sobel}}", "'label' is a field of its own"),
        ("{input2: {_target_: tutelage.data.derived.Sobel}}", "'input2' is a field of its own"),
        ("{edges: 3}", "data.derived.edges: expected a function of images"),
    ],
)
def test_what_does_not_fit_is_one_sentence(compose, given, said):
    with pytest.raises(InstantiationException, match=said):
        instantiate(compose("data=digits", f"data.derived={given}").data)
