"""``tutelage condense`` and ``data.made``: images of an artifact in place of a training set."""

import json
import re
import signal
import subprocess
import sys

import pytest
import torch
from command import environment
from safetensors.torch import load_file

pytestmark = pytest.mark.slow

QUICK = ("data=digits", "condense.per_class=2", "condense.targets=200", "condense.save_every=4")
TRAIN = (
    "model@teacher=mlp", "model@student=mlp", "teacher.net.widths=[16]", "student.net.widths=[8]",
    "trainer.max_epochs=2", "data.batch_size=20", "data.repeat_labelled=20", "logger=none", "callbacks.progress=null",
)  # fmt: skip
DIES = """import os, signal
from tutelage.condense import images
write = images.write_atomically
def then_die(*given):
    write(*given)
    os.kill(os.getpid(), signal.SIGKILL)
images.write_atomically = then_die
from tutelage.cli.main import main
main()
"""
LINK = "outputs/artifacts/images/digits-kip-2"


@pytest.fixture
def made(main, tmp_path):
    answer = main("condense", *QUICK, "condense.steps=12", "hydra.run.dir=first")
    assert answer.code == 0, answer.message
    return tmp_path / LINK


@pytest.mark.long
def test_a_student_trains_on_the_images_and_is_measured_on_the_real_ones(main, made, tmp_path):
    found = load_file(made / "images.safetensors")
    assert found["input"].shape == (20, 1, 8, 8)
    assert found["label"].bincount().tolist() == [2] * 10
    figures = json.loads((tmp_path / "first" / "metrics.json").read_text())["figures"]
    assert figures["condensed"] > figures["real"] > 0.3
    assert not (made / "state.pt").exists()

    again = main("condense", *QUICK, "condense.steps=12", "hydra.run.dir=again")
    assert "reused images" in again.out + again.message
    assert json.loads((tmp_path / "again" / "metrics.json").read_text())["figures"] == figures
    assert len([path for path in made.parent.iterdir() if len(path.name) == 20]) == 1

    answer = main("distill", *TRAIN, f"data.made={made}", "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    document = json.loads((tmp_path / "run" / "metrics.json").read_text())
    saved = load_file(tmp_path / "run" / "checkpoints" / "predictions.safetensors")
    assert torch.equal(saved["last.train.label"], found["label"])
    assert len(saved["last.test.label"]) == 597
    assert document["teacher"]["last"]["test"]["accuracy"] > document["student"]["last"]["test"]["accuracy"]


@pytest.mark.long
def test_a_condensation_that_was_killed_ends_in_the_same_bytes(main, made, tmp_path):
    (tmp_path / "dies.py").write_text(DIES)
    place = ("paths.outputs=other", "condense.steps=12")
    command = [sys.executable, "dies.py", "condense", *QUICK, *place]
    assert subprocess.run(command, cwd=tmp_path, env=environment()).returncode == -signal.SIGKILL
    [work] = (tmp_path / "other" / "artifacts" / "images").glob(".*.work")
    assert torch.load(work / "state.pt", weights_only=True)["step"] == 4
    assert main("condense", *QUICK, *place).code == 0
    resumed = tmp_path / "other" / "artifacts" / "images" / made.name / "images.safetensors"
    assert resumed.read_bytes() == (made / "images.safetensors").read_bytes()


INVERT = (
    "data=digits", "condense=deep_inversion", "condense.per_class=2", "condense.batch=10", "condense.steps=6",
    "condense.save_every=4",
)  # fmt: skip


@pytest.mark.long
def test_images_of_a_teacher_are_made_again_in_the_same_bytes_and_shown(main, tmp_path):
    nets = ("model@teacher=vgg4", *TRAIN[1:2], *TRAIN[3:-2], "data=digits")
    assert main("distill", *nets, "hydra.run.dir=first").code == 0
    [teacher] = (tmp_path / "outputs/artifacts/teacher").glob("*/last.safetensors")
    path = f"condense.teacher.path={teacher}"
    (tmp_path / "dies.py").write_text(DIES)
    command = [sys.executable, "dies.py", "condense", *INVERT, path]
    assert subprocess.run(command, cwd=tmp_path, env=environment()).returncode == -signal.SIGKILL
    answer = main("condense", *INVERT, path)
    assert answer.code == 0, answer.message
    assert "20 images" in answer.out
    other = ("paths.outputs=other", path)
    assert main("condense", *INVERT, *other).code == 0
    [one, two] = (tmp_path / name / "artifacts/images/digits-deep_inversion-2" for name in ("outputs", "other"))
    assert (one / "images.safetensors").read_bytes() == (two / "images.safetensors").read_bytes()

    shown = ("hydra.run.dir=run", "logger=tensorboard")
    assert main("distill", *nets, f"data.made={one}", "loss.alpha=1", *shown).code == 0
    assert (tmp_path / "run/checkpoints/generated.png").is_file()
    assert main("report", "run", "-o", "report").code == 0
    assert "Images that were made for the student" in (tmp_path / "report/index.html").read_text()

    recipe = json.loads((one / "recipe.json").read_text())
    assert recipe["condense"]["teacher"]["path"].startswith("sha256:")  # another teacher: other images


def test_a_teacher_is_needed_and_must_be_a_file_of_weights(main):
    for overrides, said in (
        ((), r"condense: condense\.teacher\.path=… is needed: a file of weights that `tutelage distill` wrote"),
        (("condense.teacher.path=nowhere.safetensors",), "nowhere.safetensors"),
    ):
        answer = main("condense", *INVERT, *overrides, "hydra.run.dir=no")
        assert answer.code != 0
        assert re.search(said, answer.message), answer.message
        assert "Traceback" not in answer.message


@pytest.mark.long
def test_experts_are_an_artifact_that_condensations_share(main, tmp_path):
    small = (
        "experts.count=2", "experts.epochs=2", "experts.width=4", "experts.depth=2", "experts.per_class=8",
        "per_class=1", "steps=2", "student_steps=2", "expert_epochs=1", "max_start=1", "rate_lr=1e-8",
    )  # fmt: skip
    quick = ("data=digits", "condense=mtt", *(f"condense.{one}" for one in small))
    first = main("condense", *quick, "hydra.run.dir=first")
    assert first.code == 0, first.message
    assert "learned with a rate of 0.0" in first.out
    figures = json.loads((tmp_path / "first" / "metrics.json").read_text())["figures"]
    assert figures["rate"] == pytest.approx(0.01, abs=1e-3)
    [experts] = [one for one in (tmp_path / "outputs/artifacts/trajectories").iterdir() if len(one.name) == 20]
    assert len(list(experts.glob("expert-*.safetensors"))) == 2
    second = main("condense", *quick, "seed=1", "hydra.run.dir=second")
    assert f"reused trajectories {experts.name}" in second.out + second.message
    assert load_file(tmp_path / "outputs/artifacts/images/digits-mtt-1/images.safetensors")["input"].shape[0] == 10


@pytest.mark.long
def test_what_does_not_fit_is_one_sentence(main, made, tmp_path):
    for overrides, said in (
        ([f"data.made={tmp_path}/nowhere"], "data.made: there is no folder .*nowhere; `tutelage condense` makes it"),
        ([f"data.made={made}", "data.labelled=5"], r"data\.made is the whole transfer set: .* with data\.labelled"),
        (["data=diabetes", f"data.made={made}"], "data.made takes the place of training images"),
    ):
        answer = main("distill", *TRAIN[:-4], "logger=none", *overrides, "hydra.run.dir=refused")
        assert answer.code != 0
        assert re.search(said, answer.message), answer.message
    for overrides, said in (
        (["condense.per_class=200"], r"condense\.per_class=200: class \d has \d+ labelled images"),
        (["condense.lr=-1"], r"condense\.lr must be above 0; found -1"),
        (["condense.stepz=3"], "stepz"),
        (["data=diabetes"], "condense needs images with one class each, .* data=diabetes is of task=regression"),
        (["condense=dc", "condense.per_class=2", "condense.outer=0"], r"condense\.outer must be a whole number"),
        (["name=a/b"], "name=a/b: expected a name for a link"),
        (["sed=1"], "sed"),
    ):
        base = ["data=digits", "condense.per_class=2", "condense.steps=1"]
        given = {one.partition("=")[0]: one for one in [*base, *overrides]}
        answer = main("condense", *given.values(), "hydra.run.dir=no")
        assert answer.code != 0
        assert re.search(said, answer.message), answer.message
    file = made / "images.safetensors"
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    answer = main("distill", *TRAIN, f"data.made={made}", "hydra.run.dir=damaged")
    assert "images.safetensors is damaged: its content is not what was written" in answer.message
