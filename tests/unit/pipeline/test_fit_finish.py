"""The folder of a training that has ended: weights, predictions and facts."""

from types import SimpleNamespace

import pytest
import torch

from tutelage.checkpoints.weights import save_network
from tutelage.config import factory
from tutelage.evaluation.cost import multiply_adds
from tutelage.evaluation.predictions import predict
from tutelage.evaluation.results import WEIGHTS, Trained
from tutelage.pipeline import fit
from tutelage.training.callbacks.recovery import Recovery


@pytest.mark.parametrize("average", [None, "average"])
@pytest.mark.parametrize("teaching", [{}, {"teacher": "theirs"}])
@pytest.mark.parametrize("keeps", [True, False])
def test_a_student_and_the_networks_beside_it_are_saved_and_measured(tmp_path, monkeypatch, average, teaching, keeps):
    saved, finished = {}, {}
    monkeypatch.setattr(fit, "deployed", lambda net: net)
    monkeypatch.setattr(fit, "save_network", lambda net, path, about: saved.update({str(path): (net, about)}))
    monkeypatch.setattr(fit, "finish", lambda net, folder, *more: finished.update({str(folder): (net, *more)}))
    learner = SimpleNamespace(
        trained_beside=lambda: {"peers/0": SimpleNamespace(net="peer")}, about={"seed": 1}, written="student",
        about_beside=lambda folder: {"stage": folder}, average=average, teaching=teaching,
        task=SimpleNamespace(keeps_logits=keeps), student=SimpleNamespace(net=SimpleNamespace(net="raw")),
        teacher_on_validation=lambda: "theirs",
    )  # fmt: skip
    monkeypatch.setattr(Recovery, "seconds", 2.5)
    trainer = SimpleNamespace(
        callbacks=[Recovery()], current_epoch=3, max_epochs=4, global_step=9,
        strategy=SimpleNamespace(root_device="cpu"),
    )  # fmt: skip
    fit._finish(learner, trainer, tmp_path, "data", {"multiply_adds": 5})
    facts = {"multiply_adds": 5, "seconds": 2.5, "epochs": 3, "max_epochs": 4, "steps": 9}
    assert saved == {
        f"{tmp_path}/peers/0/last.safetensors": ("peer", {"stage": "peers/0", "epoch": 2}),
        f"{tmp_path}/last.safetensors": ("student", {"seed": 1, "epoch": 2}),
        **({f"{tmp_path}/raw.safetensors": ("raw", {"seed": 1, "epoch": 2})} if average else {}),
    }
    compared = "theirs" if teaching and not keeps else None  # stored logits are compared later
    assert finished == {
        f"{tmp_path}/peers/0": ("peer", "data", learner.task, "cpu", facts),
        f"{tmp_path}": ("student", "data", learner.task, "cpu", {**facts, "gradient_norms": {}}, compared),
    }


def test_predictions_and_epochs_are_those_of_the_weights_that_they_are_said_to_be_of(compose, tmp_path, monkeypatch):
    """The best epoch is the first of three here, and its weights answer otherwise than the last ones."""
    stage = factory.stage_config(compose("model@student=mlp", "student.net.widths=[8]"), "control")
    data, device = factory.data(stage), torch.device("cpu")
    expected = {}
    for seed, (weights, epoch) in enumerate({"last": 2, "best": 0}.items()):
        net = factory.network(stage.student, seed).net
        save_network(net, tmp_path / f"{weights}.safetensors", {"epoch": epoch})
        expected[weights] = {split: predict(net, data.whole(split), device).logits for split in ("val", "test")}
    net = factory.network(stage.student, 7).net
    asked, labelled = [], data.labelled
    monkeypatch.setattr(data, "labelled", lambda count: asked.append(count) or labelled(count))
    fit.finish(net, tmp_path, data, factory.task(stage, data), device, {"seconds": 1.0, "epochs": 3, "steps": 9})
    found = Trained.read(tmp_path, reused=False)
    assert found.facts["epoch"] == {"last": 2, "best": 0}
    assert found.facts["multiply_adds"] == multiply_adds(net, data.sample(1))
    assert asked == [10_000]  # of the training examples
    for weights in WEIGHTS:
        for split, logits in expected[weights].items():
            torch.testing.assert_close(found.predictions[weights, split].logits, logits, rtol=0, atol=0)
    assert not torch.equal(expected["last"]["val"], expected["best"]["val"])


def test_weights_that_are_both_last_and_best_are_measured_once(compose, tmp_path, monkeypatch):
    stage = factory.stage_config(compose("model@student=mlp", "student.net.widths=[8]"), "control")
    data, net, measured = factory.data(stage), factory.network(stage.student, 0).net, []
    for weights in WEIGHTS:
        save_network(net, tmp_path / f"{weights}.safetensors", {"epoch": 2})
    measure = fit.measure
    monkeypatch.setattr(fit, "measure", lambda *given: measured.append(1) or measure(*given))
    fit.finish(net, tmp_path, data, factory.task(stage, data), torch.device("cpu"), {"steps": 9, "multiply_adds": 3})
    assert len(measured) == 3  # validation, test and training examples
    found = Trained.read(tmp_path, reused=False)
    assert found.facts["multiply_adds"] == 3  # counted before, as of shards it can't be
    for split in ("val", "test"):
        assert torch.equal(found.predictions["last", split].logits, found.predictions["best", split].logits)


@pytest.mark.parametrize("metrics", [{}, {"mae": "lower"}])
def test_figures_are_stored_of_tasks_that_name_them_and_the_teacher_s_answers_compared_but_for_training(
    compose, tmp_path, monkeypatch, metrics
):
    stage = factory.stage_config(compose("model@student=mlp", "student.net.widths=[8]"), "control")
    data, net, written, compared = factory.data(stage), factory.network(stage.student, 0).net, [], []
    save_network(net, tmp_path / "last.safetensors", {"epoch": 2})

    def measure(net, loader, device, task, teacher):
        compared.append(teacher)
        return f"predictions {len(compared)}", {"mae": float(len(compared))}

    monkeypatch.setattr(fit, "measure", measure)
    monkeypatch.setattr(fit, "write_results", lambda folder, predictions, facts: written.append((predictions, facts)))
    teacher = SimpleNamespace(to=lambda device, dtype: ("teacher", str(device), dtype))
    fit.finish(net, tmp_path, data, SimpleNamespace(metrics=metrics), torch.device("cpu"), {"steps": 9}, teacher)
    assert compared == [("teacher", "cpu", torch.float32)] * 2 + [None]
    splits = ("val", "test", "train")
    [(predictions, facts)] = written
    assert predictions == {("last", split): f"predictions {n}" for n, split in enumerate(splits, 1)}
    own = {f"last.{split}": {"mae": float(n)} for n, split in enumerate(splits, 1)}
    assert facts.get("metrics") == (own if metrics else None)
    assert (facts["steps"], facts["epoch"]) == (9, {"last": 2})
