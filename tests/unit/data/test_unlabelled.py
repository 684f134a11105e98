"""Images without labels from made files."""

import gzip
import os

import numpy as np
import pytest
import torch
from PIL import Image

from tutelage.data.digits import Digits
from tutelage.data.unlabelled import Folder, Idx, Npz
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL

SHAPE = (1, 8, 8)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)


def idx(images, path):
    header = bytes([0, 0, 8, images.ndim]) + b"".join(n.to_bytes(4, "big") for n in images.shape)
    content = header + images.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def folder(root, images=IMAGES):
    for i, image in enumerate(images):
        path = root / ("a/b", "c")[i % 2] / f"{i}.{('png', 'PNG')[i % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (root / "notes.txt").write_text("no image")
    return root


def check(source, expected, shape=SHAPE):
    examples = source.load(shape)
    assert set(examples.labels.tolist()) == {NO_LABEL}
    assert len(examples) == len(expected)
    torch.testing.assert_close(examples.pixels[torch.arange(len(expected))], torch.from_numpy(expected).float())


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_an_idx_file(tmp_path, name):
    check(Idx(path=idx(IMAGES, tmp_path / name)), IMAGES[:, None] / 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_an_array_of_an_archive(tmp_path, dtype, channels):
    images = IMAGES if channels is None else np.repeat(IMAGES[:, None], channels, 1)
    given = images if dtype == np.uint8 else (images / 255).astype(dtype)
    source = Npz(path=npz(tmp_path / "x.npz", pictures=given, labels=np.arange(3)), array="pictures")
    expected = images / 255 if dtype == np.uint8 else given.astype(np.float32)
    check(source, expected.reshape(5, channels or 1, 8, 8), (channels or 1, 8, 8))


def test_a_folder_at_any_depth(tmp_path):
    order = [0, 2, 4, 1, 3]  # a/b before c
    check(Folder(root=folder(tmp_path), verify=True), IMAGES[order, None] / 255)
    colour = Folder(root=tmp_path).load((3, 4, 4)).pixels[torch.arange(5)]  # made smaller and coloured
    assert colour.shape == (5, 3, 4, 4)


def test_in_batches_of_real_data(tmp_path):
    """Digits are floats: with bytes, floats and files behind them, fetched by workers."""
    sources = [
        Idx(path=idx(IMAGES, tmp_path / "images")),
        Npz(path=npz(tmp_path / "x.npz", x=IMAGES[:3] / 255), array="x"),
        Folder(root=folder(tmp_path / "folder")),
    ]

    def data(unlabelled, **arguments):
        common = {"num_classes": 10, "input_shape": SHAPE, "batch_size": 16, "val_size": 600, "seed": 0}
        return Digits(**common, mean=[0.5], std=[0.25], unlabelled=unlabelled, drop_last=False, **arguments)

    batches = list(data(sources, num_workers=2).train_dataloader())
    found = {int(k): x for batch in batches for k, x in zip(batch["key"], batch["input"], strict=True)}
    assert len(found) == 913
    expected = [*IMAGES, *IMAGES[:3], *IMAGES[[0, 2, 4, 1, 3]]]
    for key, image in enumerate(expected, start=1500):
        torch.testing.assert_close(found[key], (torch.from_numpy(image)[None] / 255 - 0.5) / 0.25)
    before = data(sources).fingerprint()
    os.utime(tmp_path / "folder" / "c" / "1.PNG", ns=(0, 1))
    assert data(sources).fingerprint() != before


# -- what is refused --------------------------------------------------------------------------------------------------


def refusal(source, shape=SHAPE):
    with pytest.raises(TutelageError) as caught:
        source.load(shape)
    return str(caught.value)


def test_a_folder_that_gives_no_pictures(tmp_path):
    assert refusal(Folder(root=tmp_path / "gone")) == f"data.unlabelled: {tmp_path / 'gone'} is not a folder"
    assert f"{tmp_path} holds no image" in refusal(Folder(root=tmp_path))
    folder(tmp_path)
    assert "1 or 3 channels; data.input_shape is [2, 8, 8]" in refusal(Folder(root=tmp_path), (2, 8, 8))
    bad = tmp_path / "c" / "1.PNG"
    bad.write_bytes(b"not an image")
    assert refusal(Folder(root=tmp_path, verify=True)).startswith(f"{bad} (index 3, 12 bytes)")
    pixels = Folder(root=tmp_path).load(SHAPE).pixels
    with pytest.raises(TutelageError, match=rf"^{bad} \(index 3"):
        pixels[torch.arange(5)]


def test_an_idx_file_that_is_not_what_it_should_be(tmp_path):
    path = tmp_path / "images"
    assert refusal(Idx(path=path)) == f"data.unlabelled: there is no file {path}"
    idx(IMAGES[0, 0], path)
    assert f"{path}: expected the magic number 00 00 08 03; found 00 00 08 01" in refusal(Idx(path=path))
    idx(IMAGES, path)
    assert refusal(Idx(path=path), (1, 28, 28)) == (
        f"{path}: expected images of shape [1, 28, 28] (data.input_shape); found [1, 8, 8]"
    )
    idx(IMAGES[:0], path)
    assert refusal(Idx(path=path)) == f"{path}: it holds no image"
    idx(IMAGES, path)
    path.write_bytes(path.read_bytes()[:-1])
    assert "expected 336 bytes" in refusal(Idx(path=path))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (IMAGES.astype(np.int64), "expected uint8, or floats in [0, 1]; found int64"),
        (IMAGES.astype(np.float32), "expected floats in [0, 1]; found"),
        (np.full((2, 8, 8), np.nan), "found nan … nan at index 0 (2 of 2 images"),
        (IMAGES[0], "expected images of shape [1, 8, 8] (data.input_shape); found [8]"),
        (IMAGES[..., None], "found [8, 8, 1]"),
        (IMAGES[:0], "it holds no image"),
        (np.float32(0.5), "expected images of shape [1, 8, 8] (data.input_shape); found []"),
    ],
)
def test_an_array_that_is_not_what_it_should_be(tmp_path, array, says):
    path = npz(tmp_path / "x.npz", x=array)
    found = refusal(Npz(path=path, array="x"))
    assert found.startswith(f"{path}, array 'x': ")
    assert says in found


def test_a_number_outside_is_named_with_its_index(tmp_path):
    images = np.zeros((4, 8, 8))
    images[2, 1, 1] = 1.5
    assert "found 0 … 1.5 at index 2 (1 of 4" in refusal(Npz(path=npz(tmp_path / "x.npz", x=images), array="x"))


def test_an_archive_that_is_not_sound(tmp_path):
    path = tmp_path / "x.npz"
    assert refusal(Npz(path=path, array="x")) == f"data.unlabelled: there is no file {path}"
    npz(path, pictures=IMAGES)
    assert refusal(Npz(path=path, array="picture")).startswith(f"{path} has no array 'picture'; did you mean")
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 3] ^= 255
    for content in (b"", b"nonsense", whole[:-30], whole[:100], bytes(damaged)):
        path.write_bytes(content)
        assert refusal(Npz(path=path, array="pictures")).startswith(f"{path}: not a sound .npz file ({len(content)} b")
    with path.open("wb") as file:
        np.save(file, IMAGES)
    assert "not a sound .npz file" in refusal(Npz(path=path, array="pictures"))
    npz(path, pictures=np.array([{}], dtype=object))
    assert "pickled objects, which are never unpickled" in refusal(Npz(path=path, array="pictures"))
