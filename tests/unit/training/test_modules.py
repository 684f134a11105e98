"""The LightningModules, and the promises that only a training shows: alpha = 0, the end points, precision."""

import math
from contextlib import nullcontext
from pathlib import Path

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from command import PAIR, SPLITS, TINY
from faults import StruckError
from runs import figures, scalars, weights

from tutelage.checkpoints.weights import read_state
from tutelage.config import factory
from tutelage.config.plan import plan_job
from tutelage.config.validate import check
from tutelage.errors import TutelageError
from tutelage.models.mlp import MLP
from tutelage.objective import Objective
from tutelage.pipeline.distill import distill
from tutelage.sources.ema_teacher import EMATeacher
from tutelage.sources.frozen import Frozen
from tutelage.sources.recorded import Recorded

QUIET = ("callbacks.progress=null", "logger=none")
HARD_TO_MATCH = (
    *TINY, *QUIET, "student.net.dropout=0.3",
    "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]",
)  # fmt: skip


@pytest.fixture
def run(compose, tmp_path):
    """``run(*overrides)`` → metrics; files lie in ``tmp_path / "run"`` and ``tmp_path / "shop"``."""

    def go(*overrides):
        return distill(check(compose(f"paths.artifacts={tmp_path}/shop", *overrides)), tmp_path / "run")

    return go


@pytest.fixture
def count(monkeypatch):
    """Counts the runs of each kind of source in training."""
    calls = {Frozen: 0, EMATeacher: 0}
    for kind in calls:
        forward = kind.forward

        def counted(self, batch, kind=kind, forward=forward):
            calls[kind] += len(batch["input"]) == 64  # not the few examples on which shapes are met
            return forward(self, batch)

        monkeypatch.setattr(kind, "forward", counted)
    return calls


# -- alpha ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["soft_target", "fitnet", "[soft_target,fitnet]", "rkd", "dkd"])
def test_alpha_0_is_the_control_to_the_bit_and_runs_no_teacher(run, count, tmp_path, loss):
    metrics = run(*HARD_TO_MATCH, f"loss={loss}", "loss.alpha=0")
    student, control = weights(tmp_path / "run" / "checkpoints"), weights(tmp_path / "shop" / "control")
    assert student == control
    assert student.keys() == {"last.safetensors", "best.safetensors"}
    assert metrics["student"]["last"] == metrics["control"]["last"]
    assert set(metrics["gain"]["last"].values()) == {0}
    assert count == {Frozen: 0, EMATeacher: 0}


def test_alpha_0_with_a_moving_average(run, count, tmp_path):
    run(*HARD_TO_MATCH, "sources=ema_teacher", "loss.alpha=0")
    assert weights(tmp_path / "run" / "checkpoints") == weights(tmp_path / "shop" / "control")
    assert count == {Frozen: 0, EMATeacher: 0}


def test_a_small_alpha_is_no_control_and_runs_the_teacher_once_a_step(run, count, tmp_path):
    run(*HARD_TO_MATCH, "loss.alpha=0.01")
    assert weights(tmp_path / "run" / "checkpoints") != weights(tmp_path / "shop" / "control")
    assert count[Frozen] == 2 * 18


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 100.0])
def test_end_points_train(run, alpha, temperature):
    metrics = run(
        *PAIR, *SPLITS, *QUIET, "trainer.max_epochs=1", f"loss.alpha={alpha}", f"loss.temperature={temperature}"
    )
    assert all(math.isfinite(value) for value in metrics["student"]["last"]["test"].values())


def test_the_loss_is_continuous_in_alpha_at_both_ends(compose):
    """Some code bases drop T² at alpha = 0, and a sweep over alpha jumps there."""
    totals = {}
    for alpha in (0.0, 1e-4, 1 - 1e-4, 1.0):
        stage = factory.stage_config(compose(*PAIR, f"loss.alpha={alpha}", "loss.temperature=8"), "student")
        torch.manual_seed(0)
        given = {"student": {"logits": torch.randn(16, 10)}, "teacher": {"logits": torch.randn(16, 10)}}
        given["batch"] = {"label": torch.arange(16) % 10}
        totals[alpha] = float(factory.objective(stage)(given)[0])
    assert totals[0.0] == pytest.approx(totals[1e-4], rel=1e-3)
    assert totals[1.0] == pytest.approx(totals[1 - 1e-4], rel=1e-3)
    assert totals[0.0] != pytest.approx(totals[1.0], rel=1e-2)


# -- the teacher in a training ----------------------------------------------------------------------------------------


def test_a_callback_that_toggles_train_changes_no_bit(run, tmp_path):
    teacher = ("teacher.net.dropout=0.4",)
    run(*HARD_TO_MATCH, *teacher)
    expected = weights(tmp_path / "run", tmp_path / "shop"), figures(tmp_path / "run")
    for path in sorted((tmp_path / "run").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    run(*HARD_TO_MATCH, *teacher, "+callbacks.toggle={_target_: watchers.ToggleTrain}")
    assert (weights(tmp_path / "run", tmp_path / "shop"), figures(tmp_path / "run")) == expected


@pytest.mark.parametrize("sources", ["frozen", "momentum"])
def test_no_frozen_teacher_in_any_state_or_checkpoint(run, compose, tmp_path, sources):
    crash = f"+callbacks.crash={{_target_: faults.CrashAt, stage: student, step: 5, marker: {tmp_path}/struck}}"
    with pytest.raises(StruckError):
        run(*TINY, *QUIET, f"sources={sources}", "loss=fitnet", "callbacks.recovery.every_n_steps=2", crash)
    states = sorted((tmp_path / "run" / "checkpoints" / "states").glob("*.ckpt"))
    assert len(states) == 2
    for path in states:
        content = torch.load(path, weights_only=True)
        names = set(content["state_dict"])
        assert any(name.startswith("student.net.net.") for name in names)
        assert any(name.startswith("objective.terms.hint.loss.") for name in names)  # the learned regressor
        assert any("teacher" in name for name in names) == (sources == "momentum")
        learned = {name for name in names if name.startswith(("student.net", "objective"))}
        assert len(content["optimizer_states"][0]["state"]) == len(
            [n for n in learned if n.endswith(("weight", "bias"))]
        )
    run(*TINY, *QUIET, f"sources={sources}", "loss=fitnet", "callbacks.recovery.every_n_steps=2", crash)
    student = factory.network(factory.stage_config(compose(*TINY), "student").network, 0).net.state_dict().keys()
    for weights_ in ("last", "best"):
        assert read_state(tmp_path / "run" / "checkpoints" / f"{weights_}.safetensors").keys() == student


@pytest.mark.parametrize("batches", [1, 2])
def test_a_moving_average_goes_on_where_it_was(run, compose, tmp_path, batches):
    """Also between two batches of one step, after which nothing has moved."""
    steady = (*TINY, *QUIET, "sources=ema_teacher", f"+trainer.accumulate_grad_batches={batches}")
    distill(plan_job(compose(f"paths.artifacts={tmp_path}/shop", *steady)), tmp_path / "whole")
    crash = f"+callbacks.crash={{_target_: faults.CrashAt, stage: student, step: 7, marker: {tmp_path}/struck}}"
    for _ in range(2):
        with nullcontext() if (tmp_path / "struck").exists() else pytest.raises(StruckError):
            run(*steady, "callbacks.recovery.every_n_steps=3", crash)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_a_given_teacher_is_measured_anew_on_other_data(run, compose, tmp_path):
    """Fault 18: what was predicted from other pixels, or on another split, is not used."""
    torch.save(MLP([1, 8, 8], [16], 10).state_dict(), tmp_path / "teacher.pt")
    given = (*PAIR, *QUIET, "trainer.max_epochs=1", f"sources.teacher.checkpoint={tmp_path}/teacher.pt")
    found = [
        distill(plan_job(compose(f"paths.artifacts={tmp_path}/shop", *given, *other)), tmp_path / str(i))["teacher"][
            "last"
        ]
        for i, other in enumerate((SPLITS, (*SPLITS, "data.mean=[0.9]"), ("data.val_size=200",), SPLITS))
    ]
    assert found[0]["test"]["nll"] != found[1]["test"]["nll"]
    assert found[2]["val"]["count"] == 200
    assert found[3] == found[0]


# -- precision --------------------------------------------------------------------------------------------------------


def test_a_loss_prepares_in_the_precision_of_the_training(run):
    run(*PAIR, *SPLITS, *QUIET, "loss=kdpp", "trainer.max_epochs=1", "trainer.precision=64-true")


@pytest.mark.parametrize("loss", ["kdpp", "srrl", "adversarial/logits"])
def test_losses_with_layers_train_in_half_precision(run, loss):
    run(*PAIR, *SPLITS, *QUIET, f"loss={loss}", "trainer.max_epochs=1", "trainer.precision=bf16-true")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "32-true"])
@pytest.mark.parametrize("temperature", [1, 4, 20])
def test_losses_match_a_float64_oracle(run, monkeypatch, precision, temperature):
    """The logits that a training really has, and the losses that it makes of them."""
    seen = []
    forward = Objective.forward

    def watched(self, signals):
        total, parts = forward(self, signals)
        seen.append((signals, total.detach(), {name: part.detach() for name, part in parts.items()}))
        return total, parts

    monkeypatch.setattr(Objective, "forward", watched)
    run(
        *PAIR,
        *SPLITS,
        *QUIET,
        "trainer.max_epochs=1",
        f"trainer.precision={precision}",
        f"loss.temperature={temperature}",
    )
    taught = [each for each in seen if "teacher" in each[0] and len(each[0]["batch"]["input"]) == 64]
    assert len(taught) == 18
    for signals, total, parts in taught:
        student, teacher = (signals[who]["logits"].detach() for who in ("student", "teacher"))
        half = {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16}
        assert student.dtype == teacher.dtype == half.get(precision, torch.float32)
        log_p, log_q = ((x.double() / temperature).log_softmax(1) for x in (student, teacher))
        soft = temperature**2 * (log_q.exp() * (log_q - log_p)).sum(1).mean()
        hard = F.cross_entropy(student.double(), signals["batch"]["label"])
        assert parts["soft"].dtype == total.dtype == torch.float32
        torch.testing.assert_close(parts["soft"].double(), soft, rtol=1e-3, atol=1e-6 * temperature**2)
        torch.testing.assert_close(parts["hard"].double(), hard, rtol=1e-3, atol=0)
        torch.testing.assert_close(total.double(), 0.1 * hard + 0.9 * soft, rtol=1e-3, atol=1e-6 * temperature**2)


# -- the modules by themselves ----------------------------------------------------------------------------------------


def student_module(compose, *overrides, sources=True):
    cfg = compose(*PAIR, *SPLITS, *QUIET, *overrides)
    stage = factory.stage_config(cfg, "student")
    data = factory.data(stage)
    made = factory.sources(stage) if sources else {}
    return factory.distillation_module(stage, data, made, None), data, stage


def test_a_source_that_no_term_reads_is_dropped(compose):
    module, _, _ = student_module(compose, "loss.alpha=0")
    assert module.sources().keys() == {"student"}
    assert module.needs.keys() == {"student", "batch"}
    module, _, _ = student_module(compose)
    assert module.sources().keys() == {"student", "teacher"}


def test_a_source_that_is_not_there_is_named(compose):
    module, data, stage = student_module(compose, sources=False)
    with pytest.raises(TutelageError, match=r"source 'teacher'; this stage has \['student'\]: add sources=frozen"):
        factory.trainer(stage, "student", Path(stage.paths.outputs), Path(stage.paths.outputs), 18).fit(
            module, datamodule=data
        )


def test_a_record_without_one_of_the_examples_is_refused_before_the_first_step(compose):
    module, data, _ = student_module(compose)
    shown = data.sample(8)["key"]
    for split in ("train", "val"):
        lacking = next(key for key in reversed(data.splits[split].keys.tolist()) if key not in shown)
        keys = torch.cat([data.splits[name].keys for name in ("train", "val")])
        keys = keys[keys != lacking]
        module.teaching["teacher"] = Recorded(keys, torch.zeros(len(keys), 10))
        with pytest.raises(TutelageError, match=f"no logits for example {lacking};"):
            module.dry_run(data)


def test_first_weights_are_a_function_of_the_seed_alone(compose):
    first, _, _ = student_module(compose)
    torch.rand(3)
    again, _, _ = student_module(compose, "teacher.net.widths=[5]", "loss.temperature=9")
    other, _, _ = student_module(compose, "seed=1")
    states = [module.student.state_dict() for module in (first, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert not torch.equal(states[0]["net.net.classifier.weight"], states[2]["net.net.classifier.weight"])


def test_what_losses_learn_goes_to_the_optimizer_and_the_teacher_does_not(compose, tmp_path):
    module, data, stage = student_module(compose, "loss=fitnet", "+trainer.max_steps=2")
    factory.trainer(stage, "student", tmp_path, tmp_path, 18).fit(module, datamodule=data)
    held = {id(p) for group in module.optimizers().param_groups for p in group["params"]}
    assert held == {id(p) for p in module.student.parameters()} | {id(p) for p in module.objective.parameters()}
    assert len(list(module.objective.parameters())) > 0
    assert not held & {id(p) for p in module.sources()["teacher"].net.parameters()}


def test_the_dry_pass_changes_neither_weights_nor_chance(compose, tmp_path):
    module, data, _ = student_module(compose, "student.net.dropout=0.5", "+trainer.max_steps=1")
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.trainer = L.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    module.trainer.datamodule = data
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    module.setup("fit")
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert module.student.training


def test_validation_figures_are_those_of_the_evaluation(run, tmp_path):
    """TensorBoard's values of the last epoch equal those of the last weights in metrics.json."""
    metrics = run(*TINY, "callbacks.progress=null")
    curves = scalars(tmp_path / "run" / "tensorboard")
    for role in ("teacher", "control", "student"):
        for name in ("accuracy", "nll", *(("agreement", "kl_teacher") if role != "teacher" else ())):
            last = max(curves[f"{role}/val/{name}"])[1]
            assert last == pytest.approx(metrics[role]["last"]["val"][name], rel=1e-5, abs=1e-6), (role, name)


@pytest.mark.parametrize(
    ("loss", "batch_size", "ranks", "least"), [("rkd", 2, 1, 3), ("rkd", 8, 4, 3), ("sp", 1, 1, 2), ("cc", 2, 2, 2)]
)
def test_a_loss_that_compares_examples_has_enough_of_them(compose, monkeypatch, loss, batch_size, ranks, least):
    monkeypatch.setattr("tutelage.training.protocol_checks.is_up", lambda: ranks > 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: ranks)
    for size, refused in ((batch_size, True), (least * ranks, False)):
        stage = factory.stage_config(compose(*TINY, *QUIET, f"loss={loss}", f"data.batch_size={size}"), "student")
        module = factory.distillation_module(stage, factory.data(stage), factory.sources(stage), None)
        said = pytest.raises(TutelageError, match=f"needs at least {least}; with data.batch_size={size} each")
        with said if refused else nullcontext():
            module.dry_run(factory.data(stage))
