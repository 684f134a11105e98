"""Whole jobs on a simulated GPU, to the CPU's bits: every kind of teacher, caches, stacks, resumption, evaluation."""

from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from command import PAIR
from faults import StruckError
from runs import artifacts, figures, weights
from simulated_gpu import simulated_gpus

pytestmark = pytest.mark.slow

SMALL = (
    *PAIR, "data.batch_size=16", "data.val_size=40", "data.test_size=1690", "trainer.max_epochs=2",
    "+trainer.limit_train_batches=3", "trainer.log_every_n_steps=2", "logger=none", "callbacks.progress=null",
)  # fmt: skip
SHIFTED = "data.augment=[{_target_: tutelage.data.augment.Shift, pixels: 1}]"
DROPOUT = ("student.net.dropout=0.3", "teacher.net.dropout=0.3")
TEACHERS = {
    "live": (*DROPOUT, "sources.teacher.cache=false", "callbacks=max_norm", "stages.teacher.weights=0"),
    "cached": ("loss=crd", "sources=cached", "data.labelled=30"),
    "cached by views": ("sources=cached", SHIFTED, "data.views=2", "sources.teacher.dtype=bfloat16"),
    "cached top classes": ("sources=cached", "sources.teacher.top=3"),
    "ensemble": ("sources=ensemble", "ensemble.size=2", "sources.teacher.weights=validation", "generations=1"),
    "ensemble live": ("sources=ensemble", "ensemble.size=2", "sources.teacher.cache=false"),
    "specialists": ("sources=specialists", "sources.teacher.cache=false", "sources.teacher.top=2"),
    "momentum": ("sources=ema_teacher", "scheduler=cosine"),
    "recorded": ("sources=recorded", "sources.teacher.kind=logits", "sources.teacher.path=teacher.npy"),
    "asked": (
        "sources=black_box", "sources.teacher.ask={_target_: black_boxes.Linear, diary: diary.txt}",
        "sources.teacher.kind=logits", "sources.teacher.name=linear",
    ),
    "adapted": (
        "+teacher.adapter={_target_: tutelage.models.adapter.Renormalise, mean: [0.3], std: [0.2], to_mean: [0.1], "
        "to_std: [0.5]}",
        "trainer.precision=bf16-true", "sources.teacher.cache=false",
    ),
}  # fmt: skip


@contextmanager
def on(accelerator):
    with simulated_gpus() if accelerator == "cuda" else nullcontext():
        yield


@pytest.fixture
def on_both(main, tmp_path):
    """``on_both(*overrides)`` runs a job on the CPU and on a simulated GPU; their folders."""

    def run(*overrides):
        for accelerator in ("cpu", "cuda"):
            own = (
                f"trainer.accelerator={accelerator}",
                f"paths.outputs={accelerator}",
                f"hydra.run.dir={accelerator}/run",
            )
            with on(accelerator):
                answer = main("distill", *SMALL, *overrides, *own)
            assert answer.code == 0, answer.message
        return tmp_path / "cpu", tmp_path / "cuda"

    return run


@pytest.mark.long
@pytest.mark.parametrize("teacher", TEACHERS)
def test_every_teacher_teaches_there(on_both, tmp_path, teacher):
    np.save(tmp_path / "teacher.npy", np.random.default_rng(0).normal(size=(1797, 10)).astype(np.float32))
    cpu, cuda = on_both(*TEACHERS[teacher])
    assert weights(cuda / "run") == weights(cpu / "run")
    found, expected = figures(cuda / "run"), figures(cpu / "run")
    assert all(found.get(role) == expected.get(role) for role in ("teacher", "control", "student"))
    if "cache" in teacher:
        assert len(artifacts(cuda / "artifacts", "signals")) == 1


@pytest.mark.long
def test_a_run_goes_on_there(main, tmp_path):
    """Optimizer, moving average, banks and chance come back from a file, which is read on the host."""
    job = (*SMALL, "sources=ema_teacher", "loss=[soft_target,ps_kd]", *DROPOUT, "trainer.accelerator=cuda")
    crash = f"+callbacks.crash={{_target_: faults.CrashAt, stage: student, step: 5, marker: {tmp_path}/marker}}"
    saves = "callbacks.recovery.every_n_steps=2"
    with on("cuda"):
        whole = main("distill", *job, saves, "hydra.run.dir=whole", "paths.outputs=a")
        struck = main("distill", *job, saves, crash, "hydra.run.dir=struck", "paths.outputs=b")
        again = main("distill", *job, saves, crash, "hydra.run.dir=struck", "paths.outputs=b")
    assert (whole.code, again.code) == (0, 0), again.message
    assert struck.code == 1
    assert StruckError.__name__ in struck.message
    assert weights(tmp_path / "struck") == weights(tmp_path / "whole")


@pytest.mark.long
def test_students_train_as_one_there(main, tmp_path):
    grid = *SMALL, *DROPOUT, SHIFTED, "seed=0,1", "loss.temperature=1,4"
    for accelerator in ("cpu", "cuda"):
        where = (
            f"paths.outputs={accelerator}",
            f"hydra.sweep.dir={accelerator}/sweep",
            f"trainer.accelerator={accelerator}",
        )
        with on(accelerator):
            answer = main("distill", "-m", "launcher=stacked", *grid, *where)
        assert answer.code == 0, answer.message
        assert "training 4 students, 2 controls as one" in answer.out
    jobs = sorted(path.name for path in (tmp_path / "cpu" / "sweep").iterdir() if path.is_dir())
    assert len(jobs) == 4
    assert weights(tmp_path / "cuda" / "sweep") == weights(tmp_path / "cpu" / "sweep")


def test_a_file_is_evaluated_there(main, tmp_path):
    assert main("distill", *SMALL, "hydra.run.dir=run").code == 0
    found = {}
    for device in ("cpu", "cuda"):
        with on(device):
            answer = main(
                "evaluate", "checkpoint=run/checkpoints/best.safetensors", f"device={device}",
                f"hydra.run.dir={device}",
            )  # fmt: skip
        assert answer.code == 0, answer.message
        found[device] = (tmp_path / device / "metrics.json").read_text()
    assert found["cpu"] == found["cuda"]
