"""Networks trained around a student (ONE, BYOT): its logits to the bit, its weights alone in files."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tutelage.errors import TutelageError
from tutelage.models.branches import branched
from tutelage.models.exits import with_exits
from tutelage.models.resnet import ResNet
from tutelage.models.tapped import Tapped
from tutelage.models.wrapper import deployed

SHAPE = [1, 16, 16]
TAPS = {"stage1": "stage1", "stage2": "stage2", "stage3": "stage3", "embedding": "embedding"}
MAPS = ["stage1", "stage2", "stage3"]


def student() -> Tapped:
    return Tapped(ResNet(1, 5, [1, 1, 1], (4, 8, 16), 4), TAPS, maps=MAPS)


def of_one() -> Tapped:
    return branched(student(), [student(), student()], "stage2", SHAPE)


def of_byot(form: str = "bottleneck") -> Tapped:
    return with_exits(student(), SHAPE, form=form)


WRAPPERS = {"one": of_one, "byot": of_byot, "byot_attention": lambda: of_byot("attention")}


@pytest.mark.parametrize("name", WRAPPERS)
def test_in_eval_the_deployed_student_has_the_wrapper_s_logits_to_the_bit(name: str):
    torch.manual_seed(0)
    net, x = WRAPPERS[name](), torch.randn(6, *SHAPE)
    for _ in range(2):  # statistics of batch normalisation move
        net.train()(x)
    plain = deployed(net.eval().net)
    expected = net(x)["logits"]
    assert torch.equal(plain(x), expected)
    alone = student()
    alone.net.load_state_dict(plain.state_dict())  # what a file holds is the plain network
    assert torch.equal(alone.eval()(x)["logits"], expected)
    assert deployed(alone.net) is alone.net
    assert torch.equal(deployed(copy.deepcopy(net).net)(x), expected)


@pytest.mark.parametrize("name", WRAPPERS)
def test_the_student_starts_with_the_weights_of_the_control(name: str):
    torch.manual_seed(1)
    alone = student()
    torch.manual_seed(1)
    for a, b in zip(alone.net.parameters(), deployed(WRAPPERS[name]().net).parameters(), strict=True):
        assert torch.equal(a, b)


def test_branches_share_the_trunk_and_the_gate_weighs_their_logits():
    torch.manual_seed(0)
    net, x = of_one().eval(), torch.randn(6, *SHAPE)
    net.register_taps(["branches", "ensemble", "stage2"])
    found, inside = net(x), net.net
    plain = inside.student
    trunk = plain.stage2(plain.stage1(plain.stem(x)))
    assert torch.equal(found["stage2"], trunk)
    logits = [found["logits"]] + [part(trunk) for part in inside.branches.parts]
    assert torch.allclose(found["branches"], torch.stack(logits[1:], 1))
    assert not torch.allclose(logits[1], logits[2])  # other first weights
    gate = inside.gate
    z = F.linear(trunk.mean((2, 3)), gate.linear.weight, gate.linear.bias)
    norm = gate.norm
    z = (z - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    weights = z.relu().softmax(1)
    assert torch.allclose(found["ensemble"], sum(weights[:, i, None] * one for i, one in enumerate(logits)), atol=1e-6)


def test_branches_are_cut_before_a_whole_part_with_something_behind():
    for tap, said in (("embedding", "behind|before"), ("stage9", "no tap 'stage9'")):
        if tap == "embedding":
            assert branched(student(), [student()], tap, SHAPE).net.branches.parts[0][0].out_features == 5
            continue
        with pytest.raises(TutelageError, match=said):
            branched(student(), [student()], tap, SHAPE)
    with pytest.raises(TutelageError, match="one or more further branches"):
        branched(student(), [], "stage2", SHAPE)
    inner = Tapped(student().net, {"inner": "stage2.preact"})
    with pytest.raises(TutelageError, match="a whole part before the last one"):
        branched(inner, [student()], "inner", SHAPE)

    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Linear(16, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.part(x)

    with pytest.raises(TutelageError, match=r"can't be cut at 'part': it must be an nn\.Sequential"):
        branched(Tapped(Other(), {"part": "part"}), [Tapped(Other(), {"part": "part"})], "part", [16])


@pytest.mark.parametrize("form", ["bottleneck", "attention"])
def test_exits_have_logits_and_a_feature_of_the_last_one_s_width(form: str):
    net, x = of_byot(form), torch.randn(6, *SHAPE)
    net.register_taps(["exits", "exit_features", "embedding"])
    found = net(x)
    assert found["exits"].shape == (6, 2, 5)
    assert found["exit_features"].shape == (6, 2, 16)
    assert found["embedding"].shape == (6, 16)
    head = net.net.exits.classifiers[1]
    assert torch.equal(found["exits"][:, 1], head(found["exit_features"][:, 1]))
    found["exits"].sum().backward()
    unreached = [n for n, p in net.net.exits.named_parameters() if p.grad is None]
    assert [name for name in unreached if not name.startswith("classifiers")] == []


def test_a_bottleneck_has_a_quarter_of_the_width_and_the_stride_to_the_last_stage():
    convolutions = [m for m in of_byot().net.exits.heads[0].modules() if isinstance(m, nn.Conv2d)]
    assert [tuple(one.weight.shape) for one in convolutions] == [(4, 4, 1, 1), (4, 4, 4, 4), (16, 4, 1, 1)]


def test_students_without_stages_are_refused_with_a_sentence():
    with pytest.raises(TutelageError, match="no stage before its last one"):
        with_exits(Tapped(nn.Sequential(nn.Flatten(), nn.Linear(256, 5)), {"embedding": "0"}), SHAPE)
    with pytest.raises(TutelageError, match="'stage4' is no stage of the student"):
        with_exits(student(), SHAPE, ["stage4"])
    with pytest.raises(TutelageError, match=r"found form 'atention'.*did you mean 'attention'"):
        with_exits(student(), SHAPE, form="atention")
