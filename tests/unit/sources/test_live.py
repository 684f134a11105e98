import torch
from torch import nn

from tutelage.sources.live import Live
from tutelage.sources.tapped import Tapped


def test_a_live_source_learns_and_gives_what_is_asked_of_it():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    source = Live(Tapped(net, {"embedding": "0"}))
    source.attach({"embedding"}, {"student": source})
    found = source({"input": torch.ones(4, 2)})
    assert found.keys() == {"logits", "embedding"}
    found["logits"].sum().backward()
    assert all(parameter.grad is not None for parameter in source.parameters())
    assert source.made() is None
    source.after_step()
    source.verify()
