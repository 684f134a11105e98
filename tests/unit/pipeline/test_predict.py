"""Predictions: pairs and single texts are told apart, names of columns are kept, an input is not written over."""

import json
import shutil

import pytest
from hydra.utils import instantiate
from texts import glue, tsv

import tutelage as tt
from tutelage.checkpoints.header import recorded_digest
from tutelage.checkpoints.weights import save_network
from tutelage.data.text.files import TextFiles
from tutelage.data.text.glue import Glue
from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.models.text_cnn import TextCNN
from tutelage.pipeline.described import description, files_beside
from tutelage.runtime import manifest

pytest.importorskip("tokenizers")


@pytest.fixture
def table(tmp_path):
    rows = [(f"good {i}", f"bad {i}", i % 2) for i in range(40)]
    return tsv(tmp_path / "a.tsv", rows, ("text", "second", "label"))


def saved(tmp_path, table, pair):
    """Returns a file of weights of a small network of texts."""
    given = {"train": str(table), "pair": pair, "max_length": 16, "batch_size": 8, "seed": 0}
    size = TextFiles(**given).vocab_size
    inner = f"{TextCNN.__module__}.{TextCNN.__name__}"
    header = {
        "network": {
            "_target_": f"{Tapped.__module__}.{Tapped.__name__}", "reads": {"input": "input"},
            "net": {"_target_": inner, "vocab_size": size, "num_classes": 2},
        },
        "data": {"_target_": f"{TextFiles.__module__}.{TextFiles.__name__}", "num_outputs": 2, **given},
    }  # fmt: skip
    save_network(Tapped(TextCNN(size, 2)), file := tmp_path / "a.safetensors", header)
    return file


@pytest.mark.parametrize("pair", [None, "second"])
def test_single_texts_and_pairs_are_not_taken_for_each_other(tmp_path, table, pair):
    file = saved(tmp_path, table, pair)
    assert len(tt.predict(file, table, **({"pair": pair} if pair else {}))["prediction"]) == 40
    said = (
        r"pair=… is needed: .* \(in training 'second'\)" if pair else "pair=second: the network was trained on single"
    )
    with pytest.raises(TutelageError, match=said):
        tt.predict(file, table, **({} if pair else {"pair": "second"}))


def test_an_export_of_earlier_weights_is_warned_of(tmp_path, table, caplog):
    file = saved(tmp_path, table, None)
    (folder := tmp_path / "export").mkdir()
    shutil.copy(file, folder / "model.safetensors")
    for weights, checkpoint, warned in [
        (recorded_digest(file), file, False),
        ("other", file, True),
        ("other", tmp_path / "moved.safetensors", False),
    ]:
        (folder / "export.json").write_text(json.dumps({"weights": weights, "checkpoint": str(checkpoint)}))
        manifest.write(folder, ["export.json", "model.safetensors"])
        caplog.clear()
        assert len(tt.predict(folder, table)["prediction"]) == 40
        assert (f"{folder} is an export of earlier weights: {file} was written since" in caplog.text) == warned


def test_a_task_of_glue_with_pairs_has_a_second_text():
    assert description({"data": {"task": "mrpc"}})["pair"] == "#2 String"
    assert description({"data": {"task": "cola"}})["pair"] is None


def test_a_tokenizer_beside_a_network_of_pairs_gives_their_segments(tmp_path):
    transformers = pytest.importorskip("transformers")
    data = Glue(root=glue(tmp_path), task="mrpc", batch_size=8, seed=0)
    for fields, wanted in ((["input", "mask", "segment"], True), (["input", "mask"], False)):
        beside = files_beside({}, data, fields)
        for name, content in beside.items():
            (tmp_path / name).write_text(content)
        found = transformers.AutoTokenizer.from_pretrained(tmp_path)("first 1", "second 1")
        assert ("token_type_ids" in found) == wanted
        if wanted:
            assert sum(found["token_type_ids"]) > 0
        assert json.loads(beside["tokenizer_config.json"])["model_max_length"] == 128


def test_a_program_of_torch_export_is_said_to_be_one(tmp_path, table):
    (file := tmp_path / "model.pt2").write_bytes(b"PK")
    with pytest.raises(TutelageError, match=r"model\.pt2 is a program of torch\.export, which PyTorch runs by itself"):
        tt.predict(file, table)


def test_the_input_is_not_written_over_under_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (path := tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "link.csv").symlink_to(path)
    for other in (path, "link.csv", "../" + tmp_path.name + "/a.csv"):
        with pytest.raises(TutelageError, match=r"output=.*\.csv is the input: choose another name"):
            tt.predict("none.safetensors", path, other, overwrite=True)
    assert path.read_text() == "a\n1\n"


def test_a_table_in_another_order_than_in_training_is_answered_the_same(tmp_path, compose):
    data = instantiate(compose("data=diabetes").data)
    data.setup()
    assert data.known_names["input_names"][:3] == ["age", "sex", "bmi"]
    node = {"_target_": "torch.nn.Linear", "in_features": 10, "out_features": 1}
    header = {
        "network": {"_target_": f"{Tapped.__module__}.{Tapped.__name__}", "net": node, "reads": {"input": "input"}},
        "data": {"input_shape": [10], "num_outputs": 1}, **data.known_names,
        "task": {"_target_": "tutelage.tasks.regression.Regression"},
    }  # fmt: skip
    save_network(Tapped(instantiate(node)), file := tmp_path / "a.safetensors", header)
    names = data.known_names["input_names"]
    answers = []
    for order in (names, names[::-1]):
        values = {name: names.index(name) / 10 for name in order}
        (tmp_path / "a.jsonl").write_text(json.dumps(values))
        answers.append(tt.predict(file, tmp_path / "a.jsonl"))
    assert len(answers[0]) == 2
    assert answers[0] == answers[1]


@pytest.mark.parametrize("words", ["predict checkpoint=none input=a.csv output=a.csv", "export", "evaluate", "budget"])
def test_bad_input_leaves_no_folder_but_one_s_own(main, tmp_path, words):
    answer = main(*words.split())
    assert answer.code == 1
    assert "Traceback" not in answer.message
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").touch()
    assert main(*words.split(), "hydra.run.dir=mine").code == 1
    assert (tmp_path / "mine/notes.txt").is_file()
    assert json.loads((tmp_path / "mine/status.json").read_text())["state"] == "FAILED"
