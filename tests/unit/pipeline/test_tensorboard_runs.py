"""Names of a sweep's runs in TensorBoard."""

import json
import os
import shutil

import pytest
from hydra.types import RunMode
from omegaconf import OmegaConf

from tutelage.pipeline.tensorboard_runs import SweepRuns, cell_name, of_job

DIGEST = "3f09ab41c2"


@pytest.mark.parametrize(
    ("overrides", "constant", "name"),
    [
        (["loss.temperature=4", "seed=1", "loss.alpha=0.9"], [], "alpha=0.9,T=4 seed=1"),
        (["seed=1", "data=digits"], ["data"], "seed=1"),
        (["teacher.net.width=2", "student.net.width=1"], [], "student.net.width=1,teacher.net.width=2"),
        (["model@student=mlp", "loss=dkd", "+trainer.max_steps=3"], [], "loss=dkd,student=mlp,max_steps=3"),
        (["data=digits"], ["data"], ""),
    ],
)  # fmt: skip
def test_a_cell_is_what_varies_with_short_keys_and_the_seed_last(overrides, constant, name):
    assert cell_name(overrides, constant) == name


def test_values_that_a_folder_s_name_can_t_have_stay_apart():
    names = {cell_name([f"loss=[{one}]"]) for one in ("dkd,at", "dkd/at", "dkd at")}
    assert len(names) == 3
    assert all("/" not in name for name in names)


def test_only_jobs_of_a_multirun_have_names(tmp_path):
    override_dirname = {"exclude_keys": ["data"]}
    hydra = OmegaConf.create(
        {
            "mode": RunMode.MULTIRUN, "sweep": {"dir": str(tmp_path)}, "overrides": {"task": ["data=digits", "seed=2"]},
            "job": {"config": {"override_dirname": override_dirname}},
        }
    )  # fmt: skip
    assert of_job(hydra, tmp_path / "seed=2") == SweepRuns(tmp_path, tmp_path / "seed=2", "seed=2")
    assert of_job(hydra, tmp_path.parent / "elsewhere") is None
    hydra.overrides.task = ["data=digits"]
    assert of_job(hydra, tmp_path / "a" / "0").cell.startswith("a_0")
    hydra.mode = RunMode.RUN
    assert of_job(hydra, tmp_path / "seed=2") is None


def finished(sweep, name, cell="alpha=1 seed=1"):
    """A job with curves of all three, which shares its control with the others."""
    control = sweep / "artifacts" / "control" / DIGEST
    of_job = [sweep / name / "tensorboard" / stage for stage in ("student", "control", "final")]
    for folder in (control / "tensorboard" / "control", *of_job):
        folder.mkdir(parents=True, exist_ok=True)
    made = {"control": {"folder": str(control), "recipe": {"seed": 1}}, "student": {"folder": "checkpoints"}}
    (sweep / name / "artifacts.json").write_text(json.dumps(made))
    return SweepRuns(sweep, sweep / name, cell)


def links(sweep):
    return {path.name: os.readlink(path) for path in (sweep / "tensorboard").iterdir()}


def test_a_shared_control_is_there_once_and_links_are_relative(tmp_path):
    for job, cell in (("a", "alpha=1 seed=1"), ("b", "alpha=2 seed=1")):
        finished(tmp_path, job, cell).finish()
    assert links(tmp_path) == {
        "student alpha=1 seed=1": "../a/tensorboard/student", "final alpha=1 seed=1": "../a/tensorboard/final",
        "student alpha=2 seed=1": "../b/tensorboard/student", "final alpha=2 seed=1": "../b/tensorboard/final",
        "control seed=1 3f09ab": "../a/tensorboard/control",
    }  # fmt: skip


def test_the_student_is_there_as_soon_as_it_trains(tmp_path):
    SweepRuns(tmp_path, tmp_path / "a", "seed=1").begin()
    assert links(tmp_path) == {"student seed=1": "../a/tensorboard/student"}


def test_jobs_of_one_name_are_both_there(tmp_path):
    for job in ("a", "b"):
        finished(tmp_path, job).finish()
        finished(tmp_path, job).finish()  # again, after it was stopped
    found = links(tmp_path)
    assert found["student alpha=1 seed=1"] == "../a/tensorboard/student"
    assert found["student b"] == "../b/tensorboard/student"
    assert len(found) == 5


def test_a_link_to_a_job_that_was_deleted_is_made_anew(tmp_path):
    finished(tmp_path, "a").finish()
    shutil.rmtree(tmp_path / "a")
    finished(tmp_path, "b").finish()
    assert set(links(tmp_path).values()) == {f"../b/tensorboard/{one}" for one in ("student", "control", "final")}


def test_a_file_in_the_place_of_the_links_ends_no_run(tmp_path):
    runs = finished(tmp_path, "a")
    (tmp_path / "tensorboard").write_text("mine")
    runs.finish()
    assert (tmp_path / "tensorboard").read_text() == "mine"
