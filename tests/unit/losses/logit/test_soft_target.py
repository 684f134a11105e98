import math
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.unit.losses import oracles_logit as oracle
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.losses.logit.soft_target import SoftTarget, soft_target

TEMPERATURES = (1.0, 4.0, 20.0)


def pair(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(shape, generator=g, dtype=dtype) for _ in range(2))
    return student, teacher


def plain(student: Tensor, teacher: Tensor, temperature: Tensor) -> Tensor:
    """By torch's own divergence, which knows no closed form."""
    log_p, log_q = (F.log_softmax(z / temperature, 1) for z in (student, teacher))
    return temperature**2 * F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def test_fixed_numbers() -> None:
    # q = (1, 2)/3 and p = (1, 1)/2 at T = 2: T²·KL = 4 (ln 2 + (2/3) ln 2 − ln 3)
    student, teacher = torch.zeros(1, 2), 2 * torch.tensor([[1.0, 2.0]]).log()
    expected = 4 * (5 / 3 * math.log(2) - math.log(3))
    assert SoftTarget(2.0)(student, teacher).item() == pytest.approx(expected, rel=1e-6)


def test_the_divergence_is_summed_over_classes_not_averaged() -> None:
    student, teacher = pair(6, 10)
    log_p, log_q = (F.log_softmax(z / 4, 1) for z in (student, teacher))
    mean = 16 * F.kl_div(log_p, log_q, reduction="none", log_target=True).mean()
    assert SoftTarget(4.0)(student, teacher).item() == pytest.approx(10 * mean.item(), rel=1e-12)


def test_a_high_temperature_compares_centred_logits() -> None:
    student, teacher = pair(5, 8)
    difference = student - student.mean(1, keepdim=True) - (teacher - teacher.mean(1, keepdim=True))
    limit = difference.square().sum(1).mean() / (2 * 8)
    gaps = [abs(SoftTarget(t)(student, teacher).item() / limit.item() - 1) for t in (100.0, 1000.0, 10000.0)]
    assert gaps[2] < gaps[1] < gaps[0] < 0.1
    assert gaps[2] < 1e-3


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_gradients_are_the_closed_forms(temperature: float) -> None:
    student, teacher = (z.requires_grad_() for z in pair(6, 9))
    p, q = (torch.softmax(z / temperature, 1).detach() for z in (student, teacher))
    of_student, of_teacher = torch.autograd.grad(SoftTarget(temperature)(student, teacher), (student, teacher))
    torch.testing.assert_close(of_student, (p - q) * temperature / 6, rtol=1e-12, atol=1e-15)
    excess = (q / p).log() - (q * (q / p).log()).sum(1, keepdim=True)
    torch.testing.assert_close(of_teacher, q * excess * temperature / 6, rtol=1e-10, atol=1e-14)


def test_each_side_gets_its_gradient_alone() -> None:
    student, teacher = pair(4, 5)
    both = torch.autograd.grad(SoftTarget()(student.requires_grad_(), teacher.requires_grad_()), (student, teacher))
    one = torch.autograd.grad(SoftTarget()(student, teacher.detach()), student)
    other = torch.autograd.grad(SoftTarget()(student.detach(), teacher), teacher)
    assert torch.equal(both[0], one[0])
    assert torch.equal(both[1], other[0])


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("classes", [10, 1000, 32000])
@pytest.mark.parametrize("learned", [False, True])
def test_near_equal_logits_keep_their_digits(classes: int, temperature: float, learned: bool) -> None:
    teacher, noise = pair(4, classes, dtype=torch.float32)
    t = torch.tensor(temperature, requires_grad=learned)
    for size in (1e-1, 1e-2, 1e-3):
        student = (teacher + size / 3 * noise).requires_grad_()
        found = soft_target(student, teacher, t)
        exact = [z.detach().double() for z in (student, teacher)]
        expected = oracle.soft_target(*(z.numpy() for z in exact), temperature)
        assert found.item() == pytest.approx(expected, rel=2e-7 * temperature / size)
        p, q = (torch.softmax(z / temperature, 1) for z in exact)
        slope, expected_slope = torch.autograd.grad(found, student)[0], (p - q) * temperature / 4
        assert (slope - expected_slope).norm() < 2e-6 * temperature / size * expected_slope.norm()


def test_equal_logits_have_no_loss_and_no_gradient() -> None:
    student = pair(4, 1000, dtype=torch.float32)[0].requires_grad_()
    loss = SoftTarget()(student, student.detach().clone())
    loss.backward()
    assert loss.item() == 0.0
    assert not student.grad.any()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("classes", [1000, 32000])
def test_many_classes_in_float32(classes: int, temperature: float) -> None:
    student, teacher = pair(4, classes, dtype=torch.float32)
    exact = oracle.soft_target(*(np.float64(z.numpy()) for z in (student, teacher)), temperature)
    assert SoftTarget(temperature)(student, teacher).item() == pytest.approx(exact, rel=2e-4)


class FullSize(TorchDispatchMode):
    """Counts the storages of at least ``bytes`` that live at once, of those made inside."""

    def __init__(self, bytes: int):
        super().__init__()
        self.bytes, self.now, self.peak, self.known = bytes, 0, 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, Tensor) and x.untyped_storage().nbytes() >= self.bytes:
                self.note(x.untyped_storage())
        return out

    def note(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.now += 1
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.gone, storage._cdata)

    def gone(self, key: int) -> None:
        self.known.discard(key)
        self.now -= 1


@pytest.mark.parametrize("classes", [1000, 32000])
@pytest.mark.parametrize(("free", "most"), [("student", 3), ("teacher", 3), ("both", 4), ("neither", 3)])
def test_memory_in_full_size_tensors(classes: int, free: str, most: int) -> None:
    student, teacher = pair(4, classes, dtype=torch.float32)
    student.requires_grad_(free in ("student", "both"))
    teacher.requires_grad_(free in ("teacher", "both"))
    with FullSize(4 * 4 * classes) as naive:
        loss = plain(student, teacher, torch.tensor(4.0))
        if free != "neither":
            loss.backward()
    student.grad = teacher.grad = loss = None
    with FullSize(4 * 4 * classes) as count:
        loss = SoftTarget()(student, teacher)
        if free != "neither":
            loss.backward()
    assert count.peak <= most < naive.peak


def test_a_row_masked_whole_counts_as_uniform() -> None:
    student, teacher = pair(2, 4)
    expected = SoftTarget()(student.index_fill(0, torch.tensor(0), 5.0), teacher.index_fill(0, torch.tensor(1), 5.0))
    student[0] = teacher[1] = -math.inf
    assert SoftTarget()(student, teacher).item() == pytest.approx(expected.item(), rel=1e-12)
    blank = torch.full((2, 4), -math.inf)
    assert SoftTarget()(blank, blank).item() == 0.0


def test_a_class_that_the_student_alone_masks_is_dear_and_its_gradient_right() -> None:
    student, teacher = torch.tensor([[0.0, -math.inf]]).requires_grad_(), torch.zeros(1, 2)
    loss = SoftTarget(1.0)(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(0.5e30, rel=1e-6)
    assert torch.equal(student.grad, torch.tensor([[0.5, -0.5]]))
    assert SoftTarget(1.0)(teacher, student.detach()).item() == pytest.approx(math.log(2), rel=1e-6)


def test_a_temperature_can_be_learned() -> None:
    student, teacher = pair(3, 5)
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_target, (student.requires_grad_(), teacher.requires_grad_(), temperature))
    learned, fixed = (soft_target(student, teacher, t) for t in (temperature, temperature.detach()))
    assert learned.item() == pytest.approx(fixed.item(), rel=1e-14)
    teacher = teacher.detach().index_fill(1, torch.tensor([0]), -math.inf)
    masked = student.detach().index_fill(1, torch.tensor([0]), -math.inf)
    assert torch.autograd.grad(soft_target(masked, teacher, temperature), temperature)[0].isfinite()


def test_second_derivatives() -> None:
    free = [z.requires_grad_() for z in pair(3, 4)]
    assert torch.autograd.gradgradcheck(SoftTarget(2.0).double(), free)
    weight = torch.randn(4, 4, dtype=torch.float64, requires_grad=True)

    def penalty(loss) -> Tensor:  # type: ignore[no-untyped-def]
        value = loss(torch.tanh(free[0] @ weight), free[1].detach(), torch.tensor(2.0))
        slope = torch.autograd.grad(value, weight, create_graph=True)[0]
        return torch.autograd.grad(slope.square().sum(), weight)[0]

    torch.testing.assert_close(penalty(soft_target), penalty(plain))


@pytest.mark.parametrize("dims", [(0, 0, 0), (0, None, 0), (0, None, None), (None, 0, None), (None, None, 0)])
def test_vmap_over_students_teachers_and_temperatures(dims: tuple[int | None, ...]) -> None:
    stacks = (*pair(3, 5, 7), torch.tensor([1.0, 4.0, 20.0], dtype=torch.float64))
    args = [x if dim == 0 else x[0] for x, dim in zip(stacks, dims, strict=True)]
    each = [[x[i] if dim == 0 else x for x, dim in zip(args, dims, strict=True)] for i in range(3)]
    torch.testing.assert_close(vmap(soft_target, dims)(*args), torch.stack([plain(*one) for one in each]))
    for argument in range(3):
        found = vmap(grad(soft_target, argument), dims)(*args)
        torch.testing.assert_close(found, torch.stack([grad(plain, argument)(*one) for one in each]))


def test_many_students_share_a_backward() -> None:
    students, teacher = pair(3, 5, 7)[0].requires_grad_(), pair(5, 7, seed=1)[0]
    loss, temperatures = SoftTarget(), torch.tensor([1.0, 4.0, 20.0])
    each = vmap(lambda t, z: functional_call(loss, {"temperature": t}, (z, teacher)))(temperatures, students)
    each.sum().backward()
    for i, temperature in enumerate(temperatures):
        alone = students[i].detach().requires_grad_()
        SoftTarget(temperature.item())(alone, teacher).backward()
        torch.testing.assert_close(students.grad[i], alone.grad)


def test_compiled_for_autograd_is_the_same() -> None:
    torch._dynamo.reset()
    student, teacher = pair(5, 7, dtype=torch.float32)
    free = [student.clone().requires_grad_() for _ in range(2)]
    loss = SoftTarget()
    found = torch.compile(loss, backend="aot_eager", fullgraph=True)(free[0], teacher)
    expected = loss(free[1], teacher)
    assert torch.equal(found, expected)
    found.backward()
    expected.backward()
    assert torch.equal(free[0].grad, free[1].grad)
