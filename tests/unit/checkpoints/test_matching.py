"""Weights whose names are not the network's, and weights of a part of it."""

import re

import pytest
import torch
from torch import nn

from tutelage.checkpoints.weights import load_into
from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped


class Body(nn.Module):
    def __init__(self, seed=0, classes=2):
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
        self.head = nn.Linear(3, classes)

    def forward(self, x):
        return self.head(self.blocks(x))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "w.pt"


def theirs(seed=1):
    """Another implementation's names of the same network."""
    names = {"blocks.0": "encoder.layer0.fc", "blocks.1": "encoder.layer1.fc", "head": "classifier"}
    own = Body(seed).state_dict()
    return {f"{names[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tensor for name, tensor in own.items()}


def equal(net, other):
    return all(torch.equal(one, other.state_dict()[name]) for name, one in net.state_dict().items())


RENAME = {"encoder.layer*.fc": "blocks.*", "classifier": "head"}


@pytest.mark.parametrize("prefix", ["", "module.", "net.classifier."])
def test_a_rename_map_gives_the_names_of_the_network(file, prefix):
    torch.save({"model": {prefix + name: tensor for name, tensor in theirs().items()}}, file)
    net = Body()
    with pytest.raises(TutelageError, match="does not fit Body"):
        load_into(net, file)
    load_into(net, file, rename=RENAME, prefix=prefix)
    assert equal(net, Body(1))


def test_a_prefix_may_be_left_out_beside_a_rename_map_and_parts_may_go(file):
    torch.save({f"module.inner.{name}": tensor for name, tensor in theirs().items()}, file)
    net = Body()
    load_into(net, file, rename={"inner.encoder": "", "inner": "", "layer*.fc": "blocks.*", "classifier": "head"})
    assert equal(net, Body(1))


def test_a_pattern_is_whole_parts_of_a_name(file):
    torch.save({"head.weight": torch.ones(2, 3), "ahead.bias": torch.ones(2)}, file)
    with pytest.raises(TutelageError) as told:
        load_into(nn.ModuleDict({"top": nn.Linear(3, 2)}), file, rename={"head": "top"})
    assert "ahead.bias" in str(told.value)
    assert "top.weight" not in str(told.value)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"clasifier": "head"}, "no name in .*w.pt has 'clasifier'; did you mean 'classifier'"),
        ({"encoder.layer*": "same"}, "'encoder.layer0.fc.weight' and 'encoder.layer1.fc.weight' of .* both become"),
        ({"classifier": "head.*"}, re.escape("'head.*' has more * than 'classifier'")),
    ],
)
def test_a_rename_map_that_cannot_be_meant(file, rename, message):
    torch.save(theirs(), file)
    with pytest.raises(TutelageError, match=message):
        load_into(Body(), file, rename=rename)


def test_a_part_is_loaded_only_if_asked_and_all_else_is_listed(file):
    state = Body(1, classes=5).state_dict() | {"head.scale": torch.ones(1)}
    del state["blocks.1.bias"]
    torch.save({"net": {f"module.{name}": tensor for name, tensor in state.items()}}, file)
    net = Body(2)
    with pytest.raises(TutelageError, match="does not fit Body"):
        load_into(net, file)
    said = load_into(net, file, strict=False)
    for line in (
        "key 'net', prefix 'module.'; 3 of the network's 6 tensors",
        "missing from the file (1): blocks.1.bias",
        "unexpected in the file (1): head.scale",
        "of another shape (2): head.bias [5] in the file, [2] in the network",
    ):
        assert line in said
    assert torch.equal(net.blocks[0].weight, Body(1).blocks[0].weight)
    assert torch.equal(net.blocks[1].bias, Body(2).blocks[1].bias)
    assert torch.equal(net.head.weight, Body(2).head.weight)


def test_the_largest_matching_part_is_loaded_and_two_are_a_question(file):
    body = {name: tensor for name, tensor in Body(1).state_dict().items() if name.startswith("blocks")}
    head = {name: tensor for name, tensor in Body(2).state_dict().items() if name.startswith("head")}
    torch.save({"body": body, "head": head}, file)
    net = Body(3)
    assert load_into(net, file, strict=False).startswith("key 'body'; 4 of the network's 6 tensors")
    torch.save({"one": body, "two": {name: tensor + 1 for name, tensor in body.items()}}, file)
    with pytest.raises(TutelageError, match=r"2 different sets of weights that fit Body.*key=one or key=two"):
        load_into(net, file, strict=False)


def test_nothing_in_common_is_refused_even_if_a_part_would_do(file):
    torch.save({"other.weight": torch.ones(2, 3)}, file)
    with pytest.raises(TutelageError, match="does not fit Body"):
        load_into(Body(), file, strict=False)


def test_any_network_of_a_yaml_starts_from_a_file(file):
    torch.save({"ema": {f"teacher.{name}": tensor for name, tensor in theirs().items()}}, file)
    made = Tapped(Body(), pretrained={"file": str(file), "key": "ema", "prefix": "teacher", "rename": RENAME})
    assert equal(made.net, Body(1))
    assert made.loaded == f"weights loaded from {file}: key 'ema', prefix 'teacher.'"
    with pytest.raises(TutelageError, match="pretrained takes no 'renam'; did you mean 'rename'"):
        Tapped(Body(), pretrained={"file": str(file), "renam": RENAME})
    with pytest.raises(TutelageError, match="must be a file of weights"):
        Tapped(Body(), pretrained={"key": "ema"})
