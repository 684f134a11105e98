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
LINK = "outputs/artifacts/images/digits-kip-2"


@pytest.fixture
def made(main, tmp_path):
    answer = main("condense", *QUICK, "condense.steps=12", "hydra.run.dir=first")
    assert answer.code == 0, answer.message
    return tmp_path / LINK


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
    script = "import os, signal\nfrom tutelage.condense import images\nwrite = images.write_atomically\n"
    script += "def then_die(*given):\n    write(*given)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    script += "images.write_atomically = then_die\nfrom tutelage.cli.main import main\nmain()\n"
    (tmp_path / "dies.py").write_text(script)
    place = ("paths.outputs=other", "condense.steps=12")
    command = [sys.executable, "dies.py", "condense", *QUICK, *place]
    assert subprocess.run(command, cwd=tmp_path, env=environment()).returncode == -signal.SIGKILL
    [work] = (tmp_path / "other" / "artifacts" / "images").glob(".*.work")
    assert torch.load(work / "state.pt", weights_only=True)["step"] == 4
    assert main("condense", *QUICK, *place).code == 0
    resumed = tmp_path / "other" / "artifacts" / "images" / made.name / "images.safetensors"
    assert resumed.read_bytes() == (made / "images.safetensors").read_bytes()


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
