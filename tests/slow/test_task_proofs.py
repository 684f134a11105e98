"""What holds for every task: resumed, cached, on two ranks, without its teacher and evaluated, a job is what it was."""

import csv
import json
import signal
from pathlib import Path

import pytest
from command import tutelage
from runs import figures, status, weights
from task_jobs import HEADLINE, JOBS, SHORT, write_models

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=JOBS)
def job(request, tmp_path_factory):
    """``job(*overrides, check=True)`` runs one task's job in a process of its own; the folder of each is named last."""
    place = tmp_path_factory.mktemp(request.param)
    write_models(place)

    def run(*overrides, check=True):
        done = tutelage(
            "distill", "--config-dir", "conf", *JOBS[request.param], *SHORT, *overrides[:-1],
            f"hydra.run.dir={overrides[-1]}", cwd=place, check=check,
        )  # fmt: skip
        return done, place / overrides[-1]

    run.task, run.place = request.param, place
    return run


@pytest.fixture(scope="module")
def whole(job):
    _, folder = job("sources.teacher.cache=false", "whole")
    return folder


def students(folder):
    found = weights(folder / "checkpoints")
    assert {name.partition(".")[0] for name in found} >= {"last", "best"}
    return found


def test_the_figure_of_validation_is_that_of_evaluate_and_of_the_table(job, whole, main, monkeypatch):
    monkeypatch.chdir(job.place)  # where its data are
    headline = HEADLINE[job.task]
    [path] = [path for path in whole.rglob("metrics.csv") if "student" in str(path)]
    rows = csv.DictReader(path.read_text().splitlines())
    logged = [float(row[f"val/{headline}"]) for row in rows if row[f"val/{headline}"]]
    found = figures(whole)["student"]["last"]["val"]
    assert len(logged) == 2
    assert found[headline] == pytest.approx(logged[-1], rel=1e-5)
    checkpoint = f"checkpoint={whole}/checkpoints/last.safetensors"
    for split in ("val", "test"):
        answer = main("evaluate", checkpoint, f"split={split}", "trust=[own_data]", f"hydra.run.dir=of_{split}")
        assert answer.code == 0, answer.message
        measured = json.loads(Path(f"of_{split}/metrics.json").read_text())["figures"]
        of_table = figures(whole)["student"]["last"][split]
        assert {headline, "count"} <= measured.keys() <= of_table.keys()
        assert measured == pytest.approx({name: of_table[name] for name in measured}, rel=1e-6)
        assert {name for name in of_table.keys() - measured.keys() if "teacher" not in name} <= {"agreement"}


def test_at_alpha_0_the_student_is_the_control_to_the_bit(job, whole):
    _, folder = job("loss.alpha=0", "zero")
    [control] = (job.place / "outputs" / "artifacts" / "control").glob("[!.]*")
    for name in ("last.safetensors", "best.safetensors"):
        assert students(folder)[name] == weights(control)[name]
        assert students(whole)[name] != students(folder)[name]


def test_a_cached_teacher_says_what_the_live_one_says_to_the_bit(job, whole):
    _, folder = job("sources=cached", "cached")
    assert students(folder) == students(whole)
    assert list((job.place / "outputs" / "artifacts" / "signals").glob("[!.]*"))


def test_killed_and_resumed_it_ends_in_the_same_bits(job, whole):
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 5, marker: {job.place / 'mark'}}}"
    killed = ("sources.teacher.cache=false", harm, "killed")
    done, folder = job(*killed, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list((folder / "checkpoints" / "states").glob("step=00000003*"))
    job(*killed)
    assert status(folder)["state"] == "COMPLETE"
    assert students(folder) == students(whole)
    assert figures(folder)["student"] == figures(whole)["student"]


def test_two_ranks_are_one_process(job, whole):
    _, folder = job("trainer=ddp", "trainer.accelerator=cpu", "sources.teacher.cache=false", "two")
    for role in ("teacher", "student"):
        for split in ("val", "test"):
            one, two = (figures(place)[role]["last"][split] for place in (whole, folder))
            assert two == pytest.approx(one, rel=1e-3, abs=1e-4), (role, split)
