"""``tutelage evaluate`` refuses what it can't measure with one sentence."""

import pytest
import torch

from tutelage.checkpoints.weights import save_network
from tutelage.models.mlp import MLP

DATA = {
    "_target_": "tutelage.data.digits.Digits", "num_classes": 10, "input_shape": [1, 8, 8], "batch_size": 32,
    "val_size": 600, "test_size": 597, "seed": 0, "mean": [0.3053], "std": [0.376],
}  # fmt: skip


@pytest.fixture
def weights(tmp_path):
    """``weights(shape, classes)`` → file of a network of digits."""

    def write(shape, classes):
        given = {"input_shape": list(shape), "widths": [4], "num_classes": classes}
        net = {"_target_": "tutelage.models.mlp.MLP", **given}
        path = tmp_path / f"{shape[-1]}-{classes}.safetensors"
        save_network(MLP(shape, [4], classes), path, {"stage": "student", "network": net, "data": DATA})
        return path

    return write


def test_a_teacher_that_does_not_fit_the_data_is_refused(main, weights):
    own = f"checkpoint={weights((1, 8, 8), 10)}"
    assert main("evaluate", own).code == 0
    answer = main("evaluate", own, f"teacher={weights((3, 32, 32), 10)}")
    assert (answer.code, "32-10.safetensors can't answer these data, of [1, 8, 8]: mat1" in answer.message) == (1, True)
    answer = main("evaluate", own, f"teacher={weights((1, 8, 8), 3)}")
    assert answer.code == 1
    assert "8-3.safetensors gives logits [1, 3] for these data, the network [1, 10]" in answer.message


@pytest.mark.parametrize("verb", ["evaluate", "predict input=a.csv output=b.csv"])
def test_a_device_that_is_not_there_is_refused(main, weights, verb, monkeypatch):
    def absent(*size, device):
        raise AssertionError("Torch not compiled with CUDA enabled")

    own = weights((1, 8, 8), 10)
    monkeypatch.setattr(torch, "empty", absent)
    answer = main(*verb.split(), f"checkpoint={own}", "device=cuda")
    assert answer.code == 1
    assert (
        "device=cuda can't be used here (cpu, cuda, cuda:1 …): Torch not compiled with CUDA enabled" in answer.message
    )


def test_a_folder_is_no_checkpoint(main, tmp_path):
    answer = main("evaluate", f"checkpoint={tmp_path}")
    assert answer.code == 1
    assert "is a folder; expected a file of weights" in answer.message


def test_an_argument_that_the_data_do_not_take_is_named(main, weights):
    answer = main("evaluate", f"checkpoint={weights((1, 8, 8), 10)}", "+data.root=x")
    assert answer.code == 1
    assert "data.root: tutelage.data.digits.Digits takes no 'root'" in answer.message
