"""Later exports add to the folder of the same network, and take the place of another's."""

import json

import pytest

from tutelage.errors import TutelageError
from tutelage.pipeline.export import default_folder
from tutelage.pipeline.export_folder import ExportFolder
from tutelage.runtime import manifest

FILES = {"onnx": "model.onnx", "int8": "model.int8.onnx", "safetensors": "model.safetensors"}


@pytest.fixture
def export(tmp_path):
    """``export(weights, *formats)`` → what export.json has of formats after an export of empty files."""

    def run(weights, *formats, overwrite=False, split="test"):
        place = ExportFolder(tmp_path / "out", weights, overwrite)
        (work := tmp_path / "work").mkdir()
        document = {
            "weights": weights, "split": split, "threads": 1, "trained": {"figures": {"accuracy": 0.5}},
            "described": {"preprocess": None}, "formats": {name: {"file": FILES[name]} for name in formats},
        }  # fmt: skip
        document["formats"] = place.formats(document)
        for name in formats:
            (work / FILES[name]).write_text(weights)
        (work / "export.json").write_text(json.dumps(document))
        place.publish(work)
        work.rmdir()
        manifest.check(tmp_path / "out")
        return [*document["formats"]]

    return run


def listed(tmp_path):
    return [name for name in manifest.read(tmp_path / "out")["files"] if name.startswith("model")]


def test_files_of_the_same_weights_stay_listed_with_their_figures(tmp_path, export):
    assert export("one", "onnx", "int8") == ["onnx", "int8"]
    assert export("one", "safetensors") == ["safetensors", "onnx", "int8"]
    assert listed(tmp_path) == ["model.int8.onnx", "model.onnx", "model.safetensors"]
    assert export("one", "onnx", split="val") == ["onnx"]  # other figures are not put beside one another
    assert listed(tmp_path) == ["model.int8.onnx", "model.onnx", "model.safetensors"]


def test_a_file_that_changed_is_no_longer_listed(tmp_path, export, caplog):
    export("one", "onnx", "int8")
    (tmp_path / "out/model.onnx").write_text("damaged")
    assert export("one", "int8") == ["int8"]
    assert listed(tmp_path) == ["model.int8.onnx"]
    assert "model.onnx is not what was written, and is no longer listed" in caplog.text


def test_files_of_other_weights_are_refused_or_removed_and_yours_stay(tmp_path, export):
    export("one", "onnx", "int8")
    (tmp_path / "out/notes.txt").write_text("mine")
    with pytest.raises(TutelageError, match="holds an export of other weights"):
        export("two", "onnx")
    assert export("two", "onnx", overwrite=True) == ["onnx"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "export.json", "manifest.json", "model.onnx", "notes.txt",
    ]  # fmt: skip


def test_the_checksums_of_a_run_are_not_replaced(tmp_path, export):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/last.safetensors").touch()
    manifest.write(tmp_path / "out")
    with pytest.raises(TutelageError, match="out holds files of a run or an artifact: choose another folder"):
        export("one", "onnx", overwrite=True)


@pytest.mark.parametrize(
    ("weights", "folder"),
    [
        ("run/checkpoints/last.safetensors", "run/export/last"),
        ("run/checkpoints/peers/0/best.safetensors", "run/export/peers/0/best"),
        ("mine/student.safetensors", "mine/export/student"),
    ],
)
def test_the_default_folder_is_in_the_run(tmp_path, weights, folder):
    assert default_folder(tmp_path / weights) == tmp_path / folder
