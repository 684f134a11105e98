"""A multirun as a whole: names of folders, failures at its end, the same command again."""

import io
import json

import pytest
from command import TINY

from tutelage.config.resolvers import folder_name
from tutelage.pipeline import sweep

QUICK = (*TINY, "trainer.max_epochs=1", "logger=none", "callbacks.progress=null", "hydra.sweep.dir=sweep")
QUICK = tuple(one for one in QUICK if one != "trainer.max_epochs=2")


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(sweep, "multirun", sweep.Multirun())


def states(folder):
    return {
        path.parent.name: json.loads(path.read_text())["state"] for path in sorted(folder.glob("sweep/*/status.json"))
    }


@pytest.mark.long
def test_a_failing_job_leaves_the_others_and_the_same_command_goes_on(main, tmp_path):
    command = ("distill", "-m", *QUICK, "seed=0,1")
    answer = main(*command, "loss.temperature=-1,2")
    assert answer.code == 1
    names = [f"loss.temperature={t},seed={seed}" for t in (-1, 2) for seed in (0, 1)]
    expected = dict(zip(names, ["FAILED", "FAILED", "COMPLETE", "COMPLETE"], strict=True))
    assert states(tmp_path) == expected
    for name in names[:2]:
        assert f"sweep/{name}" in answer.message
    assert answer.message.count("loss.temperature must be a number > 0; found -1") == 3  # the last line has it, too
    assert "2 of 4 jobs did not complete" in answer.message
    assert f"hydra.sweep.dir={tmp_path / 'sweep'}" in answer.message
    assert answer.message.count("Distilled") == 1  # those that did complete are compared
    assert answer.out.count("points") == 2  # one line a job
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("sweep/*temperature=2*/**/*.safetensors")}
    assert len(before) == 6
    answer = main(*command, "loss.temperature=2,3")  # one more choice; the jobs that are complete stay as they are
    assert answer.code == 0
    assert {name: state for name, state in states(tmp_path).items() if "=-1" not in name} == {
        f"loss.temperature={t},seed={seed}": "COMPLETE" for t in (2, 3) for seed in (0, 1)
    }
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert answer.out.count("already complete, nothing to do") == 2
    table = answer.out[answer.out.index("Distilled") :]
    assert [f"loss.temperature={t},seed={seed}" in table for t in (2, 3) for seed in (0, 1)] == [True] * 4
    assert answer.out.count("Distilled") == answer.out.count("more than luck") == 1
    assert answer.out.count("points") == 2 + 1


def test_jobs_are_named_by_what_varies():
    given = ["seed=range(0,3)", "data=mnist", "+loss.terms.a=1", "loss.alpha=0.1,0.5", "~callbacks.best"]
    assert sweep.same(given) == ["callbacks.best", "data", "loss.terms.a"]
    assert sweep.same(["model@teacher=cnn", "model@student=cnn,mlp"]) == []  # Hydra leaves out both or none


def test_names_of_folders():
    assert folder_name("seed=1,loss.alpha=0.5", 3) == "seed=1,loss.alpha=0.5"
    assert folder_name("", 3) == "3"
    assert folder_name("model={_target_: a/b}").startswith("model=__target__a_b_-")
    assert folder_name("sources.teacher.path=a/t.pt") != folder_name("sources.teacher.path=a_t.pt")
    long, other = folder_name("x=" + "a" * 200), folder_name("x=" + "a" * 201)
    assert len(long) == 120
    assert long != other


def test_of_successive_halving_the_fresh_seeds_are_compared_else_the_last_rung(tmp_path, monkeypatch):
    monkeypatch.setattr("tutelage.evaluation.table.multirun_table", lambda found: " ".join(found))
    sweep.multirun.folder = tmp_path
    assert sweep.comparisons(io.StringIO()) == ""

    def made(*names):
        for name in names:
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "metrics.json").write_text('{"schema": 1, "student": {}}')
        return sweep.comparisons(io.StringIO()).splitlines()[0].split()

    assert made("rung0/a", "rung0/b", "rung9/a") == ["rung0/a", "rung0/b", "rung9/a"]  # any folders of a sweep
    (tmp_path / "rungs.csv").write_text("")
    (tmp_path / "fresh").mkdir()
    assert made("rung10/a") == ["rung10/a"]
    assert made("fresh/a,seed=1", "fresh/a,seed=2") == ["fresh/a,seed=1", "fresh/a,seed=2"]
