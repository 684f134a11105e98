import torch
from torch import nn

from tutelage.models.tapped import Tapped
from tutelage.sources.live import Live


def test_a_live_source_learns_and_gives_what_is_asked_of_it():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    source = Live(Tapped(net, {"embedding": "0"}))
    source.attach({"embedding"}, {"student": source})
    found = source({"input": torch.ones(4, 2)})
    assert found.keys() == {"logits", "embedding"}
    found["logits"].sum().backward()
    assert all(parameter.grad is not None for parameter in source.parameters())
    assert source.trained_networks() == {}
    source.after_step()
    source.verify()
