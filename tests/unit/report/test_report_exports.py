"""The report's section on exported students."""

import json

import pytest
from made_runs import run
from torch import nn

from tutelage.checkpoints.weights import digest, save_network
from tutelage.report.cells import sort_runs
from tutelage.report.document import Figure, Table, Text
from tutelage.report.runs import read_runs
from tutelage.report.sections.exports import exports
from tutelage.runtime import manifest

WEIGHTS = nn.Linear(2, 2)


def entry(accuracy: float, fast: float) -> dict:
    return {"bytes": 2000, "figures": {"accuracy": accuracy}, "latency_ms": {"1": fast, "64": 8 * fast}}


@pytest.fixture
def folder(tmp_path):
    place = run(tmp_path, seed=0) / "export" / "last"
    place.mkdir(parents=True)
    document = {
        "weights": digest(WEIGHTS), "split": "test", "threads": 2,
        "trained": entry(0.8, 0.4), "teacher": entry(0.9, 4.0),
        "formats": {"onnx": entry(0.8, 0.1), "int8": entry(0.78, 0.05)},
    }  # fmt: skip
    (place / "export.json").write_text(json.dumps(document))
    manifest.write(place)
    return place


def test_every_file_and_the_teacher_are_drawn(folder):
    (section,) = exports(sort_runs(read_runs([folder.parents[1]])))
    figures = [block for block in section.blocks if isinstance(block, Figure)]
    assert [one.title for one in figures] == [f"Test accuracy against latency, batch {size}" for size in (1, 64)]
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert [row[0].split(",")[0] for row in table.rows] == [
        "student in PyTorch", "onnx", "int8", "teacher in PyTorch"
    ]  # fmt: skip
    assert [row[1:] for row in table.rows][2] == [0.78, 2.0, 0.05, 0.4]
    assert "threads: 2" in table.caption


def test_an_export_of_weights_that_were_written_again_is_named_instead(folder):
    weights = folder.parents[1] / "checkpoints" / "last.safetensors"
    save_network(WEIGHTS, weights, {})
    (section,) = exports(sort_runs(read_runs([folder.parents[1]])))
    assert not any(isinstance(block, Text) for block in section.blocks)
    save_network(nn.Linear(2, 2), weights, {})
    (section,) = exports(sort_runs(read_runs([folder.parents[1]])))
    assert [f"{weights} was written since" in block.text for block in section.blocks] == [True]


def test_networks_beside_the_student_are_named(folder):
    place = folder.parent / "peers" / "0" / "best"
    place.parent.mkdir(parents=True)
    folder.rename(place)
    (section,) = exports(sort_runs(read_runs([place.parents[3]])))
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    assert [row[0].split(",")[0] for row in table.rows] == [
        "peers/0 in PyTorch", "onnx of peers/0", "int8 of peers/0", "teacher in PyTorch"
    ]  # fmt: skip


def test_a_damaged_export_is_named(folder):
    path = folder / "export.json"
    path.write_text(path.read_text().replace("0.78", "0.98"))
    (section,) = exports(sort_runs(read_runs([folder.parents[1]])))
    assert [f"{path} is damaged" in block.text for block in section.blocks] == [True]


def test_without_exports_there_is_no_section(tmp_path):
    run(tmp_path / "one", seed=0)
    assert exports(sort_runs(read_runs([tmp_path]))) == []
