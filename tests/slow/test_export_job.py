"""``tutelage export`` and ``tutelage predict`` from a run to files, tables and the report."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from command import PAIR, SPLITS, environment
from PIL import Image

import tutelage as tt
from tutelage.config.saved import data_of
from tutelage.runtime import manifest

pytestmark = pytest.mark.long
FORMATS = ["safetensors", "onnx", "torch_export", "int8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    quick = ("trainer.max_epochs=4", *PAIR, *SPLITS, "logger=none", "callbacks.progress=null")
    return tt.distill(*quick, f"paths.outputs={folder}", folder=folder / "run", seed=3)


@pytest.fixture(scope="module")
def exported(run):
    return tt.export(run.folder / "checkpoints" / "last.safetensors", FORMATS, threads=1, calibration=64)


@pytest.fixture
def untimed(monkeypatch):
    """Files are timed in processes of their own, seconds each: not where their time is not the subject."""
    spent = {"runtime": "none", "latency_ms": {"1": 1.0, "64": 1.0}, "runs": {"1": 5, "64": 5}}
    spent |= {"peak_bytes": 2, "libraries_bytes": 1}
    monkeypatch.setattr("tutelage.pipeline.export.timed", lambda *_: dict(spent))


def test_every_file_is_measured_and_checksummed(run, exported):
    found = exported.measured
    assert exported.folder == run.folder / "export" / "last"
    assert json.loads((exported.folder / "export.json").read_text()) == found
    manifest.check(exported.folder)
    own = run.metrics["student"]["last"]["test"]
    assert found["trained"]["figures"]["accuracy"] == own["accuracy"]
    assert found["teacher"]["figures"]["accuracy"] == run.metrics["teacher"]["last"]["test"]["accuracy"]
    for name, entry in found["formats"].items():
        assert entry["bytes"] == (exported.folder / entry["file"]).stat().st_size
        assert set(entry["latency_ms"]) == {"1", "64"}
        assert entry["peak_bytes"] > entry["libraries_bytes"] > 0
        near = entry["figures"]["nll"] == pytest.approx(own["nll"], abs=1e-5)
        assert near == (name != "int8")
        assert entry["largest_difference"] < (1e-4 if name != "int8" else 1)
        gap = entry["difference"]
        assert gap["low"] <= gap["value"] <= gap["high"]
        assert gap["value"] == pytest.approx(entry["figures"]["accuracy"] - own["accuracy"])
    assert found["headline"]["low"] < own["accuracy"] < found["headline"]["high"]


def test_the_card_has_the_figures_and_where_they_are_from(run, exported):
    card = (exported.folder / "README.md").read_text()
    accuracy = run.metrics["student"]["last"]["test"]["accuracy"]
    for text in (f"Test accuracy: {100 * accuracy:.2f} % (", "| int8 |", "| student alone |", "seed 3", "model.pt2"):
        assert text in card


def test_the_same_network_may_be_exported_again_but_no_other(run, exported, main, untimed):
    weights = run.folder / "checkpoints" / "last.safetensors"
    tt.export(weights, "onnx", output=exported.folder, threads=1)
    again = tt.export(weights, "safetensors", output=exported.folder, threads=1)
    assert set(again.measured["formats"]) == set(FORMATS)  # what is not written again stays
    manifest.check_file(exported.folder, "model.onnx")
    (exported.folder.parent / "taken").mkdir(exist_ok=True)
    (exported.folder.parent / "taken" / "notes.txt").write_text("mine")
    for place, message in (("taken", "holds something else"), ("taken/notes.txt", "is a file; expected a folder")):
        answer = main("export", f"checkpoint={weights}", f"output={exported.folder.parent / place}")
        assert answer.code == 1
        assert message in answer.message


def test_bad_input_is_one_sentence(run, exported, main, tmp_path):
    weights = run.folder / "checkpoints" / "last.safetensors"
    (tmp_path / "damaged.safetensors").write_bytes(weights.read_bytes()[:-9])
    cases = (
        (("export",), "checkpoint=… is needed"),
        (("export", "checkpoint=none.safetensors"), "no file"),
        (("export", "checkpoint=damaged.safetensors"), "damaged"),
        (("export", f"checkpoint={weights}", "format=tflite"), "there is no 'tflite'"),
        (("export", f"checkpoint={weights}", "split=train"), "split must be val or test"),
        (("export", f"checkpoint={weights}", "calibration=0"), "calibration must be a whole number ≥ 1; found 0"),
        (("export", f"checkpoint={weights}", "formats=onnx"), "formats"),
        (("predict", f"checkpoint={weights}", "input=x.csv", "output=y.xls"), "expected a file that ends in"),
        (("predict", f"checkpoint={weights}", "input=x.csv", "output=y.csv"), "no such file or folder"),
        (("predict", f"checkpoint={tmp_path}", "input=x.csv", "output=y.csv"), "no export"),
    )
    for words, message in cases:
        answer = main(*words)
        assert answer.code == 1
        assert message in answer.message
        assert "Traceback" not in answer.message


@pytest.fixture
def folder(tmp_path, run):
    """Ten test digits as PNG files; returns it and their pixels."""
    data = data_of(run.student.about, {}, "the student")
    batch = next(iter(data.whole("test")))
    pixels = data.pictures(batch["input"][:10])
    (tmp_path / "digits").mkdir()
    for number, one in enumerate(pixels):
        Image.fromarray((one[0] * 255).round().to(torch.uint8).numpy()).save(tmp_path / "digits" / f"{number}.png")
    return tmp_path / "digits"


def test_predictions_of_images_are_the_network_s_from_any_file(run, exported, folder, tmp_path, main):
    levels = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]).astype(np.float32) / 255
    net = run.student
    with torch.no_grad():
        shares = net(net.preprocess(torch.from_numpy(levels)[:, None])).softmax(1)
    weights = run.folder / "checkpoints" / "last.safetensors"
    for number, source in enumerate((weights, exported.folder, exported.folder / "model.onnx")):
        output = tmp_path / f"answers{number}.csv"
        answer = main("predict", f"checkpoint={source}", f"input={folder}", f"output={output}", "batch_size=4")
        assert answer.code == 0, answer.message
        with output.open() as file:
            rows = list(csv.DictReader(file))
        assert [row["file"] for row in rows] == [f"{n}.png" for n in range(10)]
        assert [int(row["prediction"]) for row in rows] == shares.argmax(1).tolist()
        found = torch.tensor([[float(row[f"p({digit})"]) for digit in range(10)] for row in rows])
        assert torch.allclose(found, shares, atol=1e-5)
    assert main("predict", f"checkpoint={weights}", f"input={folder}", f"output={output}").code == 1  # it exists


def test_predictions_of_a_table(run, tmp_path):
    rows = np.random.default_rng(0).random((3, 64)).astype(np.float32)
    (tmp_path / "rows.csv").write_text(
        "\n".join([",".join(f"x{n}" for n in range(64)), *(",".join(map(str, row)) for row in rows)])
    )
    weights = run.folder / "checkpoints" / "last.safetensors"
    for suffix in ("parquet", "jsonl"):
        found = tt.predict(weights, tmp_path / "rows.csv", tmp_path / f"answers.{suffix}")
        assert found["row"] == [0, 1, 2]
        assert (tmp_path / f"answers.{suffix}").stat().st_size > 100
    (tmp_path / "short.csv").write_text("a,b\n1,2\n")
    with pytest.raises(tt.TutelageError, match="takes 64 numbers; found 2 columns, a, b"):
        tt.predict(weights, tmp_path / "short.csv")
    (tmp_path / "words.csv").write_text(",".join(f"x{n}" for n in range(64)) + "\n" + ",".join(["a"] * 64))
    with pytest.raises(tt.TutelageError, match="column 'x0' is 'a'; expected a finite number"):
        tt.predict(weights, tmp_path / "words.csv")


TIMM = """
import sys
sys.modules["tutelage"] = None
import numpy as np, timm, torch
net = timm.create_model("local-dir:" + sys.argv[1], pretrained=True).eval()
with torch.no_grad():
    np.save("found.npy", net(torch.linspace(-1, 1, 2 * 64 * 64).view(2, 1, 64, 64)).numpy())
print(net.pretrained_cfg["mean"], net.pretrained_cfg["label_names"])
"""


def test_a_student_of_timm_loads_with_timm_alone(tmp_path, untimed):
    done = tt.distill(
        "data=digits", "model@teacher=mlp", "model@student=timm", "student.net.name=resnet10t", "logger=none",
        "data.batch_size=400", "trainer.max_epochs=1", "stages.teacher.trainer.max_epochs=1",
        f"paths.outputs={tmp_path}", seed=0, folder=tmp_path / "run",
    )  # fmt: skip
    made = tt.export(done.folder / "checkpoints" / "last.safetensors", "safetensors")
    command = [sys.executable, "-c", TIMM, str(made.folder)]
    said = subprocess.run(command, check=True, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert "0.3053" in said.stdout
    with torch.no_grad():
        theirs = done.student(torch.linspace(-1, 1, 2 * 64 * 64).view(2, 1, 64, 64)).numpy()
    assert np.abs(np.load(tmp_path / "found.npy") - theirs).max() < 1e-6


TRANSFORMERS = """
import sys
sys.modules["tutelage"] = None
import numpy as np, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
net = AutoModelForSequenceClassification.from_pretrained(sys.argv[1]).eval()
ids = AutoTokenizer.from_pretrained(sys.argv[1])("a3 film good", return_tensors="pt")
with torch.no_grad():
    np.save("found.npy", net(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"]).logits.numpy())
print(net.config.id2label)
"""


def test_a_student_of_transformers_loads_with_transformers_alone(tmp_path, untimed):
    rows = [
        f"a{number} film {'good' if number % 2 else 'bad'}\t{'yes' if number % 2 else 'no'}" for number in range(60)
    ]
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *rows]))
    bert = "{model_type: bert, num_hidden_layers: 1, hidden_size: 8, num_attention_heads: 1, intermediate_size: 8}"
    done = tt.distill(
        "data=text", f"data.train={tmp_path}/rows.tsv", "model@teacher=text_cnn", "model@student=hf", "logger=none",
        f"student.config={bert}", "trainer.max_epochs=1", f"paths.outputs={tmp_path}", seed=0, folder=tmp_path / "run",
    )  # fmt: skip
    weights = done.folder / "checkpoints" / "last.safetensors"
    made = tt.export(weights, "safetensors")
    assert "transformers.AutoModelForSequenceClassification.from_pretrained" in (made.folder / "README.md").read_text()
    command = [sys.executable, "-c", TRANSFORMERS, str(made.folder)]
    said = subprocess.run(command, check=True, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert "{0: 'no', 1: 'yes'}" in said.stdout
    (tmp_path / "one.txt").write_text("a3 film good\n")
    ours = tt.predict(made.folder, tmp_path / "one.txt")
    theirs = torch.from_numpy(np.load(tmp_path / "found.npy")).softmax(1)[0]
    assert [ours["p(no)"][0], ours["p(yes)"][0]] == pytest.approx(theirs.tolist(), abs=1e-6)
