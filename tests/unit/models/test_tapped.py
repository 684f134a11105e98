import copy
import pickle

import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped


def tapped(**taps):
    torch.manual_seed(0)
    net = nn.Sequential()
    net.body = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    net.head = nn.Linear(3, 2)
    return Tapped(net, taps or {"embedding": "body", "first": "body.0", "classifier": "head"})


X = torch.arange(8.0).view(2, 4) / 8


def test_logits_alone_by_default_and_nothing_is_hooked():
    one = tapped()
    assert list(one(X)) == ["logits"]
    assert torch.equal(one(X)["logits"], one.net(X))
    assert not any(module._forward_hooks for module in one.modules())


def test_signals_are_outputs_and_parameters():
    one = tapped()
    one.register_taps(["logits", "embedding", "classifier.weight"])
    found = one(X)
    assert found.keys() == {"logits", "embedding", "classifier.weight"}
    assert torch.equal(found["embedding"], one.net.body(X))
    assert found["classifier.weight"] is one.net.head.weight
    assert sum(len(module._forward_hooks) for module in one.modules()) == 1


def test_wanting_twice_hooks_once():
    one = tapped()
    one.register_taps(["embedding"])
    one.register_taps(["embedding", "first"])
    assert one(X).keys() == {"logits", "embedding", "first"}
    assert sum(len(module._forward_hooks) for module in one.modules()) == 2


def test_two_taps_of_one_submodule():
    one = tapped(a="body", b="body")
    one.register_taps(["a"])
    one.register_taps(["b"])
    found = one(X)
    assert found["a"] is found["b"]


def test_nothing_of_a_batch_is_kept():
    one = tapped()
    one.register_taps(["embedding"])
    one(X)
    assert all("_tap" not in vars(module) for module in one.modules())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_has_its_own_taps(copied):
    one = tapped()
    one.register_taps(["first"])
    other = copied(one)
    with torch.no_grad():
        other.net.body[0].weight.zero_()
    assert torch.equal(other(X)["first"][0], other.net.body[0].bias)
    assert torch.equal(one(X)["first"], one.net.body[0](X))
    assert not torch.equal(one(X)["first"], other(X)["first"])


def test_a_compiled_network_has_its_taps():
    one = tapped()
    one.register_taps(["embedding"])
    expected = one(X)
    one.net.compile(backend="eager")
    found = one(X)
    assert found.keys() == expected.keys()
    assert torch.equal(found["embedding"], expected["embedding"])


def test_names_that_are_no_signal_are_refused_with_near_ones():
    with pytest.raises(TutelageError, match=r"tap 'stage' names submodule 'boody', which Sequential has not; .*'body'"):
        tapped(stage="boody")
    one = tapped()
    with pytest.raises(TutelageError, match="no tap 'embeding' in Sequential; did you mean 'embedding'"):
        one.register_taps(["embeding"])
    with pytest.raises(TutelageError, match=r"no tap 'classifier\.wieght' in Sequential"):
        one.register_taps(["classifier.wieght"])
    with pytest.raises(TutelageError, match=r"no tap 'clasifier\.weight'"):
        one.register_taps(["clasifier.weight"])


def test_the_state_is_the_network_s():
    one = tapped()
    one.register_taps(["embedding"])
    assert one.state_dict().keys() == {f"net.{name}" for name in one.net.state_dict()}
