"""Every choice of ``loss`` on a simulated GPU: nothing mixes devices, and every number is the CPU's."""

from pathlib import Path

import pytest
import torch
from on_device import ORDER, first, fit, states

from tutelage.config import factory
from tutelage.config.paths import conf_dir

pytestmark = pytest.mark.long  # two trainings of each loss

LOSSES = sorted(path.stem for path in Path(conf_dir(), "loss").glob("[!_]*.yaml"))
SMALL = (
    "data.batch_size=8", "data.val_size=8", "data.test_size=1600", "data.eval_batch_size=8", "trainer.max_epochs=1",
    "+trainer.limit_train_batches=2", "trainer.log_every_n_steps=2", "logger=none", "callbacks.progress=null",
    "model@teacher=resnet8", "data.labelled=90",  # of a batch some rows have no label
)  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
def test_a_training_on_a_gpu_is_one_on_the_cpu(compose, tmp_path, loss):
    student = f"model@student={'soft_tree' if loss == 'soft_tree' else 'resnet8'}"
    short = [f"loss.terms.{loss}.loss.epochs=1"] if loss in ("ft", "mhgd") else []  # both learn from the teacher first
    cfg = compose(*SMALL, f"loss={loss}", student, *short)
    stage = factory.stage_config(cfg, "student")
    data = factory.data(stage)
    found, hooks = fit(stage, tmp_path / "gpu", data, "cuda")
    assert first(hooks) == list(ORDER)
    expected, _ = fit(stage, tmp_path / "cpu", data, "cpu")
    reached = dict(states(found))
    for name, tensor in states(expected):
        assert torch.equal(reached[name], tensor), name
