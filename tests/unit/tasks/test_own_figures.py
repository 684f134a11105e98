"""Figures on training images: of those that have a label, and compared on those that the teacher saw as well."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from tutelage.config import factory
from tutelage.evaluation.predictions import Predictions
from tutelage.evaluation.results import Trained, read_answers, write_results
from tutelage.runtime import manifest
from tutelage.tasks.metrics.classification import figures, figures_of_own
from tutelage.tasks.predictions import shared


def answers(keys, classes=3):
    keys = torch.tensor(keys)
    logits = torch.stack([torch.sin(keys * (c + 1.0)) for c in range(classes)], 1)  # a function of the key
    return Predictions(logits, keys % classes, keys)


def test_shared_examples_are_aligned_by_key():
    a, b = shared(answers([5, 2, 9, 7]), answers([7, 1, 5, 2]))
    assert a.key.tolist() == b.key.tolist() == [2, 5, 7]
    assert a.logits.tolist() == b.logits.tolist()
    assert a.logits.tolist() == answers([2, 5, 7]).logits.tolist()
    assert shared(answers([1]), answers([2])) is None


def test_own_figures_are_of_all_and_fidelity_is_of_both():
    own, teacher = answers([5, 2, 9, 7]), answers([7, 1, 5, 2])
    found = figures_of_own(own, teacher)
    assert found["count"] == 4
    assert (found["agreement"], found["kl_teacher"]) == (1.0, pytest.approx(0.0, abs=1e-12))
    assert {key: found[key] for key in figures(own)} == figures(own)
    assert "agreement" not in figures_of_own(own, answers([1, 3]))
    assert "agreement" not in figures_of_own(own)


@pytest.mark.parametrize(("labelled", "count"), [("null", 600), ("20", 20)])
def test_the_first_labelled_training_images(compose, labelled, count):
    data = factory.data(factory.stage_config(compose(f"data.labelled={labelled}"), "student"))
    batches = list(data.labelled(10_000))
    labels, keys = (torch.cat([batch[name] for batch in batches]) for name in ("label", "key"))
    assert len(labels) == count
    assert (labels >= 0).all()
    assert len(keys.unique()) == count
    [few] = data.labelled(7)
    assert torch.equal(few["key"], keys[:7])
    place = data.splits["train"].keys.tolist().index(int(keys[0]))
    assert torch.equal(few["input"][0], data.splits["train"][0, torch.tensor([place])]["input"][0])


def test_folders_made_before_there_were_such_figures_are_read(tmp_path):
    one = answers([0, 1, 2])
    said = {(kind, split): one for kind in ("last", "best") for split in ("val", "test", "train")}
    write_results(tmp_path, said, {"epochs": 1})
    assert set(Trained.read(tmp_path, reused=True).predictions) == set(said)
    path = tmp_path / "predictions.safetensors"
    save_file({name: x for name, x in load_file(path).items() if ".train." not in name}, path)
    manifest.write(tmp_path)
    assert set(Trained.read(tmp_path, reused=True).predictions) == {key for key in said if key[1] != "train"}
    assert read_answers(tmp_path, "last", "train") is None
