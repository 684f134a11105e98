"""Settings of a single stage, and its number of threads."""

import pytest
import torch

from tutelage.checkpoints.weights import save_network
from tutelage.config import factory
from tutelage.evaluation.predictions import predict
from tutelage.evaluation.results import WEIGHTS, Trained
from tutelage.pipeline import fit
from tutelage.runtime import distributed, manifest
from tutelage.training.callbacks.best import BestLostError


def test_what_a_stage_lays_over_a_group_replaces_by_name_and_leaves_the_rest(compose):
    cfg = compose(
        "+stages.teacher.callbacks.limit={_target_: my.Limit, norm: 3}", "+stages.teacher.callbacks.recovery.keep=3",
        "+stages.teacher.callbacks.best={_target_: my.Best}", "stages.teacher.trainer.max_epochs=60",
        "+stages.teacher.trainer.strategy={_target_: my.Strategy}",
    )  # fmt: skip
    teacher, student = factory.stage_config(cfg, "teacher"), factory.stage_config(cfg, "student")
    assert teacher.callbacks == {
        **student.callbacks,
        "limit": {"_target_": "my.Limit", "norm": 3},
        "recovery": {**student.callbacks.recovery, "keep": 3},
        "best": {"_target_": "my.Best"},
    }
    assert teacher.trainer == {**student.trainer, "max_epochs": 60, "strategy": {"_target_": "my.Strategy"}}


def test_who_learns_alone_reads_no_teacher_whatever_the_weight(compose):
    cfg = compose(
        "loss.terms.soft.weight=5",
        "+loss.terms.own={_target_: tutelage.objective.Term, loss: {_target_: my.Own}, inputs: {x: student.logits}}",
    )  # fmt: skip
    found = {name: set(factory.stage_config(cfg, name).loss.terms) for name in ("teacher", "control", "student")}
    assert found == {"teacher": {"hard", "own"}, "control": {"hard", "own"}, "student": {"hard", "soft", "own"}}


@pytest.mark.parametrize(("batch_size", "threads"), [(4, 1), (512, 2)])
def test_a_batch_of_little_work_is_not_shared(compose, monkeypatch, batch_size, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    stage = factory.stage_config(compose("model@student=cnn_wide", f"data.batch_size={batch_size}"), "control")
    data = factory.data(stage)
    learner = factory.supervised_module(stage, "control", data, None)
    try:
        with fit.threads(learner, data):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with fit.threads(learner, data):
            assert torch.get_num_threads() == 2  # the user's word
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["step=00000003-abc.ckpt", None])
def test_each_rank_goes_on_from_the_state_that_rank_0_found_by_its_own_path(tmp_path, monkeypatch, name):
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    monkeypatch.setattr(distributed, "broadcast", lambda value: name)
    assert fit._state_to_go_on_from(tmp_path) == (name and tmp_path / name)


@pytest.mark.parametrize(
    ("device", "batch", "model", "warned"),
    [("cuda", 64, "mlp", True), ("cpu", 64, "mlp", False), ("cuda", 512, "resnet20", False)],
)
def test_a_gpu_with_small_steps_suggests_the_cpu(compose, caplog, device, batch, model, warned):
    cfg = compose(f"model@teacher={model}", f"model@student={model}", f"data.batch_size={batch}")
    stage = factory.stage_config(cfg, "control")
    data = factory.data(stage)
    learner = factory.supervised_module(stage, "control", data, None)
    fit.warn_of_small_steps(learner, data, torch.device(device), "control")
    assert ("control: a step of" in caplog.text) == warned
    assert ("trainer.accelerator=cpu" in caplog.text) == warned


@pytest.mark.parametrize(("work", "small", "alone"), [(1e7 - 1, True, True), (1e7, False, True), (2e7, False, False)])
def test_the_bounds_of_little_work(monkeypatch, caplog, work, small, alone):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(fit, "_networks", lambda learner: [])
    monkeypatch.setattr(fit, "_work", lambda nets, data: work)
    fit.warn_of_small_steps(None, None, torch.device("cuda"), "control")
    assert ("is too small for a GPU" in caplog.text) == small
    found = []
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    with fit.threads(None, None):
        assert found == [1] * alone
    assert found == [*[1] * alone, 5]


@pytest.mark.parametrize("is_main", [True, False])
def test_without_its_best_weights_a_training_begins_anew_without_older_states(compose, tmp_path, monkeypatch, is_main):
    stage = factory.stage_config(compose("logger=none"), "student")
    states, seen = tmp_path / "states", []
    (states / "old").mkdir(parents=True)

    def train(*given):
        seen.append(states.exists())
        if len(seen) == 1:
            raise BestLostError("lost")

    monkeypatch.setattr(fit, "_train", train)
    monkeypatch.setattr(fit, "keep_newest", lambda folder, count: None)
    monkeypatch.setattr(distributed, "is_main", lambda: is_main)
    fit.run(stage, "student", tmp_path, tmp_path, factory.data(stage), lambda: None)
    assert seen == [True, not is_main]  # rank 0 removes them


def test_predictions_and_epochs_are_those_of_the_weights_that_they_are_said_to_be_of(compose, tmp_path):
    """The best epoch is the first of three here, and its weights answer otherwise than the last ones."""
    stage = factory.stage_config(compose("model@student=mlp", "student.net.widths=[8]"), "control")
    data, device = factory.data(stage), torch.device("cpu")
    expected = {}
    for seed, (weights, epoch) in enumerate({"last": 2, "best": 0}.items()):
        net = factory.network(stage.student, seed).net
        save_network(net, tmp_path / f"{weights}.safetensors", {"epoch": epoch})
        expected[weights] = {split: predict(net, data.whole(split), device).logits for split in ("val", "test")}
    net = factory.network(stage.student, 7).net
    fit.finish(net, tmp_path, data, factory.task(stage, data), device, {"seconds": 1.0, "epochs": 3, "steps": 9})
    found = Trained.read(tmp_path, reused=False)
    assert found.facts["epoch"] == {"last": 2, "best": 0}
    for weights in WEIGHTS:
        for split, logits in expected[weights].items():
            torch.testing.assert_close(found.predictions[weights, split].logits, logits, rtol=0, atol=0)
    assert not torch.equal(expected["last"]["val"], expected["best"]["val"])


@pytest.mark.parametrize(
    ("what", "finished", "left"),
    [
        ("whole", True, {"recipe.json", "stage.json", "manifest.json"}),
        ("trained for less", False, {"recipe.json", "stage.json"}),
        ("without a manifest", False, {"recipe.json", "stage.json"}),
        ("damaged", False, {"recipe.json"}),
        ("damaged, no recipe", False, set()),
    ],
)
def test_a_folder_is_finished_if_it_is_whole_and_long_enough(tmp_path, what, finished, left):
    """A damaged one is set aside, and its recipe stays: it says what is made anew."""
    folder = tmp_path / "control"
    folder.mkdir()
    for name in ("recipe.json", "stage.json"):
        (folder / name).write_text('{"max_epochs": 3}')
    if what == "damaged, no recipe":
        (folder / "recipe.json").unlink()
    if what != "without a manifest":
        manifest.write(folder)
    (folder / "half.json.tmp").touch()
    if what.startswith("damaged"):
        (folder / "stage.json").write_text('{"max_epochs": 4}')
    assert fit._is_finished(folder, 4 if what == "trained for less" else 3) == finished
    assert (folder.is_dir() and {path.name for path in folder.glob("*.json")}) == (left or False)
    assert (tmp_path / "control.damaged-1").exists() == what.startswith("damaged")
