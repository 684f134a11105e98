"""``tutelage plan`` says what a job would train, reuse and write, and does nothing."""

from pathlib import Path

import pytest
import torch

import tutelage as tt
from tutelage.config import factory
from tutelage.config.turns import turns
from tutelage.config.validate import check
from tutelage.errors import TutelageError
from tutelage.evaluation.cost import multiply_adds
from tutelage.pipeline.distill import distill
from tutelage.pipeline.survey import tasks_of

TINY = (
    "model@teacher=dense", "model@student=dense", "trainer.max_epochs=1", "callbacks.progress=null", "logger=none",
)  # fmt: skip


@pytest.fixture
def survey(compose, tmp_path):
    """``survey(*overrides)`` → plan and tasks of that job."""

    def go(*overrides):
        plan = check(compose(f"paths.artifacts={tmp_path}/shop", *TINY, *overrides))
        return plan, tasks_of(plan, factory.data(plan.student))

    return go


@pytest.mark.parametrize(
    "overrides",
    [
        ["generations=1"],
        ["sources=ensemble", "ensemble.size=2", "sources.teacher.weights=validation"],
        ["sources=specialists"],
        ["stages.teacher.weights=0", "loss=fitnet", "sources=cached"],
    ],
    ids=["a generation", "an ensemble", "specialists", "an epoch's weights, cached features"],
)
def test_a_plan_names_exactly_what_the_job_makes(survey, tmp_path, overrides):
    plan, before = survey(*overrides)
    assert not (tmp_path / "shop").exists()
    assert not any(task.is_there for task in before)
    distill(plan, tmp_path / "run")
    _, after = survey(*overrides)
    made = {f"{path.parent.name}/{path.name}" for path in (tmp_path / "shop").glob("*/[!.]*")}
    assert {f"{task.kind}/{task.digest}" for task in after if task.kind != "student"} == made
    assert [task.name for task in after if not task.is_there] == ["student"]
    assert {f"{task.kind}/{task.digest}" for task in before if task.digest} <= made
    assert [task.kind for task in before if task.kind != "signals"] == [
        task.kind for task in after if task.kind != "signals"
    ]


def test_a_chain_names_what_is_written_of_each_of_its_teachers(survey, tmp_path):
    chain = ["+model@assistants.first=dense", "generations=1"]
    plan, before = survey(*chain)
    signals = [task for task in before if task.kind == "signals"]
    assert len(signals) == 3
    distill(plan, tmp_path / "run")
    assert len([*(tmp_path / "shop" / "signals").glob("[!.]*")]) == 3
    written = sum(path.stat().st_size for path in (tmp_path / "shop" / "signals").glob("[!.]*/logits.bin"))
    assert sum(task.bytes for task in signals) == pytest.approx(written, rel=0.01)
    _, after = survey(*chain)
    assert [task.name for task in after if not task.is_there] == ["student"]
    assert [task.name for task in after] == [task.name for task in before]


def test_steps_work_and_disk_are_estimated(survey, tmp_path):
    plan, tasks = survey("stages.teacher.trainer.max_epochs=3", "sources.teacher.cache=false")
    by_name = {task.name: task for task in tasks}
    assert list(by_name) == ["teacher", "control", "student"]
    batches = len(factory.data(plan.student).train_dataloader())
    assert [(task.epochs, task.steps) for task in tasks] == [(3, 3 * batches), (1, batches), (1, batches)]
    assert by_name["teacher"].macs == 3 * by_name["control"].macs
    assert by_name["student"].macs == pytest.approx(by_name["control"].macs * 4 / 3)  # the teacher's forward pass
    distill(plan, tmp_path / "run")
    [made] = (tmp_path / "shop" / "control").glob("[!.]*")
    files = sum(path.stat().st_size for path in made.rglob("*.safetensors"))
    assert by_name["control"].bytes == pytest.approx(files, rel=0.2)


@pytest.mark.parametrize(
    ("overrides", "passes", "networks"),
    [
        (["sources=peers", "loss=online/dml", "peers.count=3"], 4, 4),
        (["sources=stale_peers", "loss=online/codistillation", "peers.count=2"], 3 + 3 / 3, 3),
        (["sources=momentum"], 1 + 1 / 3, 1),
        (["loss=hard", "sources.teacher.cache=false"], 1, 1),
        (["loss.alpha=0", "sources.teacher.cache=false"], 1, 1),
    ],
    ids=["peers", "peers and their copies", "a moving average", "no loss reads the teacher", "a weight of 0"],
)
def test_the_work_of_all_networks_of_a_step_is_counted(survey, overrides, passes, networks):
    """In passes of the control's: a network that learns is three forward passes of a step, one that answers one."""
    _, tasks = survey(*overrides)
    by_name = {task.name: task for task in tasks}
    assert by_name["student"].macs == pytest.approx(passes * by_name["control"].macs)
    assert by_name["student"].bytes == networks * by_name["control"].bytes


def test_the_rounds_of_a_generator_are_counted(survey):
    """DFAD: five steps of the student on new images and one of the generator, of which a step is three passes."""
    plan, tasks = survey("loss=data_free/dfad", "stages.student.turns.rounds=3", "sources.teacher.cache=false")
    made = turns(plan.student).generator
    nets = [factory.network(plan.stages[name].network, 0).net for name in ("student", "teacher")]
    generator = multiply_adds(made, made.draw(1, torch.device("cpu")).shape[1:])
    student, teacher = (multiply_adds(net, factory.data(plan.student).sample(1)) for net in nets)
    images = 3 * plan.student.data.batch_size * plan.student.trainer.max_epochs
    found = next(task for task in tasks if task.name == "student").macs
    assert found == images * ((5 + 3) * generator + (15 + 2) * student + (5 + 2) * teacher)


def test_a_training_that_was_stopped_goes_on(survey, tmp_path):
    _, tasks = survey()
    control = next(task for task in tasks if task.name == "control")
    (tmp_path / "shop" / "control" / f".{control.digest}.work" / "states").mkdir(parents=True)
    _, tasks = survey()
    assert [task.action for task in tasks] == ["train", "write", "go on", "train"]


def test_the_command_makes_no_folder_and_shares_work_among_jobs(main, tmp_path):
    words = ("paths.outputs=out", *TINY, "seed=0,1", "loss.temperature=2,4")
    answer = main("plan", "-m", *words)
    assert answer.code == 0, answer.message
    assert "loss.temperature=4,seed=1" in answer.out
    assert "7 to train (1 teacher, 2 controls, 4 students), 1 to write, 0 to reuse" in " ".join(answer.out.split())
    assert main("plan", *TINY, "sources=recorded", "sources.teacher.path=none").code != 0
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_would_be_refused_says_why_in_its_line(main):
    answer = main("plan", "-m", *TINY, "loss.temperature=2,-1")
    assert answer.code == 0
    assert "refused: loss.temperature must be a number > 0; found -1" in answer.out


def test_values_that_are_drawn_while_a_sweep_runs_can_not_be_planned(main):
    answer = main("plan", "-m", *TINY, "loss.temperature=interval(1,4)")
    assert "its values are drawn while a sweep runs" in answer.message
    assert answer.code == 1


def test_a_plan_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = tt.plan(*TINY, "loss=dkd", seed=3)
    assert [(task.action, task.name) for task in plan.tasks] == [
        ("train", "teacher"), ("write", "signals of teacher"), ("train", "control"), ("train", "student"),
    ]  # fmt: skip
    assert "3 to train (1 teacher, 1 control, 1 student)" in str(plan)
    with pytest.raises(TutelageError, match=r"loss\.temperature"):
        tt.plan(*TINY, "loss.temperature=0")
    assert list(Path().iterdir()) == []
