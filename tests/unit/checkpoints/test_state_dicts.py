"""Weights in files as other tools write them."""

import argparse
import functools
from collections import defaultdict
from pathlib import Path, PurePosixPath

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tutelage.checkpoints.weights import digest, load_into, read_state
from tutelage.errors import TutelageError


class Body(nn.Module):
    """A user's network; a whole one in a file names this class."""

    def __init__(self, seed: int = 0, width: int = 3):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Dropout(0.1))
        self.head = nn.Linear(width, 2)
        self.register_buffer("scale", torch.ones(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x)) * self.scale


def under(prefix: str, net: nn.Module) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in net.state_dict().items()}


def loaded(path: Path, **where: str) -> str:
    """The digest of what a network gets from the file."""
    net = Body(seed=9)
    load_into(net, path, **where)
    return digest(net)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "w.pt"


def test_two_networks_in_a_file_are_refused_until_it_is_said_which(file):
    torch.save({"state_dict": under("student.", Body(1)) | under("teacher.net.", Body(2))}, file)
    told = r"2 different sets of weights that fit.*prefix=student\. or prefix=teacher\.net\..*sources\.teacher\.prefix="
    with pytest.raises(TutelageError, match=told):
        loaded(file)
    assert loaded(file, prefix="teacher.net.") == loaded(file, prefix="teacher.net") == digest(Body(2))
    assert loaded(file, prefix="student.") == digest(Body(1))
    with pytest.raises(TutelageError, match=r"no tensor under prefix=tacher\.; did you mean 'teacher'"):
        loaded(file, prefix="tacher")


def test_a_network_beside_its_average_under_another_prefix(file):
    torch.save(under("", Body(1)) | under("ema.", Body(2)), file)
    with pytest.raises(TutelageError, match=r"prefix='' or prefix=ema\."):
        loaded(file)
    assert loaded(file, prefix="") == digest(Body(1))
    assert loaded(file, prefix="ema") == digest(Body(2))


def test_two_entries_of_a_checkpoint_are_refused_until_it_is_said_which(file):
    torch.save({"model": Body(1).state_dict(), "ema": {"shadow": under("module.", Body(2))}, "epoch": 3}, file)
    with pytest.raises(TutelageError, match=r"key=model prefix='' or key=ema\.shadow prefix=module\."):
        loaded(file)
    assert loaded(file, key="ema.shadow") == digest(Body(2))
    assert digest(read_state(file, "model")) == digest(Body(1))
    with pytest.raises(TutelageError, match=r"has 2 state dicts; choose one: key=model or key=ema\.shadow"):
        read_state(file)
    with pytest.raises(TutelageError, match=r"no state dict under key=modl; did you mean 'model'"):
        loaded(file, key="modl")


def test_equal_weights_twice_are_no_question(file):
    torch.save({"model": Body(1).state_dict(), "best": under("module.", Body(1))}, file)
    assert loaded(file) == digest(Body(1))


def test_only_entries_that_fit_count(file):
    torch.save({"student": Body(1, width=5).state_dict(), "teacher": Body(2).state_dict()}, file)
    assert loaded(file) == digest(Body(2))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "ema", "whatever"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "model.backbone."])
def test_a_wrapped_state_beside_an_optimizer_s(file, key, prefix):
    optimizer = torch.optim.Adam(Body(1).parameters())
    torch.save({key: under(prefix, Body(1)), "optimizer": optimizer.state_dict(), "epoch": 3, "args": None}, file)
    net = Body(9)
    said = load_into(net, file)
    assert digest(net) == digest(Body(1))
    assert key in said
    assert prefix.replace("_orig_mod.", "") in said
    assert loaded(file, prefix=prefix) == digest(net)


def test_inner_wrappers_of_compile_and_fsdp(file):
    state = {name.replace("layers.", "layers._orig_mod."): x for name, x in Body(1).state_dict().items()}
    torch.save({f"_fsdp_wrapped_module.{name}": x for name, x in state.items()}, file)
    assert loaded(file) == digest(Body(1))


def test_what_else_a_lightning_module_has_is_left_and_counted(file):
    torch.save({"state_dict": under("net.", Body(1)) | {"criterion.weight": torch.ones(3)}}, file)
    assert load_into(Body(9), file) == "key 'state_dict', prefix 'net.'; 1 other tensors are not used"


def test_torch_s_average_and_batches_that_nobody_counted(file):
    torch.save(AveragedModel(Body(1)).state_dict(), file)
    assert loaded(file) == digest(Body(1))
    state = Body(1).state_dict()
    del state["layers.1.num_batches_tracked"]
    torch.save(state, file)
    assert loaded(file) == digest(Body(1))


class Odd(dict):
    """A dictionary of a class of its own, as Lightning's hyperparameters are."""


def executed(*_: object) -> None:
    raise AssertionError("code of the file ran")


class Trap:
    def __reduce__(self):
        return executed, (1,)


def test_lightning_checkpoints_with_odd_hyperparameters(file):
    odd = Odd(a=1, path=PurePosixPath("x"), part=functools.partial(torch.optim.Adam, lr=0.1), trap=Trap())
    odd |= {"args": argparse.Namespace(lr=1, trap=Trap()), "count": defaultdict(list, a=[1])}
    torch.save({"state_dict": under("net.", Body(1)), "hyper_parameters": odd, "callbacks": {Body: {"x": 1}}}, file)
    assert loaded(file) == digest(Body(1))


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: {"model": net, "epoch": 1}, nn.DataParallel])
def test_a_whole_pickled_network_gives_its_weights_and_runs_nothing(file, wrap, monkeypatch):
    torch.save(wrap(Body(1)), file)
    monkeypatch.setattr(Body, "__setstate__", executed, raising=False)
    assert loaded(file) == digest(Body(1))


def test_what_does_not_fit_is_listed(file):
    state = Body(1, width=5).state_dict()
    state["head.wieght"] = state.pop("head.weight")
    torch.save({"model": under("module.", Body(1)) and {f"module.{name}": x for name, x in state.items()}}, file)
    with pytest.raises(TutelageError) as told:
        loaded(file)
    message = str(told.value)
    assert f"{file} (key 'model', prefix 'module.') does not fit Body:" in message
    assert "missing from the file (1): head.weight" in message
    assert "unexpected in the file (1): head.wieght" in message
    assert "layers.0.weight [5, 2] in the file, [3, 2] in the network" in message
    assert "did you mean 'head.wieght'?" in message


def test_ten_of_many_are_listed(file):
    torch.save({f"other.{number}": torch.ones(1) for number in range(30)}, file)
    with pytest.raises(TutelageError, match=r"unexpected in the file \(30\): .*, and 20 more"):
        loaded(file)


def test_quantised_weights_are_not_taken_for_numbers(file):
    state = Body(1).state_dict()
    state["head.weight"] = torch.ones(2, 3, dtype=torch.int8)
    torch.save(state, file)
    with pytest.raises(TutelageError, match=r"head\.weight \[2, 3\] torch\.int8 in the file"):
        loaded(file)


def test_a_tensor_that_claims_to_be_enormous_is_never_laid_out(file):
    state = Body(1).state_dict()
    state["head.weight"] = torch.ones(1).expand(10**6, 10**6)
    torch.save(state, file)
    with pytest.raises(TutelageError, match=r"head\.weight \[1000000, 1000000\] in the file, \[2, 3\]"):
        loaded(file)
