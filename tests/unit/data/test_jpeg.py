"""JPEGs by torchcodec: Pillow's pixels, and Pillow wherever it is missing, other, or refuses a file."""

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.data import jpeg
from tutelage.data.jpeg import decoded

torchcodec = pytest.importorskip("torchcodec.decoders")


@pytest.fixture(autouse=True)
def _forgotten():
    jpeg._by_torchcodec.cache_clear()
    yield
    jpeg._by_torchcodec.cache_clear()


def opened(mode="RGB", kind="JPEG", size=(61, 47), cut=None, **how):
    """Returns an image that is not decoded yet."""
    pixels = np.random.default_rng(3).integers(0, 256, (5, 6, 3), np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)
    content = io.BytesIO()
    image.save(content, kind, **how)
    return Image.open(io.BytesIO(content.getvalue()[:cut]))


def by_pillow(image, channels):
    found = np.array(image.convert("RGB" if channels == 3 else "L"))
    return torch.from_numpy(found.reshape(image.height, image.width, channels)).permute(2, 0, 1)


@pytest.fixture
def asked(monkeypatch):
    """Modes that torchcodec is asked for."""
    own, modes = jpeg._by_torchcodec(), []
    assert own is not None
    monkeypatch.setattr(
        jpeg, "_by_torchcodec", lambda: lambda content, mode: modes.append(mode) or own(content, mode=mode)
    )
    return modes


@pytest.mark.parametrize(
    "how", [{"subsampling": n} for n in range(3)] + [{"progressive": True}, {"quality": 5}], ids=str
)
@pytest.mark.parametrize(("mode", "channels", "given"), [("RGB", 3, "RGB"), ("L", 1, "GRAY")])
def test_pixels_are_pillow_s(asked, mode, channels, given, how):
    found = decoded(opened(mode, **how), channels)
    assert torch.equal(found, by_pillow(opened(mode, **how), channels))
    assert asked == [given]


@pytest.mark.parametrize(
    ("mode", "kind", "channels"),
    [("CMYK", "JPEG", 3), ("L", "JPEG", 3), ("RGB", "JPEG", 1), ("RGB", "PNG", 3), ("1", "PNG", 1)],
)
def test_other_images_are_left_to_pillow(asked, mode, kind, channels):
    assert torch.equal(decoded(opened(mode, kind), channels), by_pillow(opened(mode, kind), channels))
    assert asked == []


def test_an_image_that_is_wanted_smaller_is_left_to_pillow(asked):
    image = opened()
    image.draft(None, (30, 23))
    assert list(decoded(image, 3, whole=False).shape) == [3, 24, 31]
    assert asked == []


def test_a_file_that_is_cut_off_is_refused_by_pillow(asked):
    with pytest.raises(OSError, match="truncated"):
        decoded(opened(size=(610, 470), quality=95, cut=9000), 3)
    assert asked == ["RGB"]


@pytest.mark.parametrize("fault", [lambda content, mode: torch.zeros(3, 45, 39, dtype=torch.uint8), None])
def test_a_library_of_other_pixels_or_none_is_not_used(monkeypatch, fault):
    if fault is None:
        monkeypatch.setitem(sys.modules, "torchcodec", None)
    else:
        monkeypatch.setattr(torchcodec, "decode_jpeg", fault)
    assert jpeg._by_torchcodec() is None
    assert torch.equal(decoded(opened(), 3), by_pillow(opened(), 3))
