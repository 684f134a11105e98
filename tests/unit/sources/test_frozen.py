"""The promises about the teacher: nothing can reach it, and it says so if something has."""

import copy
import inspect
from pathlib import Path

import lightning as L
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tutelage.checkpoints.weights import digest, save_network
from tutelage.config.paths import conf_dir
from tutelage.errors import TutelageError
from tutelage.models.mlp import MLP
from tutelage.models.tapped import Tapped
from tutelage.sources.frozen import Frozen
from tutelage.sources.live import Live


def net() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential()
    made.hidden = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5))
    made.classifier = nn.Linear(6, 3)
    return made


def frozen(**more) -> Frozen:
    source = Frozen(Tapped(net(), {"embedding": "hidden"}), **more)
    source.attach({"logits", "embedding"}, {"student": source})
    return source


BATCH = {"input": torch.randn(5, 4, generator=torch.Generator().manual_seed(1))}


class Holder(L.LightningModule):
    """A module with a teacher and a student, as in training."""

    def __init__(self):
        super().__init__()
        self.student = Live(Tapped(net()))
        self.teaching = nn.ModuleDict({"teacher": frozen()})


def test_no_parameter_no_state_and_no_child_of_it_can_be_found():
    holder, student = Holder(), {f"student.net.net.{name}" for name in net().state_dict()}
    assert set(holder.state_dict()) == student
    assert {name for name, _ in holder.named_parameters()} <= student
    assert {name for name, _ in holder.named_buffers()} <= student
    assert not any(module is holder.teaching["teacher"].net for module in holder.modules())


def test_defaults_are_those_of_its_yaml():
    made = OmegaConf.load(Path(conf_dir()) / "sources" / "frozen.yaml")
    made = OmegaConf.to_container(made, resolve=False)["teacher"]
    known = inspect.signature(Frozen).parameters
    shared = {name: value for name, value in made.items() if name in known and name != "net"}
    assert shared == {name: known[name].default for name in shared}
    assert {"checkpoint", "key", "prefix"} <= shared.keys()


def test_train_does_not_reach_it():
    holder = Holder()
    teacher = holder.teaching["teacher"]
    before = teacher(BATCH)["logits"]
    for mode in (True, False, True):
        holder.train(mode)
        teacher.train(mode)
        assert not any(module.training for module in teacher.net.modules())
    assert torch.equal(teacher(BATCH)["logits"], before)  # no dropout, no BatchNorm of the batch
    teacher.verify()


def test_requires_grad_and_zero_grad_do_not_reach_it():
    holder = Holder()
    holder.requires_grad_(True)
    holder.zero_grad()
    assert not any(parameter.requires_grad for parameter in holder.teaching["teacher"].net.parameters())


def test_an_optimizer_over_everything_leaves_it_as_it_is():
    holder = Holder()
    teacher = holder.teaching["teacher"]
    optimizer = torch.optim.SGD(holder.parameters(), lr=1.0, weight_decay=0.1)
    for _ in range(3):
        signals = holder.student(BATCH)["logits"], teacher(BATCH)["logits"]
        nn.functional.mse_loss(*signals).backward()
        optimizer.step()
    teacher.verify()


def test_moving_averages_and_syncbn_do_not_reach_it():
    holder = Holder()
    averaged = AveragedModel(holder)
    averaged.update_parameters(holder)
    assert averaged.module.teaching["teacher"] is holder.teaching["teacher"]
    assert not any("teaching" in name for name in averaged.state_dict())
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(holder)
    assert isinstance(converted.teaching["teacher"].net.net.hidden[1], nn.BatchNorm1d)
    holder.teaching["teacher"].verify()


def test_a_deep_copy_shares_it():
    holder = Holder()
    other = copy.deepcopy(holder)
    assert other.teaching["teacher"].net is holder.teaching["teacher"].net
    assert other.student.net is not holder.student.net


def test_moves_of_dtype_and_device_take_it_along():
    holder = Holder()
    holder.double()
    assert holder.teaching["teacher"].net.net.classifier.weight.dtype == torch.float64
    holder.teaching["teacher"].verify()  # the same teacher
    assert holder.teaching["teacher"]({"input": BATCH["input"].double()})["logits"].dtype == torch.float64
    holder.to("meta")
    assert holder.teaching["teacher"].net.net.classifier.weight.device.type == "meta"


def test_a_move_there_and_back_is_no_change():
    holder = Holder()
    holder.double().float()
    holder.teaching["teacher"].verify()


def test_no_graph_unless_the_input_asks_for_one():
    teacher = frozen()
    assert not any(signal.requires_grad for signal in teacher(BATCH).values())
    picture = BATCH["input"].clone().requires_grad_()
    teacher({"input": picture})["logits"].square().sum().backward()
    assert picture.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.net.parameters())
    with torch.no_grad():
        teacher(BATCH)
    assert torch.is_grad_enabled()


def test_its_signals_can_be_saved_for_a_backward():
    """Not so with ``inference_mode``: an adapter on the teacher's features needs them in backward."""
    adapter = nn.Linear(6, 2)
    adapter(frozen()(BATCH)["embedding"]).sum().backward()
    assert adapter.weight.grad is not None


@pytest.mark.parametrize("what", ["classifier.bias", "hidden.1.running_mean", "hidden.1.num_batches_tracked"])
def test_a_change_is_noticed(what):
    teacher = frozen()
    teacher.verify()
    with torch.no_grad():
        teacher.net.net.state_dict()[what].view(-1)[0].add_(1)
    with pytest.raises(TutelageError, match="the frozen teacher has changed: digest"):
        teacher.verify()


def test_a_checkpoint_is_loaded(tmp_path):
    other = net().apply(lambda module: module.reset_parameters() if isinstance(module, nn.Linear) else None)
    save_network(other, tmp_path / "t.safetensors", {})
    source = Frozen(Tapped(net()), checkpoint=str(tmp_path / "t.safetensors"))
    assert source.digest == digest(other) != digest(net())


@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_format_changes_neither_digest_nor_answer(channels_last):
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    picture = torch.randn(2, 3, 6, 6)
    expected = convolution(picture)
    before = digest(convolution)
    source = Frozen(Tapped(convolution), channels_last=channels_last)
    assert source.digest == before
    assert convolution[0].weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    torch.testing.assert_close(source({"input": picture})["logits"], expected)
    source.verify()


def test_it_teaches_what_it_would_answer_alone():
    one = MLP([1, 2, 2], [3], 2, dropout=0.5)
    assert torch.equal(Frozen(Tapped(one))(BATCH)["logits"], one.eval()(BATCH["input"]))
