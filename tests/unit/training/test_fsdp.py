import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies.strategy import Strategy
from torch import nn, randn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from tutelage.config import factory
from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.runtime import distributed
from tutelage.sources.frozen import Frozen
from tutelage.sources.live import Live
from tutelage.sources.recorded import Recorded
from tutelage.training import fsdp
from tutelage.training.fsdp import Sharded, _together, shard


@pytest.mark.parametrize("sources", ["frozen", "ensemble", "specialists"])
def test_teachers_answer_live(compose, sources):
    sharded = factory.stage_config(compose("trainer=fsdp", f"sources={sources}"), "student")
    assert sharded.sources.teacher.cache is False
    assert factory.stage_config(compose("trainer=ddp", f"sources={sources}"), "student").sources.teacher.cache is True


def test_signals_on_disk_need_no_shards(compose):
    cfg = compose("trainer=fsdp", "sources=cached")
    with pytest.raises(TutelageError, match=r"sources\.teacher: trainer=fsdp can't write signals"):
        factory.stage_config(cfg, "student")
    cfg.sources.teacher.folder = "given"
    assert factory.stage_config(cfg, "student").sources.teacher.folder == "given"


def test_one_device_has_a_group_of_its_own(compose, monkeypatch, tmp_path):
    """So that the kernels and states of shards can be tried on a machine with one GPU."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    cfg = compose("trainer=fsdp", "trainer.devices=1", "trainer.accelerator=cpu")
    with distributed.ranks(cfg, "distill", tmp_path):
        assert dist.get_world_size() == 1
    assert not distributed.is_up()
    assert "WORLD_SIZE" not in os.environ


def test_it_starts_no_ranks_itself():
    with pytest.raises(TutelageError, match="trainer=fsdp needs ranks"):
        Sharded()._configure_launcher()


def test_it_shares_out_whole_networks_and_saves_whole_states():
    made = Sharded()
    assert made._tensor_parallel_size == 1
    assert made._save_distributed_checkpoint is False


def test_sgd_is_not_fused_and_others_stay_as_they_are(compose):
    cfg = compose("trainer=fsdp")
    assert factory.stage_config(cfg, "student").optimizer.fused is True
    cfg.optimizer._target_ = "torch.optim.SGD"
    assert factory.stage_config(cfg, "student").optimizer.fused is False
    cfg = compose("trainer=ddp")
    cfg.optimizer._target_ = "torch.optim.SGD"
    assert factory.stage_config(cfg, "student").optimizer.fused is True


def test_whole_networks_of_another_precision_are_refused(compose):
    with pytest.raises(TutelageError, match=r"trainer\.precision.*found 'bf16-true'"):
        factory.stage_config(compose("trainer=fsdp", "trainer.precision=bf16-true"), "student")


@pytest.fixture
def mesh():
    """Of one rank."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def layers() -> nn.Sequential:
    """40, 88 and 18 parameters."""
    return nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.ReLU(), nn.Linear(8, 8), nn.BatchNorm1d(8)), nn.Linear(8, 2))


def gathered_alone(net: nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if isinstance(module, FSDPModule)]


@pytest.mark.parametrize(
    ("block", "expected"),
    [(1, ["", "0", "1.1", "1.2", "2"]), (40, ["", "0", "1.1"]), (80, ["", "1"]), (10**6, [""])],
)
def test_large_blocks_are_gathered_by_themselves(mesh, block, expected):
    """From the inside out: what holds nothing but smaller ones is none."""
    net = layers()
    shard(net, mesh, block)
    assert gathered_alone(net) == expected


def test_a_block_is_given_back_after_its_forward_pass(mesh, monkeypatch):
    found = []
    monkeypatch.setattr(fsdp, "fully_shard", lambda module, **how: found.append(how))
    shard(layers(), mesh, 80)
    assert found == [{"mesh": mesh, "reshard_after_forward": True}] * 2


def test_what_losses_learn_stays_whole_and_its_gradients_are_averaged(mesh, monkeypatch):
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)  # of which the other three have no gradient
    learned, student = nn.Linear(2, 1, bias=False), SimpleNamespace(net=Tapped(nn.Linear(2, 2)))
    trainer = SimpleNamespace(gradient_clip_val=None, gradient_clip_algorithm=None)
    learner = SimpleNamespace(
        needs={"student": {"logits"}}, sources=dict, student=student, objective=learned, trainer=trainer
    )
    Sharded().share_out(learner)
    learned(torch.tensor([[8.0, 4.0]])).sum().backward()
    assert learned.weight.grad.tolist() == [[2.0, 1.0]]
    learner.needs = {"student": {"logits", "classifier.weight"}}
    with pytest.raises(TutelageError, match=r"reads \['classifier\.weight'\] of the student, whose parameters"):
        Sharded().share_out(learner)


def test_states_are_whole_and_a_network_takes_them_strictly(mesh):
    net = layers()
    whole = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    shard(net, mesh, 80)
    strategy = Sharded()
    strategy._lightning_module = net
    found = strategy.lightning_module_state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in whole.items())
    optimizer = torch.optim.Adam(net.parameters())
    net(randn(3, 4)).sum().backward()
    optimizer.step()
    for one in (optimizer, LightningOptimizer(optimizer)):
        state = strategy.optimizer_state(one)["state"]
        assert [list(own["exp_avg"].shape) for own in state.values()] == [list(p.shape) for p in net.parameters()]
        assert not any(isinstance(own["exp_avg"], DTensor) for own in state.values())
    strategy.load_model_state_dict({"state_dict": {name: tensor + 1 for name, tensor in whole.items()}})
    assert all(torch.equal(strategy.lightning_module_state_dict()[name], whole[name] + 1) for name in whole)
    del whole["0.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.weight"):
        strategy.load_model_state_dict({"state_dict": whole})


def test_one_block_where_a_part_learns(mesh):
    net = layers()
    net[2].requires_grad_(False)
    shard(net, mesh, 1)
    assert gathered_alone(net) == [""]


def test_a_loss_on_a_tap_alone_reaches_what_lies_before_it(mesh):
    net = Tapped(layers(), {"middle": "1"})
    net.register_taps(["middle"])
    shard(net.net, mesh, 40)
    net.register_forward_hook(_together)
    net(randn(3, 4))["middle"].square().sum().backward()
    assert float(net.net[0].weight.grad.full_tensor().abs().sum()) > 0
    assert float(net.net[2].weight.grad.full_tensor().abs().sum()) == 0


@pytest.mark.parametrize(
    ("learned", "clip", "algorithm", "refused"),
    [
        (nn.Linear(2, 2), 1.0, "norm", True),
        (nn.Linear(2, 2), 1.0, "value", False),
        (nn.Linear(2, 2), None, None, False),
        (nn.Linear(2, 2).requires_grad_(False), 1.0, "norm", False),
    ],
)
def test_a_norm_is_not_clipped_where_a_loss_learns(learned, clip, algorithm, refused):
    trainer = SimpleNamespace(gradient_clip_val=clip, gradient_clip_algorithm=algorithm)
    student = SimpleNamespace(net=Tapped(nn.Linear(2, 2)))
    learner = SimpleNamespace(needs={}, sources=dict, student=student, objective=learned, trainer=trainer)
    with pytest.raises(TutelageError, match="clipping is not supported when a loss") if refused else nullcontext():
        Sharded().share_out(learner)


def test_of_an_optimizers_state_a_rank_takes_its_part_of_what_is_as_large_as_a_parameter(monkeypatch):
    weight = nn.Parameter(torch.zeros(3, 2))
    strategy, loaded = Sharded(), []
    strategy.optimizers = [torch.optim.Adam([weight])]
    monkeypatch.setattr(fsdp, "shard_like", lambda value, own: (value, own))
    monkeypatch.setattr(Strategy, "load_optimizer_state_dict", lambda _, checkpoint: loaded.append(checkpoint))
    moment, step = torch.ones(3, 2), torch.tensor(4.0)
    state = {"state": {0: {"exp_avg": moment, "step": step, "kind": "adam"}}, "param_groups": []}
    strategy.load_optimizer_state_dict({"optimizer_states": [state]})
    values = loaded[0]["optimizer_states"][0]["state"][0]
    assert values["exp_avg"] == (moment, weight)
    assert values["step"] is step
    assert values["kind"] == "adam"


def test_teachers_are_shared_out_as_the_student_is(mesh):
    student, teacher = Live(Tapped(layers())), Frozen(Tapped(layers()))
    sources = {"student": student, "teacher": teacher, "record": Recorded(torch.arange(2), torch.zeros(2, 3))}
    trainer = SimpleNamespace(gradient_clip_val=None, gradient_clip_algorithm=None)
    learner = SimpleNamespace(
        needs={}, sources=lambda: sources, student=student, objective=nn.Linear(2, 2), trainer=trainer
    )
    sharded = Sharded(block=80)
    sharded._device_mesh = {"data_parallel": mesh}
    sharded.share_out(learner)
    assert gathered_alone(student.net.net) == ["", "1"]
    assert gathered_alone(teacher.net.net) == ["", "1"]
    assert Sharded().block == 10**6


def test_the_optimizer_goes_on_by_the_strategys_own_way():
    assert Sharded().lightning_restore_optimizer is True


@pytest.mark.parametrize("hook", ["training_step", "on_validation_start"])
def test_buffers_are_rank_0s_before_each_step_and_validation(monkeypatch, hook):
    sent, sharded = [], Sharded()
    monkeypatch.setattr(fsdp, "broadcast_all_", sent.append)
    monkeypatch.setattr(Strategy, "training_step", lambda *_: "loss")
    for net, buffers in ((nn.BatchNorm1d(3), 3), (nn.Linear(2, 2), 0)):
        sharded._lightning_module = net
        getattr(sharded, hook)()
        assert [len(own) for own in sent] == [buffers] * bool(buffers)  # nothing is sent where there is none
        sent.clear()
