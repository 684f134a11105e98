"""Lean steps against Lightning's own: the same bits, counters, hooks and logs."""

from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import MagicMock

import lightning as L
import pytest
import torch
from lightning.pytorch.loops.progress import _OptimizerProgress
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import MixedPrecision
from omegaconf import open_dict

from tutelage.checkpoints.weights import digest
from tutelage.config import factory
from tutelage.training import fast_loop
from tutelage.training.fast_loop import LeanEpochLoop, Quiet

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|lr_scheduler.step).*")


class Watcher(Quiet):
    """Notes what it is called with, and the state that a checkpoint would hold at that moment."""

    def __init__(self, stop_at=None):
        self.seen, self.stop_at = [], stop_at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(("start", trainer.global_step, batch_idx, batch["key"].tolist(), self.state(trainer)))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.seen.append(("end", trainer.global_step, float(outputs["loss"]), rate, self.state(trainer)))
        if trainer.global_step == self.stop_at:
            trainer.should_stop = True

    def on_validation_end(self, trainer, pl_module):
        self.seen.append(("val", trainer.global_step, {k: float(v) for k, v in trainer.callback_metrics.items()}))

    @staticmethod
    def state(trainer):
        return trainer.fit_loop.epoch_loop.state_dict()


class Loud(L.Callback):
    """Logs at every batch, as users' callbacks do."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("seen", float(batch_idx))


class Logged(L.pytorch.loggers.logger.DummyLogger):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def log_metrics(self, metrics, step=None):
        self.lines.append((step, metrics))

    def save(self):
        pass


BASE = ("logger=none", "callbacks.progress=null", "data.batch_size=32", "trainer.log_every_n_steps=7",
        "trainer.max_epochs=2", "model@student=mlp", "student.net.dropout=0.5")  # fmt: skip


@pytest.fixture
def fit(compose, tmp_path):
    """``fit(loop, *overrides, stop_at=…, others=…)`` → trainer, module, watcher, logger."""

    def run(loop, *overrides, stop_at=None, others=(), **trainer_options):
        cfg = compose(*BASE, *overrides)
        with open_dict(cfg):
            cfg.trainer.update(trainer_options)
        stage = factory.stage_config(cfg, "student")
        data = factory.data(stage)
        module = factory.distillation_module(stage, data, factory.sources(stage), None)
        trainer = factory.trainer(stage, "student", tmp_path, tmp_path, len(data.train_dataloader()))
        trainer.callbacks += [watcher := Watcher(stop_at), *others]
        trainer.loggers = [logger := Logged()]
        assert type(trainer.fit_loop.epoch_loop) is LeanEpochLoop
        trainer.fit_loop.epoch_loop = loop(trainer, trainer.min_steps, trainer.max_steps)
        trainer.fit(module, datamodule=data)
        return trainer, module, watcher, logger

    return run


class Counted(LeanEpochLoop):
    """Counts its lean steps."""

    lean = 0

    def _step(self, data_fetcher):
        self.lean += 1
        super()._step(data_fetcher)


LEAN = {  # case → overrides, trainer options, lean steps of 2 × 18
    "as it is": ((), {}, 36 - 2 * 2 - 5),  # without each epoch's first and last, and the five that are logged
    "a schedule by step": (("scheduler=cosine", "scheduler.interval=step"), {}, None),
    "validation inside": ((), {"val_check_interval": 5}, None),
    "validation by steps": ((), {"val_check_interval": 11, "check_val_every_n_epoch": None}, None),
    "max_steps": ((), {"max_steps": 23}, None),
    "part of the batches": ((), {"limit_train_batches": 9}, None),
    "bf16": (("trainer.precision=bf16-mixed",), {}, None),
    "moving average": (("sources=ema_teacher",), {}, None),
    "an optimizer that asks several times": (
        ("optimizer._target_=torch.optim.LBFGS", "~optimizer.fused", "~optimizer.weight_decay", "optimizer.lr=0.1"),
        {"limit_train_batches": 8},
        None,
    ),
}


@pytest.mark.parametrize("case", LEAN)
def test_a_lean_run_is_lightnings_to_the_bit(fit, case):
    overrides, options, steps = LEAN[case]
    trainer, module, watcher, logger = fit(Counted, *overrides, **options)
    stock, same, expected, lines = fit(_TrainingEpochLoop, *overrides, **options)
    lean = trainer.fit_loop.epoch_loop.lean
    assert 0 < lean < trainer.global_step == stock.global_step
    assert steps is None or lean == steps
    assert digest(module.student.net.net) == digest(same.student.net.net)
    assert watcher.seen == expected.seen
    assert logger.lines == lines.lines
    assert str(trainer.optimizers[0].state_dict()) == str(stock.optimizers[0].state_dict())


@pytest.mark.parametrize("fused", [True, False])
def test_steps_with_a_scaled_loss_are_lightnings_to_the_bit(fit, monkeypatch, fused):
    """The scale starts so high that the first gradients overflow: those steps are left out, the scale is halved."""
    forward = factory.trainer

    def scaled(*arguments):
        trainer = forward(*arguments)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, growth_interval=5)
        trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)
        return trainer

    monkeypatch.setattr(factory, "trainer", scaled)
    trainer, module, watcher, logger = fit(Counted, f"optimizer.fused={fused}")
    stock, same, expected, lines = fit(_TrainingEpochLoop, f"optimizer.fused={fused}")
    assert trainer.fit_loop.epoch_loop.lean == 36 - 2 * 2 - 5
    assert digest(module.student.net.net) == digest(same.student.net.net)
    assert watcher.seen == expected.seen
    assert logger.lines == lines.lines
    assert trainer.precision_plugin.state_dict() == stock.precision_plugin.state_dict()
    assert trainer.precision_plugin.scaler.get_scale() < 2.0**40
    assert str(trainer.optimizers[0].state_dict()) == str(stock.optimizers[0].state_dict())
    assert int(trainer.optimizers[0].state_dict()["state"][0]["step"]) < 36


def test_a_callback_that_stops_stops_after_the_same_step(fit):
    trainer, module, watcher, _ = fit(Counted, stop_at=4)
    stock, same, expected, _ = fit(_TrainingEpochLoop, stop_at=4)
    assert trainer.global_step == stock.global_step == 4
    assert watcher.seen == expected.seen
    assert digest(module.student.net.net) == digest(same.student.net.net)


ORDINARY = {
    "a callback that logs": {"others": (Loud(),)},
    "clipping": {"gradient_clip_val": 0.5},
    "accumulation": {"accumulate_grad_batches": 2},
    "a profiler": {"profiler": "simple"},
    "anomalies": {"detect_anomaly": True},
    "validation by time": {"val_check_interval": "00:00:10:00"},
}


@pytest.mark.parametrize("case", ORDINARY)
def test_what_a_lean_step_leaves_out_gets_lightnings_steps(fit, case):
    trainer, module, watcher, _ = fit(Counted, **ORDINARY[case])
    _, same, expected, _ = fit(_TrainingEpochLoop, **ORDINARY[case])
    assert trainer.fit_loop.epoch_loop.lean == 0
    assert digest(module.student.net.net) == digest(same.student.net.net)
    assert watcher.seen == expected.seen


@pytest.mark.parametrize(("device", "moves"), [("cpu", 0), ("meta", 1)])
def test_a_batch_is_moved_to_the_device_unless_it_is_there(device, moves):
    moved, seen, batch = [], [], {"input": torch.zeros(2), "key": torch.zeros(2)}
    strategy = SimpleNamespace(
        root_device=torch.device(device), batch_to_device=lambda one: moved.append(one) or "there"
    )
    loop = MagicMock(_before=[], _after=[], _optimise=lambda own, index: seen.append(own))
    loop.trainer.strategy = strategy
    fetcher = MagicMock(__next__=lambda self: (batch, 0, 0))
    LeanEpochLoop._step(loop, fetcher)
    assert moved == [batch] * moves
    assert seen == ["there" if moves else batch]


@pytest.mark.parametrize(
    ("why", "scaler", "said"),
    [
        (None, None, None),
        ("it's a CPU", None, "it's a CPU"),
        (None, "scaler", "trainer.precision=16-mixed scales the loss by a factor that changes"),
        ("it's a CPU", "scaler", "it's a CPU"),
    ],
)
def test_a_graph_is_made_of_the_same_step_unless_something_prevents_it(monkeypatch, caplog, why, scaler, said):
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer, asked = torch.optim.SGD([weight], lr=0.5), []
    module = SimpleNamespace(
        training_step=lambda batch, number: asked.append(number) or weight * batch,
        objective=torch.nn.Identity(), student=torch.nn.Linear(1, 1),
    )  # fmt: skip
    precision = SimpleNamespace(scaler=scaler, train_step_context=nullcontext)
    trainer = SimpleNamespace(
        lightning_module=module, optimizers=[optimizer], precision="16-mixed", precision_plugin=precision,
        strategy=SimpleNamespace(root_device="cuda"),
    )  # fmt: skip
    monkeypatch.setattr(fast_loop, "why_not", lambda *given: why if given == (module, optimizer, "cuda", True) else "?")
    monkeypatch.setattr(fast_loop, "GraphedStep", lambda *given: given)
    loop = SimpleNamespace(trainer=trainer, _lean=True, graph="auto")
    made = LeanEpochLoop._make_graphed(loop)
    if said:
        assert (made, loop.graph) == (None, "never")
        assert f"graph=auto: steps run eagerly: {said}" in caplog.text
        return
    step, *rest = made
    assert rest == [optimizer, module, [module.objective, module.student]]
    weight.grad = torch.tensor(100.0)  # of the step before
    with torch.no_grad():
        loss = step(3.0)
    assert (float(loss), loss.requires_grad, weight.item(), asked) == (3.0, False, 1 - 0.5 * 3, [0])
    assert loop.graph == "auto"


def test_a_replayed_step_counts_as_an_eager_one_and_one_that_is_not_replayed_is_eager():
    weight, found = torch.nn.Parameter(torch.ones(())), []
    module = SimpleNamespace(
        on_train_batch_start=lambda batch, index: ("started", batch, index),
        training_step=lambda batch, _: weight * batch,
    )
    trainer = SimpleNamespace(
        lightning_module=module, optimizers=[torch.optim.SGD([weight], lr=0.5)],
        precision_plugin=SimpleNamespace(train_step_context=nullcontext),
    )  # fmt: skip
    for replayed in (torch.tensor(7.0), None):
        counts, begun = _OptimizerProgress(), []
        loop = SimpleNamespace(
            trainer=trainer, _graphed=lambda batch, begin, begun=begun, own=replayed: begun.append(begin()) or own,
            automatic_optimization=SimpleNamespace(optim_progress=SimpleNamespace(optimizer=counts)),
        )  # fmt: skip
        before = weight.item()
        loss = LeanEpochLoop._optimise(loop, 2.0, 5)
        assert begun == [("started", 2.0, 5)]
        assert loss.item() == (2.0 if replayed is None else 7.0)
        assert weight.item() == (before - 0.5 * 2 if replayed is None else before)
        found.append(counts.state_dict())
    assert found[0] == found[1]


def test_hooks_of_a_module_are_called(fit, monkeypatch):
    called = []
    kind = factory.DistillationModule

    class Own(kind):
        def on_after_backward(self):
            called.append(self.global_step)

    monkeypatch.setattr(factory, "DistillationModule", Own)
    trainer, *_ = fit(Counted)
    assert trainer.fit_loop.epoch_loop.lean == 0
    assert called == list(range(36))


def test_a_loss_that_breaks_is_named_in_a_lean_step(fit, monkeypatch):
    forward = torch.nn.Linear.forward
    calls = iter(range(10_000))

    def broken(self, x):
        return forward(self, x) * (float("nan") if next(calls) == 20 else 1.0)

    monkeypatch.setattr(torch.nn.Linear, "forward", broken)
    with pytest.raises(Exception, match="the loss is nan at epoch 0, batch"):
        fit(Counted)


@pytest.mark.parametrize("log_every", [0, 1, 4, 50])
@pytest.mark.parametrize("validated", [(None, 1), (5, 1), (5, None)])  # every so many batches, of an epoch or of all
@pytest.mark.parametrize("max_steps", [-1, 12])
def test_the_steps_that_are_free_are_those_that_nothing_follows(log_every, validated, max_steps):
    """Counted from every batch of two epochs of ten, against each step's own reasons to be Lightning's."""
    batches, (val_check, every_epochs) = 10, validated

    def is_lightnings(step):
        index = step % batches
        counted = step if every_epochs is None else index
        return (
            index in (0, batches - 1)
            or (log_every and (step + 1) % log_every == 0)
            or (val_check and (counted + 1) % val_check == 0)
            or step + 1 == max_steps
        )

    trainer = SimpleNamespace(
        num_training_batches=batches, log_every_n_steps=log_every, check_val_every_n_epoch=every_epochs,
        val_check_batch=float("inf") if val_check is None else val_check,
    )  # fmt: skip
    for step in range(2 * batches if max_steps < 0 else max_steps):
        progress = SimpleNamespace(current=SimpleNamespace(ready=step % batches), total=SimpleNamespace(ready=step))
        loop = SimpleNamespace(
            trainer=trainer, batch_progress=progress, restarting=False, logging_step=step, max_steps=max_steps,
            global_step=step,
        )  # fmt: skip
        following = range(step, step // batches * batches + batches)
        free = next(count for count, one in enumerate(following) if is_lightnings(one))
        assert LeanEpochLoop._free(loop) == free
        loop.restarting = True
        assert LeanEpochLoop._free(loop) == 0
