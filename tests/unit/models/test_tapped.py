import copy
import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped, run


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
    with pytest.raises(
        TutelageError, match=r"tap 'stage' names submodule 'boody', which Sequential does not have; .*'body'"
    ):
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


class Pair(nn.Module):
    """Returns (hidden, last) of a layer, as recurrent networks do."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x, scale=1.0):
        hidden = self.inner(x) * scale
        return hidden, {"last": hidden[:, :1]}


@dataclass
class Output:
    logits: torch.Tensor
    hidden: tuple


class Masked(nn.Module):
    """Takes two fields by name, and returns a dataclass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.pair, self.head = Pair(), nn.Linear(3, 2)

    def forward(self, values, mask=None):
        hidden, _ = self.pair(x=values)
        if mask is not None:
            hidden = hidden * mask
        return Output(self.head(hidden), (values, hidden))


def test_an_element_of_what_a_submodule_returns():
    one = Tapped(Masked(), {"hidden": "pair[0]", "last": "pair[1][last]"}, outputs="logits")
    one.register_taps(["hidden", "last"])
    found = one(X)
    assert torch.equal(found["hidden"], one.net.pair.inner(X))
    assert torch.equal(found["last"], found["hidden"][:, :1])
    assert sum(len(module._forward_hooks) for module in one.net.pair.modules()) == 1


@pytest.mark.parametrize("path", ["head.input", "pair.input"])
def test_what_a_submodule_is_given(path):
    one = Tapped(Masked(), {"there": path}, outputs="logits")
    one.register_taps(["there"])
    expected = X if path == "pair.input" else one.net.pair.inner(X)
    assert torch.equal(one(X)["there"], expected)


def test_a_submodule_called_input_is_itself():
    net = nn.Sequential()
    net.input = nn.Linear(4, 3)
    one = Tapped(net, {"there": "input"})
    one.register_taps(["there"])
    assert torch.equal(one(X)["there"], net.input(X))


@pytest.mark.parametrize("mark", ["{}", "*"])
def test_a_pattern_names_every_layer(mark):
    net = nn.Sequential()
    net.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))
    patterns = {"layer{}": "layers.{}", "before{}": "layers.{}.input", "last": "layers.-1"}
    one = Tapped(net, {name.replace("{}", mark): path.replace("{}", mark) for name, path in patterns.items()})
    assert [*one.taps] == ["layer0", "layer1", "layer2", "before0", "before1", "before2", "last"]
    one.register_taps(["layer0", "before1", "last"])
    found = one(X)
    assert torch.equal(found["layer0"], found["before1"])
    assert torch.equal(found["last"], found["logits"])


@pytest.mark.parametrize(
    ("outputs", "net", "expected"),
    [
        ("logits", Masked, lambda net: net.head(net.pair.inner(X))),
        ("hidden[1]", Masked, lambda net: net.pair.inner(X)),
        ("hidden[-2]", Masked, lambda net: X),
        ("[0]", Pair, lambda net: net.inner(X)),
        ("[1].last", Pair, lambda net: net.inner(X)[:, :1]),
        (lambda found: found[0] + 1, Pair, lambda net: net.inner(X) + 1),
    ],
    ids=["logits", "hidden[1]", "hidden[-2]", "[0]", "[1].last", "a function"],
)
def test_logits_among_several_things(outputs, net, expected):
    one = Tapped(net(), outputs=outputs)
    found = expected(one.net)
    assert torch.equal(one(X)["logits"], found)
    assert torch.equal(one.net(X), found), "the bare network gives them, too"


@pytest.mark.parametrize(
    ("outputs", "net", "message"),
    [
        (None, Masked, r"Masked returns a Output with logits, hidden; set where its logits are .* such as logits"),
        (None, Pair, r"Pair returns a tuple of 2; set where its logits are by outputs of .* such as \[0\]"),
        ("[0].logits", Pair, r"Pair gives a tensor \[2, 3\], which has no 'logits'"),
        ("[2]", Pair, r"Pair gives a tuple of 2, which has no '2'"),
        ("logit", Masked, r"Masked gives a Output with logits, hidden, which has no 'logit'"),
        ("hidden", Masked, r"Masked gives a tuple of 2; name the tensor in it"),
    ],
)  # fmt: skip
def test_what_is_no_logits_is_refused(outputs, net, message):
    with pytest.raises(TutelageError, match=message):
        Tapped(net(), outputs=outputs)(X)


def test_a_tap_on_several_things_is_refused():
    one = Tapped(Masked(), {"pair": "pair"}, outputs="logits")
    one.register_taps(["pair"])
    with pytest.raises(TutelageError, match=r"tap 'pair', 'pair', gives a tuple of 2; name the tensor in it"):
        one(X)


def test_arguments_read_the_fields_of_a_batch():
    one = Tapped(Masked(), reads={"values": "input", "mask": "mask"}, outputs="logits")
    batch = {"input": X, "label": torch.zeros(2), "mask": torch.zeros(2, 1)}
    assert torch.equal(one(batch)["logits"], one.net.head.bias.expand(2, 2))
    assert torch.equal(run(copy.deepcopy(one.net), batch), one.net.head.bias.expand(2, 2))


def test_an_argument_that_forward_does_not_take_is_named():
    with pytest.raises(TutelageError, match=r"reads: Masked.forward takes no 'value'; did you mean 'values'"):
        Tapped(Masked(), reads={"value": "input"})


def test_a_field_that_a_batch_lacks_is_named():
    one = Tapped(Masked(), reads={"values": "input", "mask": "mask"}, outputs="logits")
    with pytest.raises(
        TutelageError, match="Masked reads the field 'mask', which a batch does not have; did you mean 'mark'"
    ):
        one({"input": X, "mark": X})


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        ({"layer{}": "head"}, r"a pattern needs \{\} once in the tap and once in the path"),
        ({"layer": "pair.{}"}, r"a pattern needs \{\} once in the tap and once in the path"),
        (
            {"layer{}": "pear.{}"},
            r"tap 'layer\{\}' names submodule 'pear', which Masked does not have; did you mean 'pair'",
        ),
        ({"layer{}": "head.{}"}, r"'head' of Masked has no children"),
        ({"layer": "pear[0]"}, r"tap 'layer' names submodule 'pear', which Masked does not have"),
    ],
)
def test_patterns_and_places_that_are_not_there(taps, message):
    with pytest.raises(TutelageError, match=message):
        Tapped(Masked(), taps)


def test_a_network_of_more_classes_gives_those_of_the_data():
    one = Tapped(nn.Linear(4, 6), classes=[5, 0, 3])
    whole = nn.functional.linear(X, one.net.weight, one.net.bias)
    assert torch.equal(one(X)["logits"], whole[:, [5, 0, 3]])
    assert torch.equal(Tapped(one.net, classes=2)(X)["logits"], whole[:, [5, 0]])  # the first two


def test_probabilities_of_several_classes_add_up():
    one = Tapped(Masked(), outputs="hidden[0]", classes=[[0, 2], 1])
    found, own = one(X)["logits"].softmax(-1), X[:, :3].softmax(-1)
    torch.testing.assert_close(found, torch.stack([own[:, 0] + own[:, 2], own[:, 1]], -1))
    assert torch.equal(pickle.loads(pickle.dumps(one.net))(X), one.net(X))


@pytest.mark.parametrize("classes", [[0, 0], [[0, 1], 1], [-1, 0], [[], 1], [], 0])
def test_classes_that_are_not_each_once(classes):
    with pytest.raises(TutelageError, match="classes must be distinct indices of the network"):
        Tapped(nn.Linear(4, 6), classes=classes)


def test_classes_that_a_network_has_not():
    with pytest.raises(TutelageError, match="classes: Linear has classes 0 to 5; found 6"):
        Tapped(nn.Linear(4, 6), classes=[0, 6])(X)


def test_a_place_of_the_logits_may_be_a_list_as_a_command_line_makes_it():
    class Two(nn.Module):
        def forward(self, x):
            return x, 2 * x

    assert torch.equal(Tapped(Two(), outputs=[1])({"input": torch.ones(1, 3)})["logits"], 2 * torch.ones(1, 3))
