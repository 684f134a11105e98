"""The plan of a job: every training's config, resolved once and read-only."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError

from tutelage.config import plan
from tutelage.config.plan import plan_job, replaced, settled
from tutelage.config.validate import check
from tutelage.errors import TutelageError
from tutelage.pipeline.distill import distill

TINY = (
    "model@teacher=mlp", "model@student=dense", "trainer.max_epochs=1", "callbacks.progress=null", "logger=none",
)  # fmt: skip


@pytest.fixture
def resolved_stages(monkeypatch):
    """The names of the stages whose config was resolved, in turn."""
    names: list[str] = []
    resolve = plan.stage_config
    monkeypatch.setattr(plan, "stage_config", lambda cfg, name: names.append(name) or resolve(cfg, name))
    return names


def test_a_job_resolves_each_stage_once_and_changes_no_config(compose, resolved_stages, tmp_path):
    cfg = compose(*TINY)
    before = OmegaConf.to_container(cfg, resolve=False)
    made = check(cfg)
    configs = [OmegaConf.to_container(one) for one in (made.config, *made.stages.values())]
    distill(made, tmp_path / "run")
    assert sorted(resolved_stages) == ["control", "student", "teacher"]
    assert OmegaConf.to_container(cfg, resolve=False) == before
    assert [OmegaConf.to_container(one) for one in (made.config, *made.stages.values())] == configs
    written = OmegaConf.load(tmp_path / "run" / "plan.yaml")
    assert written.student.config.optimizer == made.student.optimizer
    assert written.control.config.loss == made.control.loss
    assert written.teachers.teacher.config.trainer == made.stages["teacher"].trainer
    assert Path(written.student.taught_by.teacher.checkpoint).parent.parts[-2:] == tuple(
        written.teachers.teacher.artifact.split("/")
    )
    assert "signals" in written.student.config.sources.teacher.folder


def test_nothing_in_a_plan_can_be_changed(compose):
    made = plan_job(compose(*TINY, "+model@assistants.first=mlp"))
    for stage in (made.config, made.student, made.teachers[0].training, made.assistants["first"]):
        with pytest.raises(ReadonlyConfigError):
            stage.trainer.max_epochs = 7
    other = replaced(made.student, {"trainer": {"max_epochs": 7}, "sources": OmegaConf.create({"a": 1})})
    assert (other.trainer.max_epochs, other.sources) == (7, {"a": 1})
    assert made.student.trainer.max_epochs == 1


def test_every_network_has_the_config_of_its_own_training(compose):
    made = plan_job(compose(*TINY, "sources=ensemble", "ensemble.size=2", "generations=1", "stages.teacher.seed=5"))
    assert [one.training.seed for one in made.teachers] == [5, 6]
    assert [one.source for one in made.teachers] == ["teacher", "teacher"]
    assert {one.training.network.name for one in made.teachers if "name" in one.training.network} <= {"mlp"}
    assert made.assistants["generation1"].seed == 6
    assert made.assistants["generation1"].network == made.student.network
    assert "soft" not in made.control.loss.terms


def test_the_weights_of_an_epoch_are_kept_by_the_teachers_training_alone(compose):
    made = plan_job(compose(*TINY, "stages.teacher.weights=0"))
    assert (made.weights, made.epoch) == ("last", 0)
    assert "every_epoch" in made.teachers[0].training.callbacks
    assert "every_epoch" not in made.stages["teacher"].callbacks


def test_the_config_that_was_composed_stays_as_it_is(compose):
    cfg = compose(*TINY, "data._target_=tutelage.sources.asked.Asked")
    made = settled(cfg, OmegaConf.create({"job": {"chdir": False}, "runtime": {"cwd": "/"}}))
    assert (cfg.data._target_, made.data._target_) == (
        "tutelage.sources.asked.Asked", "tutelage.sources.black_box.BlackBoxTeacher",
    )  # fmt: skip


def test_specialists_of_two_networks_are_refused_before_anything_trains(compose):
    cfg = compose(*TINY, "sources=specialists", "+sources.teacher.other={net: 1, checkpoint: a}")
    with pytest.raises(TutelageError, match=r"sources\.teacher: the generalist must be one frozen network"):
        plan_job(cfg)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("mlp", r"models\.mlp\.MLP with no pretrained weights has random weights"),
        ("torchvision", r"models\.torchvision\.create with pretrained=false has"),
    ],
)
def test_a_network_of_random_weights_is_no_ready_teacher(compose, model, why):
    short = [one for one in TINY if not one.startswith("model@teacher")]
    with pytest.raises(TutelageError, match=rf"sources\.teacher\.train=false uses .*{why}"):
        plan_job(compose(*short, f"model@teacher={model}", "sources.teacher.train=false"))


def test_a_network_that_is_built_with_weights_is_a_ready_teacher(compose):
    short = [one for one in TINY if not one.startswith("model@teacher")]
    given = ("model@teacher=torchvision", "teacher.net.pretrained=true", "sources.teacher.train=false")
    assert plan_job(compose(*short, *given)).teachers[0].ready
