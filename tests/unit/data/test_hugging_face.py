"""data=hf: datasets of Hugging Face's on disk."""

import sys

import numpy as np
import pytest
import torch
from own_data import digits
from tables import class_label, pictures, write_table

from tutelage.data.hugging_face import HuggingFaceData
from tutelage.errors import TutelageError

FIELDS = {"input": "img", "label": "kind"}


def data(path, **arguments):
    return HuggingFaceData(path=path, **({"batch_size": 4, "seed": 0, "val_size": 4, "fields": FIELDS} | arguments))


def write(root, splits=("train", "validation", "test"), names=("cat", "dog", "emu")):
    for i, split in enumerate(splits):
        images = pictures(12 - 2 * i, size=8, seed=i)
        labels = [row % 3 for row in range(len(images))]
        path = root / f"{split}-00000-of-00001.parquet"
        write_table(path, images, kind=labels, metadata=class_label("kind", list(names)))


def test_parquet_files_without_the_library(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    made = data(tmp_path)
    assert {part: len(made.splits[part]) for part in made.splits} == {"train": 12, "val": 10, "test": 8}
    assert made.class_names == ["cat", "dog", "emu"]
    assert made.input_shape == (3, 8, 8)
    batch = made.splits["train"][0, torch.tensor([3])]
    assert torch.equal(batch["input"][0], torch.from_numpy(pictures(12, size=8)[3]).permute(2, 0, 1).float() / 255)
    assert batch["label"].tolist() == [0]


def test_parts_that_are_not_there_are_drawn(tmp_path):
    write(tmp_path, ("train",))
    made = data(tmp_path, val_size=3, test_size=2)
    assert {part: len(made.splits[part]) for part in made.splits} == {"train": 7, "val": 3, "test": 2}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("several", [True, False])
def test_what_save_to_disk_wrote(tmp_path, several):
    datasets = pytest.importorskip("datasets")
    images, labels = digits("small")
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.ClassLabel(names=list("abcdefghij"))})
    table = datasets.Dataset.from_dict({"img": list(images), "kind": labels.tolist()}, features=features)
    whole = datasets.DatasetDict({"train": table, "test": table.select(range(20))}) if several else table
    whole.save_to_disk(tmp_path / "set")
    made = data(tmp_path / "set")
    assert made.class_names == list("abcdefghij")
    train = made.splits["train"]
    found = train[0, torch.arange(len(train))]
    if several:  # else a test is drawn, and keys count what is left
        assert torch.equal(found["label"], torch.from_numpy(labels[found["key"]]))
    assert found["input"].shape == (len(train), 1, 8, 8)
    pixels = {image.tobytes() for image in images}
    assert all((255 * x).round().byte().numpy().tobytes() in pixels for x in found["input"])
    assert np.array_equal(sorted({int(x) for x in found["label"]}), np.unique(labels))


def test_without_the_library_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "dataset_info.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TutelageError, match=r"needs datasets: pip install 'tutelage\[hf\]'"):
        data(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"train": "trian"}, r"data.train: .* has no split 'trian'; did you mean 'train'\?"),
        ({"val": "vaildation"}, "did you mean 'validation'"),
        ({"fields": {"input": "image", "label": "kind"}}, "no 'image', which is to be its field 'input'"),
        ({"fields": {"input": "img", "label": "kinds"}}, "'label': did you mean 'kind'"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, said):
    write(tmp_path)
    with pytest.raises(TutelageError, match=said):
        data(tmp_path, **arguments).setup()


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(TutelageError, match="holds neither parquet files, such as"):
        data(tmp_path)
    with pytest.raises(TutelageError, match="is not a folder"):
        data(tmp_path / "none")
