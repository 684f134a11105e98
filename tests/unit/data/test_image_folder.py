import os

import numpy as np
import pytest
import torch
from picture_folders import CLASSES, fetch, folder, picture, write
from PIL import Image

from tutelage.data.augment import Shift
from tutelage.errors import TutelageError


def original(path):
    label, file = path.split(os.sep)[-2:]
    return torch.from_numpy(picture(f"{label}{int(file[:2])}")).permute(2, 0, 1) / 255


def test_three_folders_are_three_splits(tmp_path):
    write(tmp_path, {"train": 5, "val": 2, "test": 3})
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".cache").mkdir()
    data = folder(tmp_path)
    assert data.is_streaming
    assert data.class_names == list(CLASSES)
    for part, count in (("train", 15), ("val", 6), ("test", 9)):
        found = fetch(data, part)
        assert len(found) == count
        for path, image in found.items():
            assert path.startswith(part + os.sep)
            assert torch.equal(image, original(path))
    assert data.splits["train"].keys.tolist() == list(range(15))
    assert data.splits["val"].keys.tolist() == list(range(15, 21))


def test_what_has_no_folder_is_drawn_by_split_seed(tmp_path):
    write(tmp_path, {".": 10})

    def parts(**arguments):
        data = folder(tmp_path, test_size=6, **arguments)
        return [sorted(fetch(data, part)) for part in ("train", "val", "test")]

    train, val, test = found = parts()
    assert [len(part) for part in found] == [18, 6, 6]
    assert sorted(train + val + test) == [os.path.join(c, f"{i:02}.png") for c in CLASSES for i in range(10)]
    assert parts(seed=5) == found
    changed = parts(split_seed=1)
    assert all(a != b for a, b in zip(changed, found, strict=True))


def test_a_test_folder_alone_leaves_validation_to_be_drawn(tmp_path):
    write(tmp_path, {"train": 8, "test": 2})
    data = folder(tmp_path, test_size=0.5)
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 18, "val": 6, "test": 6}
    assert all(path.startswith("test") for path in fetch(data, "test"))


@pytest.mark.parametrize("workers", [0, 2])
def test_streams_the_same_batches_with_and_without_workers(tmp_path, workers):
    write(tmp_path, {".": 10})
    arguments = {"augment": [Shift(1)], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    here, there = folder(tmp_path, **arguments), folder(tmp_path, num_workers=workers, **arguments)
    loaders = here.train_dataloader(), there.train_dataloader()
    for epoch in (0, 1):
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
        for a, b in zip(*loaders, strict=True):
            assert all(torch.equal(a[name], b[name]) for name in ("input", "label", "key"))
            assert a["input"].is_contiguous()
            assert a["input"].dtype == torch.float32


def test_normalises_by_channel(tmp_path):
    write(tmp_path, {".": 10})
    plain = folder(tmp_path).sample(3)["input"]
    found = folder(tmp_path, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4]).sample(3)["input"]
    mean, std = torch.tensor([[0.5, 0.4, 0.3], [0.2, 0.3, 0.4]])[:, :, None, None]
    torch.testing.assert_close(found, (plain - mean) / std)


@pytest.mark.parametrize(("size", "box"), [((16, 8), (4, 0, 12, 8)), ((8, 20), (0, 6, 8, 14))])
def test_cuts_out_the_centre(tmp_path, size, box):
    write(tmp_path, {".": 4})
    image = Image.fromarray(picture("big", (size[1], size[0], 3)))
    for i in range(4):
        image.save(tmp_path / "cat" / f"{i:02}.png")
    expected = torch.from_numpy(np.array(image.crop(box))).permute(2, 0, 1) / 255
    cats = [image for path, image in fetch(folder(tmp_path), "train").items() if "cat" in path]
    assert cats
    assert all(torch.equal(cat, expected) for cat in cats)


@pytest.mark.parametrize("size", [(500, 375), (333, 500), (300, 300)])
def test_resize_and_centre_are_those_of_torchvision(tmp_path, size):
    transforms = pytest.importorskip("torchvision.transforms")
    write(tmp_path, {"train": 2, "val": 1, "test": 1})
    coarse = Image.fromarray(picture("photo", (9, 12, 3))).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(coarse) + np.random.default_rng(0).normal(0, 20, (size[1], size[0], 3))
    image = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    image.save(path := tmp_path / "val" / "cat" / "00.png")
    data = folder(tmp_path, input_shape=(3, 224, 224), resize=256)
    found = fetch(data, "val")[str(path.relative_to(tmp_path))]
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()])(image)
    assert ((found - theirs) * 255).abs().max() < 1.01  # a level: in between the two directions Pillow rounds


def test_resize_to_less_than_the_input_is_refused(tmp_path):
    write(tmp_path, {"train": 1})
    with pytest.raises(TutelageError, match=r"data\.resize must be a whole number of at least 8 pixels .* found 7"):
        folder(tmp_path, resize=7)


def test_scales_smoothly_until_the_shorter_side_fits(tmp_path):
    write(tmp_path, {".": 4})
    ramp = np.linspace(0, 127, 64)[None, :, None] + 128 * (np.arange(64) % 2)[None, :, None]  # with stripes on it
    for i in range(4):
        Image.fromarray(np.tile(ramp, (16, 1, 3)).astype(np.uint8)).save(tmp_path / "cat" / f"{i:02}.png")  # 64 wide
    [cat, *_] = [image for path, image in fetch(folder(tmp_path), "train").items() if "cat" in path]
    expected = torch.from_numpy(ramp).float()[0, 24:40, 0].view(8, 2).mean(1).expand(3, 8, 8) / 255  # the middle 16
    torch.testing.assert_close(cat[:, :, 1:-1], expected[:, :, 1:-1], atol=0.01, rtol=0)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_grey_or_colour(tmp_path, mode, channels):
    write(tmp_path, {".": 4}, suffix="tif")
    image = Image.fromarray(picture("x")).convert(mode)
    for i in range(4):
        image.save(tmp_path / "cat" / f"{i:02}.tif")
    data = folder(tmp_path, input_shape=(channels, 8, 8), mean=[0.0] * channels, std=[1.0] * channels)
    expected = np.asarray(image.convert("RGB" if channels == 3 else "L")).reshape(8, 8, channels)
    [cat, *_] = [image for path, image in fetch(data, "train").items() if "cat" in path]
    assert torch.equal(cat, torch.from_numpy(expected.copy()).permute(2, 0, 1) / 255)


def spoil(root, part="train"):
    """Cuts off the one file that has key 7; its path and size."""
    path = root / part / "cat" / "02.png"
    path.write_bytes(path.read_bytes()[:-60])
    return path, path.stat().st_size


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cut_off_image_is_named_when_it_is_met(tmp_path, workers):
    write(tmp_path, {"train": 5, "val": 2, "test": 2})
    path, size = spoil(tmp_path)
    loader = folder(tmp_path, num_workers=workers).whole("train")
    with pytest.raises(
        TutelageError, match=rf"^{path} \(index 7, {size} bytes\) can't be read as an image: .*truncated"
    ):
        list(loader)


def test_every_truncation_is_noticed(tmp_path):
    write(tmp_path, {"train": 5, "val": 2, "test": 2})
    path = tmp_path / "train" / "cat" / "02.png"
    whole, pixels = path.read_bytes(), folder(tmp_path).splits["train"].examples.pixels
    expected = pixels[torch.tensor([7])]
    messages = []
    for kept in range(len(whole)):
        path.write_bytes(whole[:kept])
        try:
            assert torch.equal(pixels[torch.tensor([7])], expected)  # only bytes behind the pixels were missing
        except TutelageError as error:
            messages.append((kept, str(error)))
    assert len(messages) > len(whole) - 30
    for kept, message in messages:
        assert message.startswith(f"{path} (index 7, {kept} bytes) can't be read")


@pytest.mark.parametrize("kind", ["text", "empty", "gone", "thirty two"])
def test_what_is_no_image(tmp_path, kind):
    write(tmp_path, {"train": 5, "val": 2, "test": 2})
    path = tmp_path / "train" / "cat" / "02.png"
    data = folder(tmp_path)
    data.setup()
    {
        "text": lambda: path.write_text("not an image"),
        "empty": lambda: path.write_bytes(b""),
        "gone": path.unlink,
        "thirty two": lambda: Image.fromarray(np.full((8, 8), 40_000, np.int32)).save(path, "tiff"),
    }[kind]()
    reason = {"gone": "it is gone.*No such file", "thirty two": "more than 16 bits"}.get(kind, "cannot identify image")
    with pytest.raises(TutelageError, match=rf"^{path} \(index 7, .*{reason}"):
        list(data.whole("train"))


def test_verify_finds_a_bad_header_before_training(tmp_path):
    write(tmp_path, {"train": 5, "val": 2, "test": 2})
    folder(tmp_path, verify=True).setup()
    path = tmp_path / "test" / "dog" / "01.png"
    path.write_bytes(b"\x89PNX" + path.read_bytes()[4:])
    folder(tmp_path).setup()
    with pytest.raises(TutelageError, match=rf"^{path} \(index 5, "):
        folder(tmp_path, verify=True).setup()


def test_classes_must_agree_between_splits(tmp_path):
    write(tmp_path, {"train": 5, "test": 2})
    write(tmp_path, {"val": 2}, classes=("bird", "cow", "dog"))
    with pytest.raises(TutelageError, match=r"val and train differ in classes: it lacks \['cat'\] and adds \['cow'\]"):
        folder(tmp_path).setup()


def test_the_number_of_classes_must_be_the_configs(tmp_path):
    write(tmp_path, {".": 5})
    with pytest.raises(TutelageError, match=r"has 3 class folders; data\.num_classes is 4"):
        folder(tmp_path, num_classes=4).setup()


def test_folders_that_are_missing_or_empty(tmp_path):
    with pytest.raises(TutelageError, match="absent is not a folder"):
        folder(tmp_path / "absent").setup()
    write(tmp_path, {"val": 2, "test": 2})
    with pytest.raises(TutelageError, match="has 'val' and 'test' but no 'train' folder"):
        folder(tmp_path).setup()
    write(tmp_path, {"train": 5})
    for file in (tmp_path / "train" / "dog").iterdir():
        file.unlink()
    with pytest.raises(TutelageError, match=r"train/dog holds no image"):
        folder(tmp_path).setup()


def test_channels_must_be_one_or_three(tmp_path):
    with pytest.raises(TutelageError, match="1 or 3 channels"):
        folder(tmp_path, input_shape=(2, 8, 8), mean=[0.0] * 2, std=[1.0] * 2)


def test_the_fingerprint_follows_paths_sizes_and_times(tmp_path):
    write(tmp_path / "a", {".": 5})
    first = folder(tmp_path / "a").fingerprint()
    assert folder(tmp_path / "a", seed=3).fingerprint() == first
    path = tmp_path / "a" / "cat" / "02.png"
    os.utime(path, ns=(0, 1))
    touched = folder(tmp_path / "a").fingerprint()
    path.rename(path.with_name("99.png"))
    assert len({first, touched, folder(tmp_path / "a").fingerprint()}) == 3
    (tmp_path / "a").rename(tmp_path / "b")
    moved = folder(tmp_path / "b").fingerprint()
    (tmp_path / "b").rename(tmp_path / "c")
    assert folder(tmp_path / "c").fingerprint() == moved
