"""Stale copies: as old as they should be, and refreshed at the same steps after a resumption."""

import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.sources.live import Live
from tutelage.sources.peers import Peers
from tutelage.sources.stale import Stale

BATCH = {"input": torch.ones(4, 2)}


def net() -> Tapped:
    return Tapped(nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)))


def together(every: int = 3) -> tuple[Stale, Live, Peers]:
    stale, student, peers = Stale(every), Live(net()), Peers([net(), net()])
    for source in (student, peers):
        source.attach({"logits"}, {})
    stale.attach({"logits"}, {"student": student, "peers": peers, "stale": stale})
    return stale, student, peers


def change(*sources: nn.Module) -> None:
    with torch.no_grad():
        for source in sources:
            for parameter in source.parameters():
                parameter.add_(1.0)


def now(student: Live, peers: Peers) -> torch.Tensor:
    student.eval(), peers.eval()
    return torch.stack([student(BATCH)["logits"], *peers(BATCH)["logits"].unbind(1)], 1)


def test_copies_stay_until_it_is_time():
    stale, student, peers = together()
    first = now(student, peers)
    for step in range(1, 7):
        change(student, peers)
        latest = now(student, peers)
        stale.after_step()
        expected = latest if step % 3 == 0 else first
        assert torch.equal(stale(BATCH)["logits"], expected)
        first = expected
    assert not any(parameter.requires_grad for parameter in stale.parameters())
    assert not stale.train().training
    assert stale.trained_networks() == {}


def test_copies_of_the_last_step():
    stale, student, peers = together(every=1)
    for _ in range(2):
        change(student, peers)
        stale.after_step()
        assert torch.equal(stale(BATCH)["logits"], now(student, peers))


def test_a_resumed_source_refreshes_at_the_same_step():
    stale, student, peers = together()
    for _ in range(4):
        change(student, peers)
        stale.after_step()
    again, other, others = together()
    again.load_state_dict(stale.state_dict())
    other.load_state_dict(student.state_dict())
    others.load_state_dict(peers.state_dict())
    assert torch.equal(again(BATCH)["logits"], stale(BATCH)["logits"])
    for _ in range(2):
        change(student, peers, other, others)
        stale.after_step(), again.after_step()
        assert torch.equal(again(BATCH)["logits"], stale(BATCH)["logits"])
    assert torch.equal(again(BATCH)["logits"], now(student, peers))


def test_bad_settings_are_refused_with_a_sentence():
    with pytest.raises(TutelageError, match="every 1 step or more; found every=0"):
        Stale(0)
    with pytest.raises(TutelageError, match="of 'peers', which is not there"):
        Stale().attach({"logits"}, {"student": Live(net())})
    with pytest.raises(TutelageError, match="signal logits alone; the objective reads 'embedding'"):
        Stale().attach({"embedding"}, {"student": Live(net())})
    own = Stale(of=["stale"])
    with pytest.raises(TutelageError, match="of 'stale', which has no network that learns"):
        own.attach({"logits"}, {"stale": own})
