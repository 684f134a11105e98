"""Callbacks that keep weights beside the network's, on a simulated GPU: the files hold what the CPU's would."""

from pathlib import Path

import pytest
import torch
from on_device import fit, states
from safetensors.torch import load_file

from tutelage.config import factory

SMALL = (
    "data.batch_size=8", "data.val_size=8", "data.test_size=1600", "data.eval_batch_size=8", "trainer.max_epochs=1",
    "+trainer.limit_train_batches=2", "trainer.log_every_n_steps=2", "logger=none", "callbacks.progress=null",
    "model@teacher=resnet8", "model@student=resnet8",
)  # fmt: skip
CASES = {
    "a moving average": ("callbacks=ema",),
    "weights of every epoch": (
        "+callbacks.every_epoch={_target_: tutelage.training.callbacks.every_epoch.EveryEpoch}",
    ),
}


def weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {str(path.relative_to(folder)): load_file(path) for path in sorted(folder.rglob("*.safetensors"))}


@pytest.mark.parametrize("case", CASES)
def test_what_a_callback_keeps_on_a_gpu_is_what_it_keeps_on_the_cpu(compose, tmp_path, case):
    stage = factory.stage_config(compose(*SMALL, *CASES[case]), "student")
    data = factory.data(stage)
    found, _ = fit(stage, tmp_path / "gpu", data, "cuda")
    expected, _ = fit(stage, tmp_path / "cpu", data, "cpu")
    assert (found.average is not None) == (case == "a moving average")
    reached = dict(states(found))
    for name, tensor in states(expected):
        assert torch.equal(reached[name], tensor), name
    files, others = weights(tmp_path / "gpu"), weights(tmp_path / "cpu")
    assert files.keys() == others.keys()
    assert len(files) == (1 if case == "a moving average" else 2)
    for file, tensors in files.items():
        assert tensors
        assert all(torch.equal(tensor, others[file][name]) for name, tensor in tensors.items()), file
