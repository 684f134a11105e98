import copy

import pytest
import torch
from torch import nn

from tutelage.errors import TutelageError
from tutelage.models.tapped import Tapped
from tutelage.sources.ema_teacher import EMATeacher
from tutelage.sources.live import Live


def live() -> Live:
    torch.manual_seed(0)
    net = nn.Sequential()
    net.hidden = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    net.head = nn.Linear(3, 2)
    return Live(Tapped(net, {"embedding": "hidden"}))


def attached(decay=0.9, needs=("logits",)):
    student, source = live(), EMATeacher(decay)
    source.attach(set(needs), {"student": student})
    return student, source


BATCH = {"input": torch.randn(5, 4, generator=torch.Generator().manual_seed(1))}


def move(student, generator):
    with torch.no_grad():
        for tensor in student.state_dict().values():
            tensor.copy_(torch.randint(9, tensor.shape, generator=generator) if not tensor.is_floating_point()
                         else torch.rand(tensor.shape, generator=generator))  # fmt: skip


def test_it_starts_as_the_student_and_runs_in_eval_mode():
    student, source = attached()
    assert all(
        torch.equal(a, b)
        for a, b in zip(source.net.state_dict().values(), student.net.state_dict().values(), strict=True)
    )
    nn.ModuleDict({"s": student, "m": source}).train()
    assert not any(module.training for module in source.modules())
    assert student.net.training
    student.eval()
    assert torch.equal(source(BATCH)["logits"], student(BATCH)["logits"])


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_average_is_the_published_recursion(decay):
    student, source = attached(decay)
    chance = torch.Generator().manual_seed(2)
    expected = {name: tensor.double() for name, tensor in student.net.net.state_dict().items()}
    for step in range(1, 8):
        move(student, chance)
        source.after_step()
        d = min(decay, 1 - 1 / (step + 1))
        for name, tensor in student.net.net.state_dict().items():
            mixed = d * expected[name] + (1 - d) * tensor.double()
            expected[name] = mixed if tensor.is_floating_point() else tensor.double()
    for name, tensor in source.net.net.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], atol=1e-5, rtol=1e-5)


def test_it_does_not_learn_but_is_saved():
    student, source = attached()
    assert not any(parameter.requires_grad for parameter in source.parameters())
    assert not source(BATCH)["logits"].requires_grad
    move(student, torch.Generator().manual_seed(3))
    source.after_step()
    state = copy.deepcopy(source.state_dict())
    assert int(state["steps"]) == 1
    assert not any("student" in name for name in state)
    _, other = attached()
    other.load_state_dict(state)
    assert torch.equal(other(BATCH)["logits"], source(BATCH)["logits"])


def test_the_student_is_no_child_of_it():
    student, source = attached()
    assert not any(module is student.net for module in source.modules())


def test_taps_and_the_network_it_made():
    _, source = attached(needs=("logits", "embedding"))
    assert source(BATCH).keys() == {"logits", "embedding"}
    assert source.trained_networks() == {"": source.net}
    source.verify()


@pytest.mark.parametrize("decay", [-0.1, 1.0, 1.5, float("nan")])
def test_a_decay_out_of_range(decay):
    with pytest.raises(TutelageError, match=r"decay must be in \[0, 1\)"):
        EMATeacher(decay)


@pytest.mark.parametrize("ramp", [0.5, float("nan")])
def test_a_ramp_out_of_range(ramp):
    with pytest.raises(TutelageError, match="ramp must be at least 1"):
        EMATeacher(ramp=ramp)


def test_without_a_ramp_the_decay_is_the_same_from_the_first_step():
    student, source = live(), EMATeacher(0.5, ramp=1.0)
    source.attach({"logits"}, {"student": student})
    before = source.net.net.head.bias.clone()
    move(student, torch.Generator().manual_seed(4))
    source.after_step()
    torch.testing.assert_close(source.net.net.head.bias, (before + student.net.net.head.bias) / 2)
