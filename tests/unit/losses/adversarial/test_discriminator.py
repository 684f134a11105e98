"""The adversarial loss: the discriminator descends what the student ascends."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.adversarial.discriminator import Adversarial, reversed_gradient


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(student: Tensor, teacher: Tensor, **options: float) -> Adversarial:
    torch.manual_seed(0)
    loss = Adversarial(hidden=7, **options)
    loss(student, teacher)
    return loss


def said(layers: nn.Sequential, row: list[float]) -> float:
    """What a discriminator says of one example, by plain sums."""
    mean = sum(row) / len(row)
    spread = math.sqrt(sum((x - mean) ** 2 for x in row) / len(row) + 1e-5)
    row = [(x - mean) / spread for x in row]
    for number in (0, 2, 4):
        weight, bias = layers[number].weight.tolist(), layers[number].bias.tolist()
        row = [sum(w * x for w, x in zip(own, row, strict=True)) + b for own, b in zip(weight, bias, strict=True)]
        row = row if number == 4 else [max(0.0, x) for x in row]
    return row[0]


def test_equals_plain_sums():
    student, teacher = draw(5, 4), draw(5, 4, seed=1)
    loss = made(student, teacher)
    [layers] = loss.discriminators
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        total -= math.log(1 / (1 + math.exp(-said(layers, t)))) + math.log(1 - 1 / (1 + math.exp(-said(layers, s))))
    assert loss(student, teacher).item() == pytest.approx(total / 5, rel=1e-9)
    half = loss.float()(student.bfloat16(), teacher.bfloat16())
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(total / 5, rel=2e-2)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_student_ascends_what_the_discriminator_descends(strength: float):
    student, teacher = draw(5, 4).requires_grad_(), draw(5, 4, seed=1)
    loss = made(student.detach(), teacher, strength=strength)
    loss(student, teacher).backward()
    plain = copy.deepcopy(loss)
    plain.strength = torch.tensor(-1.0)  # reversed twice: the derivative of the value
    own = student.detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: plain(x, teacher), own)
    straight = torch.autograd.grad(plain(own, teacher), [own, *plain.discriminators.parameters()])
    assert torch.allclose(student.grad, -strength * straight[0])
    for found, expected in zip(loss.discriminators.parameters(), straight[1:], strict=True):
        assert torch.allclose(found.grad, expected)


def test_a_discriminator_without_knowledge_says_two_log_two():
    student, teacher = draw(5, 4), draw(5, 4, seed=1)
    loss = made(student, teacher)
    for parameter in loss.parameters():
        nn.init.zeros_(parameter)
    assert loss(student, teacher).item() == pytest.approx(2 * math.log(2))


def test_scale_and_shift_of_a_row_do_not_matter():
    student, teacher = draw(5, 4), draw(5, 4, seed=1)
    loss = made(student, teacher)
    assert loss(3 * student + 1, teacher).item() == pytest.approx(loss(student, teacher).item(), rel=1e-4)


def test_stages_of_other_widths_and_kinds_have_discriminators_of_their_own():
    student = [draw(5, 3, 4, 4), draw(5, 6, seed=2), draw(5, 7, 6, seed=3)]
    teacher = [draw(5, 8, 2, 2, seed=4), draw(5, 6, seed=5), draw(5, 7, 9, seed=6)]
    loss = made(student, teacher)
    assert [type(one) for one in loss.projections] == [nn.Linear, nn.Identity, nn.Linear]
    assert [one[0].in_features for one in loss.discriminators] == [8, 6, 9]
    projected = student[0].clone().requires_grad_()
    loss([projected, *student[1:]], teacher).backward()
    assert projected.grad.abs().max() > 0


def test_parameters_exist_before_the_first_call_and_the_state_is_resumed():
    student, teacher = draw(5, 4).float(), draw(5, 4, seed=1).float()
    torch.manual_seed(0)
    loss = Adversarial()
    optimizer = torch.optim.SGD(loss.parameters(), 0.1)
    before = loss(student, teacher)
    before.backward()
    optimizer.step()
    assert loss(student, teacher) < before  # the discriminator has learned
    again = Adversarial()
    again.load_state_dict(loss.state_dict())
    assert torch.equal(again(student, teacher), loss(student, teacher))


def test_a_gradient_is_reversed_and_the_value_is_not_changed():
    x = draw(3).requires_grad_()
    y = reversed_gradient(x, torch.tensor(2.0))
    assert torch.equal(y, x)
    y.sum().backward()
    assert torch.equal(x.grad, torch.full((3,), -2.0).double())


def test_bad_input_is_refused_with_a_sentence():
    with pytest.raises(TutelageError, match=r"Adversarial\.hidden"):
        Adversarial(hidden=0)
    with pytest.raises(TutelageError, match=r"Adversarial\.strength"):
        Adversarial(strength=-1.0)
    with pytest.raises(TutelageError, match="same number of stages"):
        Adversarial()([draw(2, 3)], [draw(2, 3), draw(2, 3)])
