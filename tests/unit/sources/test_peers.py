import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.sources.peers import Peers


def net() -> Tapped:
    return Tapped(nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 3)), {"embedding": "0"})


def test_peers_learn_and_give_the_logits_of_all_and_signals_of_each():
    source = Peers([net(), net()])
    source.attach({"logits", "embedding@1"}, {})
    found = source({"input": torch.ones(4, 2)})
    assert found["logits"].shape == (4, 2, 3)
    assert torch.equal(found["logits"][:, 1], found["logits@1"])
    assert found["embedding@1"].shape == (4, 5)
    assert "embedding@0" not in found
    found["logits"].sum().backward()
    assert all(parameter.grad is not None for parameter in source.parameters())
    assert source.trained_networks() == {"0": source.networks[0], "1": source.networks[1]}


def test_before_it_is_attached_it_gives_the_logits_of_all():
    assert Peers([net(), net()])({"input": torch.ones(4, 2)})["logits"].shape == (4, 2, 3)


def test_a_signal_of_one_network_needs_no_logits_of_all():
    source = Peers([net(), net()])
    source.attach({"logits@0"}, {})
    assert "logits" not in source({"input": torch.ones(4, 2)})


@pytest.mark.parametrize("need", ["embedding", "embedding@2", "@0"])
def test_a_signal_of_no_network_is_refused(need):
    with pytest.raises(TutelageError, match=rf"signals logits and <signal>@<i> with i one of 0, 1; .* {need!r}"):
        Peers([net(), net()]).attach({need}, {})


def test_no_network_is_refused():
    with pytest.raises(TutelageError, match="expected one or more"):
        Peers([])


def test_each_peer_reads_a_picture_of_its_own_where_there_is_one():
    source = Peers([net(), net()])
    source.attach({"logits"}, {})
    first, second = torch.ones(4, 2), torch.zeros(4, 2)
    found = source({"input": first, "input2": second})["logits"]
    assert torch.equal(found[:, 0], source.networks[0](second)["logits"])
    assert torch.equal(found[:, 1], source.networks[1](first)["logits"])
