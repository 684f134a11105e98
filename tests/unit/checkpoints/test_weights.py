import json
import random
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from tutelage.checkpoints.weights import about, digest, load_into, read_state, save_network
from tutelage.errors import TutelageError


def net(width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def test_digest_is_of_names_types_shapes_and_bytes_alone():
    one = net()
    first = digest(one)
    assert first == digest(dict(reversed(one.state_dict().items())))
    state = one.state_dict()
    assert first == digest({**state, "0.weight": state["0.weight"].t().contiguous().t()})
    for changed in (
        {**state, "0.bias": state["0.bias"] + 1e-7},
        {**state, "0.bias": state["0.bias"].double()},
        {**state, "0.bias": state["0.bias"][None]},
        {**{k: v for k, v in state.items() if k != "0.bias"}, "0.bais": state["0.bias"]},
        {k: v for k, v in state.items() if k != "0.bias"},
        {**state, "1.num_batches_tracked": torch.tensor(1)},
    ):
        assert digest(changed) != first


@given(st.integers(0, 2**31), st.integers(0, 30))
def test_digest_sees_every_single_bit(bit, width):
    x = torch.zeros(width + 1)
    flipped = x.clone()
    flipped.view(torch.int32)[bit % (width + 1)] ^= 1 << (bit % 32) if bit % 32 < 31 else -(2**31)
    assert digest({"x": x}) != digest({"x": flipped})


def test_digest_of_half_precision_scalars_and_empty_tensors():
    tensors = {"a": torch.ones((), dtype=torch.bfloat16), "b": torch.empty(0, 3), "c": torch.tensor([True])}
    assert digest(tensors) == digest(dict(tensors))


def test_round_trip_carries_what_made_it(tmp_path):
    one, path = net(), tmp_path / "deep" / "w.safetensors"
    save_network(one, path, {"seed": 3, "network": {"_target_": "x"}, "epoch": None})
    assert about(path) == {"seed": 3, "network": {"_target_": "x"}, "epoch": None}
    other = net().apply(lambda m: m.reset_parameters() if isinstance(m, nn.Linear) else None)
    assert digest(other) != digest(one)
    load_into(other, path)
    assert digest(other) == digest(one)


def test_a_file_that_was_changed_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_network(net(), path, {})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(TutelageError, match=r"w\.safetensors: its tensors have digest \w+, its header says \w+"):
        read_state(path)


@pytest.mark.parametrize("left", [0, 5, 40, -1])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_truncated_file_is_refused(tmp_path, name, left):
    path = tmp_path / name
    save_network(net(), path, {}) if path.suffix == ".safetensors" else torch.save(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(TutelageError, match=name):
        read_state(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_whatever_a_damaged_pickle_raises_the_file_is_named(tmp_path, legacy):
    path, chance = tmp_path / "w.pt", random.Random(0)
    torch.save(nn.Linear(3, 2).state_dict(), path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[chance.randrange(min(len(whole), 600))] = chance.randrange(256)
        path.write_bytes(damaged)
        with suppress(TutelageError):  # PyTorch's format has no digest: some bytes may change unseen
            read_state(path)
            refused -= 1
        refused += 1
    assert refused > 100


@pytest.mark.parametrize("name", ["none.safetensors", "none.pt"])
def test_a_file_that_is_not_there(tmp_path, name):
    with pytest.raises(TutelageError, match=f"checkpoint: no file {tmp_path}/{name}"):
        load_into(net(), tmp_path / name)


@pytest.mark.parametrize("prefix", ["", "module.", "net.", "_orig_mod.", "student.net.net."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_state_dicts_of_others(tmp_path, prefix, wrapper):
    state = {prefix + name: tensor for name, tensor in net().state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pt")
    other = net().apply(lambda m: m.reset_parameters() if isinstance(m, nn.Linear) else None)
    load_into(other, tmp_path / "w.pt")
    assert digest(other) == digest(net())


def test_safetensors_of_others(tmp_path):
    save_file(net().state_dict(), tmp_path / "w.safetensors")
    load_into(net(), tmp_path / "w.safetensors")
    with pytest.raises(TutelageError, match="not written by Tutelage"):
        about(tmp_path / "w.safetensors")


class Malice:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_a_file_that_would_run_code_is_refused_and_does_not_run_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Malice()}, "w.pt")
    with pytest.raises(TutelageError, match=r"w\.pt: expected a state dict .*keys \['state_dict'"):
        read_state("w.pt")
    torch.save({"state_dict": net().state_dict(), "more": [Malice()], "made": Malice}, "w.pt")
    assert digest(read_state("w.pt")) == digest(net())  # what it would call is a stand-in
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": 3}, {"epoch": 1}, torch.ones(2)])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(TutelageError, match="expected a state dict"):
        read_state(tmp_path / "w.pt")


def test_weights_that_do_not_fit_are_named(tmp_path):
    torch.save(net(4).state_dict(), tmp_path / "wide.pt")
    with pytest.raises(TutelageError, match=r"0\.weight \[4, 2\] in the file, \[3, 2\] in the network"):
        load_into(net(), tmp_path / "wide.pt")
    state = net().state_dict()
    state["0.wieght"] = state.pop("0.weight")
    torch.save(state, tmp_path / "typo.pt")
    told = r"missing from the file \(1\): 0.weight\n  unexpected in the file \(1\): 0.wieght\n  .*did you mean"
    with pytest.raises(TutelageError, match=told):
        load_into(net(), tmp_path / "typo.pt")


def test_a_mismatch_leaves_the_network_as_it_was(tmp_path):
    one = net()
    torch.save(net(4).state_dict(), tmp_path / "wide.pt")
    with pytest.raises(TutelageError):
        load_into(one, tmp_path / "wide.pt")
    assert digest(one) == digest(net())


def test_the_header_is_json(tmp_path):
    with pytest.raises(TypeError):
        save_network(net(), tmp_path / "w.safetensors", {"path": tmp_path})
    assert not list(tmp_path.iterdir())
    save_network(net(), tmp_path / "w.safetensors", json.loads('{"a": [1]}'))


def edited(path, **fields):
    """The file with other fields in its header; None removes one."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    meta = {**header["__metadata__"], **fields}
    header["__metadata__"] = {key: value for key, value in meta.items() if value is not None}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


@pytest.mark.parametrize(
    "fields",
    [
        {"about": '{"seed": 4}'},
        {"digest": None},
        {"header_digest": None},
        {"digest": "0" * 64},
        {"digest": None, "header_digest": None},
    ],
)
def test_a_header_that_was_edited_is_refused(tmp_path, fields):
    path = tmp_path / "w.safetensors"
    save_network(net(), path, {"seed": 3})
    edited(path)
    assert about(path) == {"seed": 3}
    edited(path, **fields)
    for read in (about, read_state):
        with pytest.raises(TutelageError, match=r"w.safetensors: its header has digest .* damaged or was changed"):
            read(path)


def test_equal_networks_have_equal_bytes(tmp_path):
    for name in ("a", "b"):
        save_network(net(), tmp_path / f"{name}.safetensors", {"seed": 3, "network": {"x": 1}})
    content = (tmp_path / "a.safetensors").read_bytes()
    assert content == (tmp_path / "b.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert list(header) == sorted(header)
    assert list(header["__metadata__"]) == sorted(header["__metadata__"])
