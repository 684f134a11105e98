"""Deep mutual learning from the command line: ``sources=peers loss=online/dml``."""

import copy
import json
from pathlib import Path

import pytest
import torch
from command import TINY
from omegaconf import open_dict
from runs import figures, weights

import tutelage as tt
from tutelage.checkpoints.weights import about, digest, read_state
from tutelage.config import factory

pytestmark = pytest.mark.slow

PEERS = (*TINY, "peers.count=2", "logger=none")
DML = ("sources=peers", "loss=online/dml")
KDCL = ("sources=peers", "loss=online/kdcl", "loss.rule=general")
STALE = ("sources=stale_peers", "loss=online/codistillation", "peers.every=5")


def run(tmp_path: Path, name: str, *more: str, loss: tuple[str, ...] = DML) -> tuple[str, ...]:
    return "distill", *PEERS, *loss, f"hydra.run.dir={tmp_path}/{name}/run", f"paths.outputs={tmp_path}/{name}", *more


def test_peers_are_written_measured_and_shown_like_the_student(main, tmp_path):
    answer = main(*run(tmp_path, "one", "+model@peers.network=mlp", "peers.network.net.widths=[7]"))
    assert answer.code == 0, answer.message
    metrics = figures(tmp_path / "one/run")
    assert set(metrics["peers"]) == {"peers/0", "peers/1"}
    for name, entry in metrics["peers"].items():
        folder = tmp_path / "one/run/checkpoints" / name
        assert about(folder / "last.safetensors")["stage"] == name
        assert about(folder / "best.safetensors")["epoch"] == metrics["student"]["best"]["epoch"]
        net = tt.load(folder / "last.safetensors")
        assert sum(p.numel() for p in net.parameters()) == entry["parameters"] != metrics["student"]["parameters"]
        evaluated = main("evaluate", f"checkpoint={folder / 'last.safetensors'}", f"hydra.run.dir={tmp_path}/{name}")
        assert evaluated.code == 0, evaluated.message
        measured = json.loads((tmp_path / name / "metrics.json").read_text())["figures"]
        assert measured["accuracy"] == entry["last"]["test"]["accuracy"]
    assert metrics["mean_of_peers"]["count"] == 3
    assert "Peers/1" in answer.out


def test_without_weight_no_peer_is_trained_and_the_student_is_the_control(main, tmp_path):
    assert main(*run(tmp_path, "none", "loss.alpha=0")).code == 0
    folder = tmp_path / "none/run/checkpoints"
    assert not (folder / "peers").exists()
    assert "peers" not in figures(tmp_path / "none/run")
    assert set(figures(tmp_path / "none/run")["gain"]["last"].values()) == {0}


@pytest.mark.long
@pytest.mark.parametrize("loss", [KDCL, STALE], ids=["kdcl", "stale"])
def test_a_killed_run_ends_in_the_same_peers(main, cli, tmp_path, loss):
    often = "callbacks.recovery.every_n_steps=6"
    assert main(*run(tmp_path, "whole", often, loss=loss)).code == 0
    harm = f"+callbacks.harm={{_target_: faults.KillAt, stage: student, step: 22, marker: {tmp_path / 'struck'}}}"
    assert cli(*run(tmp_path, "killed", often, harm, loss=loss), check=False).returncode == -9
    assert main(*run(tmp_path, "killed", often, harm, loss=loss)).code == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    whole, killed = figures(tmp_path / "whole/run"), figures(tmp_path / "killed/run")
    assert killed["mean_of_peers"] == whole["mean_of_peers"]
    for path in sorted((tmp_path / "whole/run/checkpoints/peers").rglob("*.safetensors")):
        if path.stem in ("last", "best"):
            other = tmp_path / "killed" / path.relative_to(tmp_path / "whole")
            assert digest(read_state(other)) == digest(read_state(path))


def test_a_step_is_one_of_every_network_on_its_own_loss(compose):
    """Two networks by hand, each with an optimizer of its own: the weights after three steps are equal."""
    cfg = compose("sources=peers", "loss=online/dml", "logger=none", "model@student=mlp", "student.net.widths=[8]")
    with open_dict(cfg):
        cfg.optimizer.fused = False
    stage = factory.stage_config(cfg, "student")
    data = factory.data(stage)
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    module.objective.bind(data.splits["train"].keys, data.splits["train"].labels)
    nets = [module.student.net.net, module.sources()["peers"].networks[0].net]
    by_hand = copy.deepcopy(nets)
    own = [module.optimizer(net.parameters()) for net in by_hand]
    together = module.optimizer([p for p in module.parameters() if p.requires_grad])
    for batch, _ in zip(data.train_dataloader(), range(3), strict=False):
        loss, _ = module.objective(module.signals(batch))
        together.zero_grad()
        loss.backward()
        together.step()
        logits = [net(batch["input"]) for net in by_hand]
        for i, optimizer in enumerate(own):
            other = logits[1 - i].detach().softmax(1)
            kl = (other * (other.log() - logits[i].log_softmax(1))).sum(1).mean()
            optimizer.zero_grad()
            (torch.nn.functional.cross_entropy(logits[i], batch["label"]) + kl).backward()
            optimizer.step()
    for net, other in zip(nets, by_hand, strict=True):
        for a, b in zip(net.parameters(), other.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)
