"""Settings of a single stage, and its number of threads."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from tutelage.config import factory
from tutelage.errors import TutelageError
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


@pytest.mark.parametrize(("is_main", "begun"), [(True, True), (False, True), (True, False)])
def test_without_its_best_weights_a_training_begins_anew_without_older_states(
    compose, tmp_path, monkeypatch, is_main, begun
):
    stage = factory.stage_config(compose("logger=none"), "student")
    states, seen = tmp_path / "states", []
    if begun:
        (states / "old").mkdir(parents=True)

    def train(*given):
        seen.append(states.exists())
        if len(seen) == 1:
            raise BestLostError("lost")

    monkeypatch.setattr(fit, "_train", train)
    monkeypatch.setattr(fit, "keep_newest", lambda folder, count: None)
    monkeypatch.setattr(distributed, "is_main", lambda: is_main)
    fit.run(stage, "student", tmp_path, tmp_path, factory.data(stage), lambda: None)
    assert seen == [begun, not is_main]  # rank 0 removes them


@pytest.mark.parametrize(
    ("name", "recovery", "kept"),
    [("student", {}, 1), ("student", {"extendable": False}, 0), ("teacher", {"extendable": True}, 0)],
)
@pytest.mark.parametrize("states", [0, 2])
def test_of_a_finished_student_alone_the_last_state_stays(tmp_path, monkeypatch, name, recovery, kept, states):
    """Of artifacts none, which have one length."""
    monkeypatch.setattr(fit, "_is_finished", lambda folder, epochs: True)
    for step in range(states):
        (tmp_path / "states").mkdir(exist_ok=True)
        torch.save({}, tmp_path / "states" / f"step={step:08d}.ckpt")
    stage = OmegaConf.create({"callbacks": {"recovery": recovery}, "trainer": {"max_epochs": 3}})
    for is_main in (False, True):
        monkeypatch.setattr(distributed, "is_main", lambda own=is_main: own)
        assert len([*tmp_path.glob("states/*.ckpt")]) == states
        fit.run(stage, name, tmp_path, tmp_path, None, None)
    assert len([*tmp_path.glob("states/*.ckpt")]) == min(kept, states)


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """``trained(steps, graph, is_main, best)`` → what a training calls, of which nothing is done."""

    def run(steps=1, graph="never", is_main=True, best=True):
        calls = []
        trainer = SimpleNamespace(
            strategy=SimpleNamespace(root_device="cpu"), loggers=[], callbacks=[], global_step=steps,
            fit=lambda learner, **how: calls.append(("fit", how["ckpt_path"], how["weights_only"])),
        )  # fmt: skip
        learner = SimpleNamespace(about={"seed": 1}, sources=dict)
        data = SimpleNamespace(known_names={"classes": ["a"]}, train_dataloader=list)
        for module, what in ((fit.factory, "trainer"), (fit.loggers, "place"), (fit, "_state_to_go_on_from")):
            made = {"trainer": trainer, "place": None, "_state_to_go_on_from": "newest"}[what]
            monkeypatch.setattr(module, what, lambda *_, made=made: made)
        for module, what in ((fit, "threads"), (fit, "compiled"), (fit.loggers, "training")):
            monkeypatch.setattr(module, what, lambda *_: nullcontext())
        monkeypatch.setattr(fit, "warn_of_small_steps", lambda *_: calls.append("warned"))
        monkeypatch.setattr(fit, "_finish", lambda *_: calls.append("finished"))
        monkeypatch.setattr(distributed, "is_main", lambda: is_main)
        if best:
            (tmp_path / "best.safetensors").touch()
        stage = OmegaConf.create({"graph": graph, "compile": False})
        fit._train(stage, "control", tmp_path, tmp_path, data, learner)
        assert learner.about == {"seed": 1, "classes": ["a"]}
        return calls

    return run


def test_a_training_goes_on_from_plain_tensors_and_is_finished_by_rank_0(trained):
    goes_on = ("fit", "newest", True)
    assert trained() == ["warned", goes_on, "finished"]
    assert trained(graph="auto") == [goes_on, "finished"]  # steps are replayed
    assert trained(is_main=False) == ["warned", goes_on]


def test_a_training_without_a_step_or_without_validation_is_refused(trained):
    with pytest.raises(TutelageError, match="control: no optimizer step was made"):
        trained(steps=0, best=False)
    with pytest.raises(TutelageError, match="control: validation never ran"):
        trained(best=False)


def test_the_stages_of_a_plan_are_tried_by_name_and_with_as_many_batches_as_are_known(monkeypatch):
    tried = []
    data = SimpleNamespace(train_dataloader=lambda: range(7), val_dataloader=lambda: range(3))
    plan = SimpleNamespace(
        phases={"hints": SimpleNamespace(data="mine", trainer="fourth", callbacks=None)},
        stages={"teacher": SimpleNamespace(data="another", trainer="first", callbacks=None)},
        student=SimpleNamespace(data="mine", trainer="second", callbacks=None),
        control=SimpleNamespace(data="mine", trainer="third", callbacks=None),
    )  # fmt: skip
    monkeypatch.setattr(fit, "training_data", lambda stage, own: own)
    monkeypatch.setattr(fit.optimizers, "try_optimizer", lambda stage, name, known: tried.append((name, known)))
    monkeypatch.setattr(fit, "check_lengths", lambda trainer, name, train, val, _: tried.append((trainer, train, val)))
    monkeypatch.setattr(fit.factory, "try_trainer", lambda stage: tried.append(stage.trainer))
    fit.check_stages(plan, data)
    assert tried == [
        ("teacher", None), "first",
        ("student, phase hints,", 7), ("fourth", 7, 3), "fourth",
        ("student", 7), ("second", 7, 3), "second",
        ("control", 7), ("third", 7, 3), "third",
    ]  # fmt: skip


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
