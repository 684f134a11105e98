"""CIFAR in parquet files, the layout of Hugging Face's hub."""

import os
import sys
from pathlib import Path

import pytest
import torch
from cifar_writer import write as write_folder
from cifar_writer import written_by_python_3
from tables import class_label, pictures, png, write_table

from tutelage.data.cifar import CifarImages
from tutelage.errors import TutelageError

NAMES = [f"kind {c}" for c in range(10)]


def images(root, dataset="CIFAR10", classes=10, verify=False, **arguments):
    common = {"num_classes": classes, "input_shape": (3, 32, 32), "batch_size": 2, "val_size": 2, "seed": 0}
    common |= {"mean": [0.0] * 3, "std": [1.0] * 3, "download": False}
    return CifarImages(root=root, dataset=dataset, verify=verify, **(common | arguments))


def test_the_folder_itself_may_be_given(tmp_path):
    write(tmp_path)
    assert len(images(tmp_path / "CIFAR-10").splits["test"]) == len(images(tmp_path).splits["test"]) == 4


def write(root, **train):
    pixels, labels = pictures(8), [3, 1, 4, 1, 5, 9, 2, 6]
    content = {"images": pixels, "label": labels, "metadata": class_label("label", NAMES)} | train
    content = {name: value for name, value in content.items() if value is not None}
    write_table(root / "CIFAR-10" / "train-00000-of-00001.parquet", **content)
    write_table(root / "CIFAR-10" / "test-00000-of-00001.parquet", pictures(4, seed=1), label=[0, 1, 2, 3])
    return pixels, labels


def test_images_labels_and_names_are_the_files(tmp_path):
    pixels, labels = write(tmp_path)
    data = images(tmp_path)
    train, test = data.load()
    assert torch.equal(train.pixels.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert train.labels.tolist() == labels
    assert test.labels.tolist() == [0, 1, 2, 3]
    assert data.class_names == NAMES


def test_several_files_are_one_after_the_other(tmp_path):
    write(tmp_path)
    for part in (0, 1):
        path = tmp_path / "CIFAR-10" / f"train-0000{part}-of-00002.parquet"
        write_table(path, pictures(4, seed=part + 5), label=[part] * 4)
    (tmp_path / "CIFAR-10" / "train-00000-of-00001.parquet").unlink()
    assert images(tmp_path).load()[0].labels.tolist() == [0] * 4 + [1] * 4


def test_a_folder_of_the_archive_s_files_comes_first(tmp_path):
    write(tmp_path)
    write_folder(tmp_path, "CIFAR10", written_by_python_3)
    assert images(tmp_path).load()[0].labels.tolist() != [3, 1, 4, 1, 5, 9, 2, 6]


def test_without_pyarrow_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(TutelageError, match=r"train-.*parquet: reading .parquet needs pyarrow: pip install"):
        images(tmp_path).setup()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"label": None, "labels": [0] * 8}, r"no column 'label'; did you mean 'labels'\?"),
        ({"image": "picture"}, r"no column 'img' or 'image'"),
        ({"images": [*pictures(7), b"no image"]}, r"column 'img' of row 7 can't be read as an image \(8 bytes\)"),
        ({"images": [*pictures(7), png(pictures(1, 16)[0])]}, r"image of row 7 is RGB, 16×16; expected RGB, 32×32"),
        ({"label": [0] * 7 + [10]}, r"CIFAR10 train: the example at index 7: its label is 10; expected 0 to 9"),
        ({"metadata": class_label("label", NAMES[:3])}, r"3 classes; data.num_classes is 10"),
    ],
)
def test_a_table_that_holds_something_else(tmp_path, change, said):
    write(tmp_path, **change)
    with pytest.raises(TutelageError, match=said):
        images(tmp_path).setup()


def test_a_file_that_is_cut_off_is_named(tmp_path):
    write(tmp_path)
    path = tmp_path / "CIFAR-10" / "train-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TutelageError, match=r"train-00000-of-00001.parquet: can't be read as a parquet file"):
        images(tmp_path).setup()


def test_another_number_of_examples_than_published_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(TutelageError, match="class 0 has 0 examples; the published set has 5000 of each"):
        images(tmp_path, verify=True).setup()


@pytest.mark.slow
@pytest.mark.long
def test_the_real_data():
    root = os.environ.get("TUTELAGE_DATA")
    if not root or not list(Path(root).glob("CIFAR-100/*.parquet")):
        pytest.skip("needs TUTELAGE_DATA=<folder with CIFAR-100/{train,test}-*.parquet>")
    data = images(root, "CIFAR100", 100, verify=True, val_size=5000)
    data.setup()
    assert [len(data.splits[part]) for part in ("train", "val", "test")] == [45_000, 5_000, 10_000]
    assert data.class_names[:2] == ["apple", "aquarium_fish"]
    pixels = data.load()[0].pixels.images.float().div(255)
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx([0.5071, 0.4865, 0.4409], abs=1e-4)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx([0.2673, 0.2564, 0.2762], abs=1e-4)
