"""Texts from the command line: pairs of transformers, students cut from their teacher's layers."""

import json
import signal

import pytest
import torch
from command import tutelage
from runs import weights

from tutelage.checkpoints.weights import read_state

pytestmark = pytest.mark.long

TEXT = [
    "data=dataset", "data.train={_target_: own_text.Sentences}", "data.test={_target_: own_text.Sentences, seed: 1}",
    "data.batch_size=32", "data.val_size=64", "trainer.log_every_n_steps=2",
]  # fmt: skip
PAIR = [
    f"{role}.net.{size}"
    for role, layers in (("teacher", 4), ("student", 2))
    for size in ("width=16", "heads=2", f"layers={layers}", "length=9")
]
TRANSFORMERS = ["model@teacher=text_transformer", "model@student=text_transformer", *PAIR]


def run(cli, tmp_path, *more):
    cli("distill", *TEXT, *more, f"hydra.run.dir={tmp_path}/run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    folders = json.loads((tmp_path / "run" / "artifacts.json").read_text())
    return metrics, {role: tmp_path / entry["folder"] for role, entry in folders.items()}


def test_student_and_control_start_from_layers_of_the_trained_teacher(cli, tmp_path):
    cut = [*TRANSFORMERS, "trainer.max_epochs=1", "student.init={layers: [0, 3], from: teacher}"]
    still = ["stages.student.optimizer.lr=1e-30", "loss.alpha=0.5"]  # so that what is saved is what it began with
    _, found = run(cli, tmp_path, *cut, *still)
    teacher = read_state(found["teacher"] / "last.safetensors")
    for role in ("student", "control"):
        for name, tensor in read_state(found[role] / "last.safetensors").items():
            theirs = name.replace("layers.1.", "layers.3.")
            torch.testing.assert_close(tensor, teacher[theirs], rtol=0, atol=1e-12, msg=f"{role} {name}")
    assert json.loads((found["control"] / "recipe.json").read_text())["start"]


def test_a_student_that_does_not_fit_is_refused_before_the_teacher_is_trained(cli, tmp_path):
    done = cli("distill", *TEXT, *TRANSFORMERS, "student.init={layers: [0, 4], from: teacher}", check=False)
    assert done.returncode != 0
    assert "sources.teacher has 4 layers" in done.stderr
    assert not list(tmp_path.rglob("*.safetensors"))


LOSSES = {
    "text/distilbert": [],
    "text/pkd": [],
    "text/tinybert": ["stages.student.phases.intermediate.trainer.max_epochs=2"],
    "text/tinybert authors": ["loss.padding=true", "loss.projection=layer"],
    "text/minilm": [],
    "text/minilmv2": ["loss.heads=4"],
    "text/bilstm": ["model@student=bilstm"],
    "soft_target": ["model@student=text_cnn"],
    "dkd": [],
    "[soft_target,text/minilm]": ["loss.alpha=0.5"],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_on_text_trains_a_pair(main, tmp_path, loss):
    chosen = [one for one in LOSSES[loss] if one.startswith("model")]
    pair = [one for one in TRANSFORMERS if not (chosen and ("student.net" in one or "model@student" in one))]
    own = [one for one in LOSSES[loss] if one not in chosen]
    done = main("distill", *TEXT, *pair, *chosen, "trainer.max_epochs=2", *own, f"loss={loss.split()[0]}",
                f"hydra.run.dir={tmp_path}/run", "logger=none", "+trainer.limit_train_batches=3")  # fmt: skip
    assert done.code == 0, done.message
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["student"]["last"]["test"]["accuracy"] > 0


def test_alpha_0_is_the_control_to_the_bit(cli, tmp_path):
    alone = ["loss=text/minilm", "loss.alpha=0", "trainer.max_epochs=1", "student.init={layers: [0, 3], from: teacher}"]
    _, found = run(cli, tmp_path, *TRANSFORMERS, *alone)
    student, control = (read_state(found[role] / "last.safetensors") for role in ("student", "control"))
    assert all(torch.equal(student[name], control[name]) for name in control)


def test_killed_in_control_and_student_a_text_job_ends_in_the_same_bits(cli, tmp_path, tmp_path_factory):
    job = ["distill", *TEXT, *TRANSFORMERS, "trainer.max_epochs=3", "loss=text/minilm", "logger=none",
           "student.init={layers: [0, 3], from: teacher}", "callbacks.recovery.every_n_steps=2", "hydra.run.dir=run",
           "paths.artifacts=shop"]  # fmt: skip
    whole = tmp_path_factory.mktemp("whole")
    tutelage(*job, cwd=whole)
    strike = "+callbacks.{0}={{_target_: faults.KillAt, stage: {0}, step: {1}, marker: {2}}}"
    harm = [strike.format(stage, step, tmp_path / stage) for stage, step in {"control": 9, "student": 8}.items()]
    for _ in range(2):
        assert cli(*job, *harm, check=False).returncode == -signal.SIGKILL
    cli(*job, *harm)
    assert weights(tmp_path / "run", tmp_path / "shop") == weights(whole / "run", whole / "shop")
