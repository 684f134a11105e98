"""The choice of jobs that train as one, and the reasons against the others."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tutelage.config import factory
from tutelage.config.plan import plan_job
from tutelage.stacked import plan
from tutelage.stacked.plan import Job

DENSE = ("model@student=dense", "model@teacher=mlp")


@pytest.fixture
def jobs(compose):
    return lambda *lines: [
        Job(plan_job(compose(*DENSE, *line.split())), Path(str(i)), []) for i, line in enumerate(lines)
    ]


@pytest.fixture
def module(compose):
    """``module(*overrides)`` → a student that has met its data, its teachers, the data."""

    def make(*overrides):
        stage = factory.stage_config(compose(*DENSE, *overrides), "student")
        data = factory.data(stage)
        teaching = factory.sources(stage)
        made = factory.distillation_module(stage, data, teaching, None)
        made.dry_run(data)
        return made, teaching, data

    return make


@pytest.fixture
def form(module, compose):
    """``form(*overrides)`` → what must be the same."""
    return lambda *own: plan.stack_key(module(*own)[0], factory.stage_config(compose(*DENSE, *own), "student"))


@pytest.mark.parametrize(
    "values",
    [
        "seed=1", "loss.temperature=7", "loss.alpha=.3", "student.net.dropout=.5", "loss=dkd",
        "optimizer.lr=.01 stages.teacher.optimizer.lr=.001",
    ],
)  # fmt: skip
def test_these_values_go_side_by_side(jobs, values):
    base = "loss=dkd" if values == "loss=dkd" else ""
    base += " stages.teacher.optimizer.lr=.001" if "lr" in values else ""
    assert len(plan.group_stackable(jobs(base, values))) == 1


@pytest.mark.parametrize(
    "values",
    [
        "student.net.widths=[16]", "model@student=mlp", "data.batch_size=16", "optimizer=sgd", "trainer.max_epochs=3",
        "loss=dkd", "stages.teacher.seed=1", "optimizer.lr=.01", "scheduler=cosine", "logger=none",
        "sources.teacher.checkpoint=/other", "data.augment=[{_target_:tutelage.data.augment.Shift,pixels:1}]",
        "paths.artifacts=/elsewhere", "stages.teacher.weights=best",
        "+stages.teacher.callbacks.norm={_target_:tutelage.training.callbacks.max_norm.MaxNorm,limit:4}",
        "sources=specialists stages.specialist.optimizer.lr=.1",
    ],
)  # fmt: skip
def test_these_do_not(jobs, values):
    base = "sources=specialists" if "specialist" in values else ""
    assert [len(group) for group in plan.group_stackable(jobs(base, values))] == [1, 1]


@pytest.mark.parametrize(("augmented", "groups"), [(False, 1), (True, 2)])
def test_seeds_whose_pictures_differ_have_other_signals_on_disk(jobs, augmented, groups):
    augment = "data.augment=[{_target_:tutelage.data.augment.Shift,pixels:1}] data.views=2" if augmented else ""
    base = f"sources=cached {augment}"
    assert len(plan.group_stackable(jobs(f"{base} seed=0", f"{base} seed=1"))) == groups


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ("generations=1", "assistants and generations"),
        ("trainer=ddp", "one device"),
        ("trainer.precision=16-mixed", "precision=16-mixed"),
        ("+trainer.gradient_clip_val=1", "gradient_clip_val"),
        ("+callbacks.mine={_target_: tutelage.training.callbacks.every_epoch.EveryEpoch}", "callbacks.mine"),
        ("~callbacks.best", "callbacks.best"),
    ],
)
def test_what_a_stack_can_not_do_is_said(compose, overrides, reason):
    assert reason in plan.refusal(plan_job(compose(*DENSE, overrides)))


def test_nothing_is_said_of_what_it_can(compose):
    assert plan.refusal(plan_job(compose(*DENSE))) == ""


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["loss=crd"], "CRD stores something by example"),
        (["loss=mgd", "model@student=cnn", "model@teacher=cnn"], "draws random numbers"),
        (["sources=ema_teacher"], "'teacher' changes during training"),
        (["data.labelled=100"], "no label"),
        (
            ["+data.derived={edges: {_target_: tutelage.data.derived.Sobel}}"],
            "data.derived: a stack reads images alone",
        ),
        (["optimizer=dot"], "is not known to update each weight independently"),
        (
            ["optimizer._target_=torch.optim.Adafactor", "~optimizer.fused"],
            "is not known to update each weight independently",
        ),
    ],
)
def test_trainings_that_depend_on_more_than_their_step(module, overrides, reason):
    assert reason in plan.unfit(*module(*overrides))


class Replaces(torch.nn.Module):
    """Has a mean of what it saw, as a new tensor each time."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        return (x - self.mean).square().mean()


def test_a_step_that_replaces_a_tensor_would_lose_it(module):
    made, teaching, data = module()
    made.objective.terms["soft"].loss = Replaces()
    made.objective.terms["soft"].inputs, made.objective.terms["soft"].targets = {"x": "student.logits"}, {}
    assert "replaces the buffer terms.soft.loss.mean" in plan.unfit(made, teaching, data)


@pytest.mark.parametrize("loss", ["soft_target", "[soft_target,fitnet]", "dkd", "ctkd", "dist"])
def test_losses_that_can_be_stacked(module, loss):
    assert plan.unfit(*module(f"loss={loss}")) == ""


def test_settings_that_are_no_tensors_part_the_jobs(form):
    smooth, plain = (form(f"loss.label_smoothing={value}") for value in (0.1, 0.0))
    assert smooth != plain, "CrossEntropyLoss keeps it as a number"
    assert form("loss.temperature=9") == plain


def test_alpha_at_its_ends_has_other_terms(form):
    makes = [form(f"loss.alpha={alpha}") for alpha in (0.2, 0.8, 1.0)]
    assert makes[0] == makes[1] != makes[2]


def test_a_control_is_a_student_whose_teachers_have_no_weight(module, compose):
    student, _, data = module("loss.alpha=.7")
    control = factory.supervised_module(factory.stage_config(compose(*DENSE), "control"), "control", data, None)
    control.dry_run(data)
    assert plan.zero_teacher_terms(student, control) == {"soft"}
    assert {name: float(term.weight) for name, term in student.objective.terms.items()} == {"hard": 1.0, "soft": 0.0}


@pytest.mark.parametrize("overrides", ["loss.alpha=1", "loss=fitnet", "loss.label_smoothing=.1"])
def test_a_control_that_is_more_than_that_trains_by_itself(module, compose, overrides):
    student, _, data = module(overrides)
    before = {name: float(term.weight) for name, term in student.objective.terms.items()}
    control = factory.supervised_module(factory.stage_config(compose(*DENSE), "control"), "control", data, None)
    control.dry_run(data)
    assert plan.zero_teacher_terms(student, control) is None
    assert before == {name: float(term.weight) for name, term in student.objective.terms.items()}


def test_a_network_that_fills_the_processor_trains_alone(module):
    made, _, data = module("student.net.widths=[800]")
    reason = plan.too_large(made, data, 1e6)
    assert ("no faster" in reason) == (not torch.cuda.is_available())
    assert plan.too_large(made, data, None) == ""


@pytest.mark.parametrize(("count", "most", "sizes"), [(7, 3, [3, 2, 2]), (6, 100, [6]), (4, 1, [1] * 4), (0, 3, [])])
def test_stacks_are_as_equal_as_can_be(count, most, sizes):
    assert [len(stack) for stack in plan.cut(range(count), most)] == sizes


def test_the_key_reads_no_folder(jobs):
    a, b = jobs("seed=1", "seed=2")
    assert OmegaConf.to_container(a.plan.config.paths) == OmegaConf.to_container(b.plan.config.paths)
    assert len(plan.group_stackable([a, b])) == 1
