"""A step that nobody looks at neither reads a value of the device nor copies from the host."""

from pathlib import Path

import pytest
import torch
from omegaconf import open_dict
from syncs import Watch, watched_steps

from tutelage.config import factory
from tutelage.config.paths import conf_dir
from tutelage.sources.cached import Cached, topk_compress
from tutelage.sources.recorded import Recorded
from tutelage.sources.store import Column, Writer
from tutelage.training.fast_loop import LeanEpochLoop

LOSSES = sorted(path.stem for path in Path(conf_dir(), "loss").glob("[!_]*.yaml"))

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|in eval mode|val_dataloader|validation_step).*")


@pytest.fixture
def steps(compose, tmp_path, monkeypatch):
    """``steps(*overrides)`` → of each lean step of a short training, what it did that waits or copies."""

    def run(*overrides, sources=None):
        cfg = compose("logger=none", "callbacks.progress=null", "model@teacher=mlp", "model@student=mlp", *overrides)
        with open_dict(cfg):
            if "3" in str(cfg.loss.get("stages")) and "cnn" in str(overrides):
                cfg.loss.stages = [stage for stage in cfg.loss.stages if "3" not in stage]  # it has two
            cfg.trainer.max_epochs, cfg.trainer.limit_train_batches, cfg.trainer.limit_val_batches = 1, 7, 0
            del cfg.callbacks.best
        stage = factory.stage_config(cfg, "student")
        data = factory.data(stage)
        module = factory.distillation_module(stage, data, sources or factory.sources(stage), None)
        trainer = factory.trainer(stage, "student", tmp_path, tmp_path, 100)
        with watched_steps(monkeypatch) as found:
            trainer.fit(module, datamodule=data)
        return found

    return run


@pytest.mark.long
@pytest.mark.parametrize("loss", LOSSES)
def test_no_loss_waits(steps, loss):
    pair = "resnet8" if loss in ("cat_kd", "ft", "ofd", "sdd", "simkd") else "cnn"
    student = "soft_tree" if loss == "soft_tree" else pair
    found = steps(f"loss={loss}", f"model@teacher={pair}", f"model@student={student}")
    assert found == [[]] * 5


AUGMENTED = (
    "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}, {_target_: tutelage.data.augment.Flip}]",
)
CASES = {
    "augmentation": AUGMENTED,
    "mixed images in several views": (
        *AUGMENTED, "data.mix={_target_: tutelage.data.mix.Mix}",
        "data.sampler={_target_: tutelage.data.samplers.Repeated}",
    ),
    "dropout, max-norm and a schedule by step": (
        "student.net.dropout=0.5", "callbacks=max_norm", "scheduler=cosine", "scheduler.interval=step",
    ),
    "bf16-mixed": ("trainer.precision=bf16-mixed",),
    "adamw": ("optimizer=adamw",),
    "sgd": ("optimizer=sgd",),
    "momentum": ("sources=ema_teacher",),
    "an ensemble": ("sources=ensemble", "ensemble.size=2"),
    "two losses": ("loss=[soft_target,fitnet]", "model@teacher=cnn", "model@student=cnn"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_no_source_callback_or_optimizer_waits(steps, case):
    assert steps(*CASES[case]) == [[]] * 5


@pytest.mark.parametrize("top", [None, 3])
@pytest.mark.parametrize("kind", ["cached", "recorded"])
def test_what_a_teacher_said_before_is_read_without_waiting(steps, tmp_path, kind, top):
    key, logits = torch.arange(1797), torch.randn(1797, 10)
    if kind == "recorded":
        source = Recorded(key, logits)
    else:
        signals = {"logits": logits} if top is None else topk_compress(logits, top)
        columns = [
            Column(name, tuple(x.shape[1:]), "float32" if x.is_floating_point() else "int32")
            for name, x in signals.items()
        ]
        (tmp_path / "signals").mkdir()
        writer = Writer(tmp_path / "signals", columns, key, 1)
        writer.write(0, 0, signals)
        writer.finish({})
        source = Cached(None, str(tmp_path / "signals"))
    assert steps(sources={"teacher": source}) == [[]] * 5


# What can't do without: the number of labelled rows is not known before, and specialists search for their answer.
WAITING = {
    "labels of some examples": (("data.labelled=200",), {"aten.nonzero"}),
    "specialists": (
        ("sources=specialists", "sources.teacher.groups=[[0,6],[2,4]]"),
        {"aten.nonzero", "__bool__", "__float__", "aten._local_scalar_dense", "aten.lift_fresh"},
    ),
}


@pytest.mark.parametrize("case", WAITING)
def test_what_waits_is_known(steps, case):
    overrides, expected = WAITING[case]
    found = {name for step in steps(*overrides) for name in step}
    assert found
    assert found <= expected


def test_the_watch_sees_what_waits():
    x = torch.tensor([1.0, 0.0])
    for wait in (
        lambda: x.sum().item(), lambda: bool(x[0]), lambda: x.nonzero(), lambda: x[x > 0], lambda: x.tolist(),
        lambda: x.unique(), lambda: torch.tensor([1.0, 2.0]), lambda: x.masked_select(x > 0), lambda: float(x[0]),
    ):  # fmt: skip
        with Watch() as watch, watch.calls:
            wait()
        assert watch.found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: CUDA itself says what waits there")
@pytest.mark.parametrize("overrides", [(), AUGMENTED, ("sources=ema_teacher",), ("trainer.precision=bf16-mixed",)])
def test_on_a_gpu_no_step_waits_and_none_copies_from_the_host(compose, tmp_path, monkeypatch, overrides):
    step, copies = LeanEpochLoop._step, []

    def strict(self, data_fetcher):
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
                step(self, data_fetcher)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        copies.append([event.name for event in profiler.events() if "Memcpy HtoD" in event.name])

    monkeypatch.setattr(LeanEpochLoop, "_step", strict)
    cfg = compose("logger=none", "callbacks.progress=null", "+trainer.limit_train_batches=9", *overrides)
    with open_dict(cfg):
        cfg.trainer.max_epochs = 1
    stage = factory.stage_config(cfg, "student")
    data = factory.data(stage)
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    factory.trainer(stage, "student", tmp_path, tmp_path, 100).fit(module, datamodule=data)
    assert copies
    assert copies == [[]] * len(copies)
