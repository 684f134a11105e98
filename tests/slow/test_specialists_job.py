"""Specialists, and teachers that are trained at the same time, from the command line."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from command import TINY, environment
from runs import artifacts, figures, status, weights
from safetensors.torch import load_file

from tutelage.checkpoints.weights import digest, read_state
from tutelage.sources.specialists import combine_experts, membership

pytestmark = pytest.mark.slow

QUICK = ("logger=none", "callbacks.progress=null")
MINE = """
# @package _global_
stages:
  specialist: {trainer: {max_epochs: 2}, optimizer: {lr: 1e-4}, scheduler: {}}
sources:
  teacher:
    _target_: tutelage.sources.cached.Cached
    source:
      _target_: tutelage.sources.specialists.Specialists
      generalist: {_target_: tutelage.sources.frozen.Frozen, net: "${teacher}", checkpoint: null}
    folder: null
    dtype: float32
    top: null
    views: null
"""
GROUPS = "sources.teacher.groups=[[1, 8], [3, 5, 9]]"


def store(folder, kind):
    return artifacts(folder / "outputs" / "artifacts", kind)


def recipe(folder):
    return json.loads((folder / "recipe.json").read_text())


def timeless(folder):
    """The run's figures; of the generalist too without what a clock or the state of the shop says."""
    document = figures(folder)
    for entry in document.get("chain", {}).values():
        for key in ("seconds", "reused", "made"):
            del entry[key]
    return document


def said(folder, split):
    return load_file(folder / "predictions.safetensors")[f"last.{split}.logits"]


def test_specialists_start_from_the_generalist_and_teach_with_it(main, tmp_path):
    answer = main("distill", *TINY, *QUICK, "sources=specialists", GROUPS, "hydra.run.dir=run")
    assert answer.code == 0, answer.message
    [generalist], [whole], specialists = (store(tmp_path, kind) for kind in ("teacher", "specialists", "specialist"))
    specialists.sort(key=lambda folder: recipe(folder)["data"]["focus"])
    recipes = [recipe(folder) for folder in specialists]
    assert [one["data"]["focus"] for one in recipes] == [[1, 8], [3, 5, 9]]
    assert {one["start"] for one in recipes} == {digest(read_state(generalist / "last.safetensors"))}
    assert [one["loss"]["terms"]["dustbin"]["loss"]["share"] for one in recipes] == pytest.approx([0.2, 0.3], abs=0.03)
    for split in ("val", "test"):
        special = torch.stack([said(folder, split) for folder in specialists])
        expected, _ = combine_experts(said(generalist, split), special, membership([[1, 8], [3, 5, 9]], 10), 1)
        torch.testing.assert_close(said(whole, split), expected.float())
    metrics = figures(tmp_path / "run")
    assert metrics["chain"].keys() == {"generalist"}
    assert "Generalist" in answer.out
    assert "Last teacher" not in answer.out
    likely = said(generalist, "test").argmax(1)
    asked = [int(torch.isin(likely, torch.tensor(group)).sum()) for group in ([1, 8], [3, 5, 9])]
    assert [one["classes"] for one in metrics["specialists"]] == [[1, 8], [3, 5, 9]]
    assert [one["test"]["asked"] for one in metrics["specialists"]] == asked
    change = sum(one["test"]["errors"] - one["test"]["errors_generalist"] for one in metrics["specialists"])
    before, after = (entry["last"]["test"]["errors"] for entry in (metrics["chain"]["generalist"], metrics["teacher"]))
    assert after - before == change
    assert metrics["teacher"]["parameters"] == 3 * metrics["chain"]["generalist"]["parameters"]


@pytest.mark.long
def test_found_groups_are_cached_and_live_to_the_bit(main, tmp_path):
    """By itself, by sources=cached, and not at all."""
    base = ("distill", *TINY, *QUICK)
    assert main(*base, "sources=specialists", "sources.teacher.cache=false", "hydra.run.dir=live").code == 0
    assert not store(tmp_path, "signals")
    assert main(*base, "sources=specialists", "hydra.run.dir=own").code == 0
    (tmp_path / "mine" / "sources").mkdir(parents=True)
    (tmp_path / "mine" / "sources" / "mine.yaml").write_text(MINE)
    answer = main(*base, "sources=mine", "hydra.run.dir=asked", "--config-dir=mine")
    assert answer.code == 0, answer.message
    assert len(store(tmp_path, "specialists")) == 1
    for run in ("own", "asked"):
        assert weights(tmp_path / run) == weights(tmp_path / "live")
        assert timeless(tmp_path / run) == timeless(tmp_path / "live")


@pytest.mark.long
def test_a_specialist_that_was_killed_goes_on(cli, main, tmp_path):
    base = ("distill", *TINY, *QUICK, "sources=specialists", "sources.teacher.groups=[[1, 8]]")
    base = (*base, "callbacks.recovery.every_n_steps=3")
    assert main(*base, "hydra.run.dir=whole", "paths.artifacts=whole_shop").code == 0
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: specialist, step: 5, marker: {tmp_path / 'struck'}}}"
    struck = (*base, harm, "hydra.run.dir=run", "paths.artifacts=shop")
    assert cli(*struck, check=False).returncode == -signal.SIGKILL
    assert list((tmp_path / "shop" / "specialist").glob(".*.work/states/step=00000003*"))
    assert main(*struck).code == 0
    assert weights(tmp_path / "run", tmp_path / "shop") == weights(tmp_path / "whole", tmp_path / "whole_shop")


@pytest.mark.long
def test_two_ranks_train_specialists_too(cli, tmp_path):
    cli("distill", *TINY, *QUICK, "sources=specialists", "trainer=ddp", "trainer.accelerator=cpu", "hydra.run.dir=two")
    assert status(tmp_path / "two")["state"] == "COMPLETE"
    assert figures(tmp_path / "two")["specialists"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("sources.teacher.groups=[[0, 12]]",), "classes of 0 to 9, some but not all; found [0, 12]"),
        (("sources.teacher.count=11",), "count must be 2 to 10, the number of classes; found 11"),
        (("sources.teacher.top=0",), "top must be a whole number of at least 1; found 0"),
        (("stages.specialist.trainer.max_epochs=0",), "stages.specialist.trainer.max_epochs must be a whole number"),
        (("stages.teacher.workers=0",), "stages.teacher.workers must be a whole number ≥ 1; found 0"),
        (("~stages.specialist",), "stages.specialist, the settings that specialists are trained with, is missing"),
        (
            (
                "~sources.teacher.generalist",
                "+sources.teacher.generalist={_target_: tutelage.sources.ema_teacher.EMATeacher}",
            ),
            "the generalist must be one frozen network",
        ),
    ],
)
def test_what_cannot_be_is_refused(main, tmp_path, options, said):
    answer = main("distill", *TINY, *QUICK, "sources=specialists", *options)
    assert answer.code == 1
    assert said in answer.message
    assert not store(tmp_path, "teacher") or options == ("~stages.specialist",)  # before anything is trained


# -- at the same time -------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("sources", [("sources=ensemble", "ensemble.size=2"), ("sources=specialists", GROUPS)])
def test_at_the_same_time_is_one_after_the_other_to_the_bit(main, tmp_path, monkeypatch, sources):
    base = ("distill", *TINY, *QUICK, *sources)
    assert main(*base, "hydra.run.dir=alone", "paths.artifacts=shop1").code == 0
    answer = main(*base, "hydra.run.dir=together", "paths.artifacts=shop2", "stages.teacher.workers=2")
    assert answer.code == 0, answer.message
    made = [
        {folder.name: digest(read_state(folder / "last.safetensors")) for folder in artifacts(tmp_path / shop, kind)}
        for shop in ("shop1", "shop2")
        for kind in ("teacher", "specialist")
    ]
    assert made[:2] == made[2:]
    assert 2 in (len(made[0]), len(made[1]))
    assert timeless(tmp_path / "alone") == timeless(tmp_path / "together")
    monkeypatch.setattr(
        "tutelage.pipeline.workers.run", lambda *arguments: pytest.fail("processes for what is there already")
    )
    assert main(*base, "hydra.run.dir=again", "paths.artifacts=shop2", "stages.teacher.workers=2").code == 0


@pytest.mark.long
def test_a_member_that_fails_ends_the_job_with_its_message(main, tmp_path):
    harm = f"+callbacks.harm={{_target_: faults.CrashAt, stage: teacher, step: 5, marker: {tmp_path / 'struck'}}}"
    several = ("sources=ensemble", "ensemble.size=2", "stages.teacher.workers=2")
    answer = main("distill", *TINY, *QUICK, harm, *several, "hydra.run.dir=run")
    assert answer.code == 1
    assert "teacher at step 5 (" in answer.message
    assert "teacher at step 5" in status(tmp_path / "run")["why"]
    assert status(tmp_path / "run")["state"] == "FAILED"


@pytest.mark.long
def test_a_sigterm_ends_the_members_which_save_first(tmp_path):
    command = [
        "distill", *TINY, *QUICK, "sources=ensemble", "ensemble.size=2", "stages.teacher.workers=2",
        "hydra.run.dir=run", "callbacks.recovery.every_n_seconds=0",
        "+callbacks.slow={_target_: watchers.Slow, stage: teacher, marker: started}",
    ]  # fmt: skip
    job = subprocess.Popen(
        [sys.executable, "-m", "tutelage", *command], cwd=tmp_path, env=environment(), start_new_session=True
    )
    try:
        end = time.monotonic() + 1200
        while not (tmp_path / "started").exists() and job.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        os.kill(job.pid, signal.SIGTERM)
        assert job.wait(1200) == 143
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert status(tmp_path / "run")["state"] == "PREEMPTED"
    assert list((tmp_path / "outputs" / "artifacts" / "teacher").glob(".*.work/states/*.ckpt"))
