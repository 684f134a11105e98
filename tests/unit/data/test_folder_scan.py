"""Folders as they are in the world: what is found, how it is read, what is left out and why."""

import numpy as np
import pytest
import torch
from picture_folders import CLASSES, fetch, folder, write
from PIL import Image

from tutelage.data.file_names import FileNames
from tutelage.data.image_folder import FilePixels
from tutelage.errors import TutelageError


def test_what_is_left_out_is_counted_with_the_reason_and_nothing_is_opened(tmp_path, caplog, monkeypatch):
    write(tmp_path, {"train": 5, "valid": 2, "test": 3})
    (tmp_path / "train" / "cat" / "more" / "deep").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "more" / "deep" / "00.png").write_bytes(b"")
    for name in ("._00.png", ".DS_Store", "notes.txt", "raw.npy", "raw2.npy", "Thumbs.db"):
        (tmp_path / "train" / "dog" / name).write_bytes(b"x")
    (tmp_path / "train" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "train" / "dog" / "again").symlink_to(tmp_path / "train" / "dog", target_is_directory=True)
    (tmp_path / "extra" / "cat").mkdir(parents=True)
    (tmp_path / "test" / "00.png").write_bytes(b"x")
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("opened"))
    caplog.set_level("INFO")
    data = folder(tmp_path)
    data.setup()
    assert {part: len(split) for part, split in data.splits.items()} == {"train": 16, "val": 6, "test": 9}
    assert f"{tmp_path}: train: 16 images: bird 5, cat 6, dog 5" in caplog.text
    assert f"{tmp_path}: val: 6 images: bird 2, cat 2, dog 2" in caplog.text
    assert f"{tmp_path}: test: 9 images: bird 3, cat 3, dog 3" in caplog.text
    assert "1 of the images are in folders within their class's" in caplog.text
    [warning] = [record.message for record in caplog.records if record.levelname == "WARNING"]
    for reason in (
        "3 hidden or of the system (train/dog/", "2 .npy, no image", "1 .txt, no image (train/dog/notes.txt)",
        "1 links that lead nowhere (train/dog/gone.png)", "1 links to a folder that they are in (train/dog/again)",
        "1 folders beside the splits (extra)", "1 files in no class's folder (test/00.png)",
    ):  # fmt: skip
        assert reason in warning


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_folder_for_validation_has_three_names(tmp_path, name):
    write(tmp_path, {"train": 5, name: 2, "test": 2})
    data = folder(tmp_path)
    assert all(path.startswith(name) for path in fetch(data, "val"))
    assert len(data.splits["train"]) == 15
    write(tmp_path, {"valid" if name == "val" else "val": 2})
    with pytest.raises(TutelageError, match=r"has 'val' and 'valid\w*'; one of them is to be the val split"):
        folder(tmp_path).setup()


def test_the_number_of_classes_is_that_of_the_folders(tmp_path, compose):
    write(tmp_path, {"train": 5, "test": 2})
    data = folder(tmp_path, num_classes=None)
    data.setup()
    assert (data.num_classes, data.class_names) == (3, list(CLASSES))
    cfg = compose("data=image_folder", f"data.root={tmp_path}")
    assert cfg.data.num_classes == cfg.teacher.net.num_classes == 3


@pytest.mark.parametrize("splits", [("training", "testing"), ("Train", "Test")])
def test_splits_of_other_names_are_not_taken_for_classes(tmp_path, splits):
    write(tmp_path, dict.fromkeys(splits, 2))
    with pytest.raises(TutelageError, match="which look like splits and not like classes; splits are called train"):
        folder(tmp_path, num_classes=None)


def test_one_folder_is_no_set_of_classes(tmp_path):
    write(tmp_path, {"archive/train": 2, "archive/test": 2})
    with pytest.raises(TutelageError, match=r"expected a folder for each of two or more classes; found \['archive'\]"):
        folder(tmp_path, num_classes=None)


def test_class_names_are_the_folders_in_the_order_of_their_labels(tmp_path):
    write(tmp_path, {"train": 5, "test": 2})
    data = folder(tmp_path, class_names=["dog", "bird", "cat"])
    fetch(data, "train")
    assert data.class_names == ["dog", "bird", "cat"]
    assert folder(tmp_path).fingerprint() != data.fingerprint()
    with pytest.raises(TutelageError, match=r"data\.class_names .* lacks \['dog'\] and adds \['Hund'\]"):
        folder(tmp_path, class_names=["Hund", "bird", "cat"]).setup()


def test_an_empty_class_says_what_is_in_its_folder(tmp_path):
    write(tmp_path, {"train": 5, "test": 2})
    for path in (tmp_path / "train" / "dog").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(TutelageError, match=r"train/dog holds no image .*; it has 5 \.heic, no image"):
        folder(tmp_path).setup()


def read_one(root, image, suffix="png", **how):
    """Returns one picture as the data give it, [3, 8, 8] of whole numbers."""
    path = root / f"x.{suffix}"
    image.save(path, **how)
    return (FilePixels(root, FileNames([path.name]), (3, 8, 8))[torch.tensor([0])][0] * 255).round()


def test_sixteen_bits_become_eight(tmp_path):
    numbers = np.full((8, 8), 40_000, np.uint16)
    numbers[0] = 65535
    found = read_one(tmp_path, Image.fromarray(numbers))
    assert torch.equal(found[:, 1:], torch.full((3, 7, 8), 156.0))  # 40,000 / 257
    assert torch.equal(found[:, 0], torch.full((3, 8), 255.0))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white_whatever_is_hidden_there(tmp_path, mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 8, 4))
    found = read_one(tmp_path, image.quantize(8) if mode == "P" else image.convert(mode))
    assert torch.equal(found[:, :4], torch.zeros(3, 4, 8))
    assert torch.equal(found[:, 4:], torch.full((3, 4, 8), 255.0))


RED = Image.new("RGB", (8, 8), (254, 0, 0))


def test_cmyk_and_one_frame_of_a_gif_are_colours(tmp_path):
    expected = torch.tensor([254.0, 0.0, 0.0])[:, None, None].expand(3, 8, 8)
    assert (read_one(tmp_path, RED.convert("CMYK"), "jpg", quality=100) - expected).abs().max() <= 3
    assert torch.equal(read_one(tmp_path, RED, "gif"), expected)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_animations_and_pages_are_refused(tmp_path, suffix):
    more = [Image.new("RGB", (8, 8), colour) for colour in ("blue", "lime")]
    with pytest.raises(TutelageError, match=rf"x\.{suffix} .*3 images; expected one"):
        read_one(tmp_path, RED, suffix, save_all=True, append_images=more)
