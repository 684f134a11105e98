"""Properties of all relation losses."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.losses import oracles_relation as oracle
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.relation.cc import CC
from tutelage.losses.relation.crd import CRD
from tutelage.losses.relation.gkd import GKD
from tutelage.losses.relation.irg import IRG
from tutelage.losses.relation.pkt import PKT
from tutelage.losses.relation.rkd import RKD
from tutelage.losses.relation.sp import SP, flat_rows, unit

Make = Callable[[], nn.Module]

PLAIN: dict[str, Make] = {"SP": SP, "RKD": RKD, "PKT": PKT, "CC": lambda: CC(dim=None), "GKD": GKD, "IRG": IRG}
ORACLES = {"SP": oracle.sp, "RKD": oracle.rkd, "PKT": oracle.pkt, "CC": oracle.cc, "GKD": oracle.gkd, "IRG": oracle.irg}
EVERY: dict[str, Make] = {
    **PLAIN,
    "CC-embedded": lambda: CC(dim=5),
    "CRD": lambda: CRD(examples=32, dim=5, negatives=6),
}

plain = pytest.mark.parametrize("make", list(PLAIN.values()), ids=list(PLAIN))
every = pytest.mark.parametrize("make", list(EVERY.values()), ids=list(EVERY))
both = pytest.mark.parametrize(("make", "formula"), [(PLAIN[n], ORACLES[n]) for n in PLAIN], ids=list(PLAIN))


def signals(size: int = 6, widths: tuple[int, int] = (5, 7), seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(size, w, generator=generator, dtype=torch.float64) for w in widths)
    return student, teacher


def call(loss: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    """The loss with its own chance pinned, and for CRD the keys 0 … B − 1."""
    torch.manual_seed(0)
    return loss(student, teacher, torch.arange(len(student))) if isinstance(loss, CRD) else loss(student, teacher)


def made(make: Make, dtype: torch.dtype = torch.float64, widths: tuple[int, int] = (5, 7)) -> nn.Module:
    """The loss after one call in training mode (layers have shapes, CRD has its Z), then in eval mode."""
    torch.manual_seed(1)
    loss = make().to(dtype)
    call(loss, *(x.to(dtype) for x in signals(widths=widths)))
    return loss.eval()


def slope(loss: nn.Module, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    value = call(loss, student, teacher)
    return value.detach(), torch.autograd.grad(value, student)[0]


@both
@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(1, 7),
    widths=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    seed=st.integers(0, 10**6),
)
def test_equals_the_oracle(
    make: Make, formula: Callable[..., float], size: int, widths: tuple, scale: float, seed: int
):
    student, teacher = signals(size, widths, seed)
    student = student * scale
    expected = formula(student.tolist(), teacher.tolist())
    assert make()(student, teacher).item() == pytest.approx(expected, rel=1e-6, abs=1e-12)
    if not (nearly_opposite(student) or nearly_opposite(teacher)):
        assert make()(student.float(), teacher.float()).item() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def nearly_opposite(rows: Tensor) -> bool:
    """Checks for rows whose 1 + cos is of the size of float32's rounding, where PKT's logarithm has no digits left."""
    sums = 1 + unit(rows) @ unit(rows).T
    return bool(((sums > 1e-12) & (sums < 1e-4)).any())


@every
def test_gradient(make: Make):
    loss = made(make)
    student, teacher = (x.requires_grad_() for x in signals())
    assert torch.autograd.gradcheck(lambda s, t: call(loss, s, t), (student, teacher), fast_mode=True)


@plain
def test_equal_signals_are_the_minimum(make: Make):
    student, teacher = signals(widths=(5, 5))
    value, gradient = slope(make(), teacher.clone(), teacher)
    assert value.item() == 0
    assert gradient.abs().max().item() <= 1e-15
    assert slope(make(), student, teacher)[0].item() > 1e-4
    for step in (1e-3, 1e-2):  # and around it the loss rises
        assert slope(make(), teacher + step * student, teacher)[0].item() > 0


@plain
@settings(max_examples=20, deadline=None)
@given(size=st.integers(2, 8), width=st.integers(2, 6), factor=st.floats(0.01, 100), seed=st.integers(0, 10**6))
def test_rotating_and_scaling_change_nothing(make: Make, size: int, width: int, factor: float, seed: int):
    student, teacher = signals(size, (width, 4), seed)
    rotation = torch.linalg.qr(signals(width, (width, 1), seed + 1)[0]).Q
    moved = factor * student @ rotation
    assert make()(moved, teacher).item() == pytest.approx(make()(student, teacher).item(), rel=1e-6, abs=1e-12)
    assert make()(teacher, moved).item() == pytest.approx(make()(teacher, student).item(), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("make", [PLAIN["PKT"], PLAIN["CC"]], ids=["PKT", "CC"])
def test_the_length_of_one_example_does_not_matter_to_cosines(make: Make):
    student, teacher = signals()
    lengths = torch.tensor([[0.1], [1.0], [7.0], [2.0], [30.0], [0.5]], dtype=torch.float64)
    assert make()(lengths * student, teacher).item() == pytest.approx(make()(student, teacher).item(), rel=1e-6)


@pytest.mark.parametrize("make", [SP, RKD], ids=["SP", "RKD"])
def test_the_length_of_one_example_matters_elsewhere(make: Make):
    student, teacher = signals()
    longer = student * torch.tensor([[1.0]] * 5 + [[9.0]], dtype=torch.float64)
    assert abs(make()(longer, teacher).item() - make()(student, teacher).item()) > 1e-4


@pytest.mark.parametrize("make", [*PLAIN.values(), EVERY["CC-embedded"]], ids=[*PLAIN, "CC-embedded"])
def test_order_of_the_batch_does_not_matter(make: Make):
    loss, (student, teacher) = made(make), signals()
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert call(loss, student[order], teacher[order]).item() == pytest.approx(call(loss, student, teacher).item())
    assert abs(call(loss, student[order], teacher).item() - call(loss, student, teacher).item()) > 1e-9


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_signals_are_computed_in_float32(make: Make, formula: Callable[..., float], dtype: torch.dtype):
    student, teacher = (x.to(dtype) for x in signals(16, (12, 20)))
    value = make()(student, teacher)
    assert value.dtype == torch.float32
    exact = formula(student.double().tolist(), teacher.double().tolist())  # of the rounded signals: no other loss
    assert value.item() == pytest.approx(exact, rel=1e-4)
    unrounded = formula(*(x.tolist() for x in signals(16, (12, 20))))
    assert value.item() == pytest.approx(unrounded, rel=2e-2)  # and what the rounding of the signals costs


@every
def test_autocast_is_off_inside(make: Make):
    loss = made(make, torch.float32)
    student, teacher = (x.float() for x in signals())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = call(loss, student, teacher)
    assert inside.item() == call(loss, student, teacher).item()


@pytest.mark.parametrize("name", ["CC-embedded", "CRD"])
def test_a_bfloat16_module_works(name: str):
    """Lightning's bf16-true casts the loss's layers, buffers and banks too."""
    student, teacher = (x.bfloat16() for x in signals())
    torch.manual_seed(1)
    loss = EVERY[name]().to(torch.bfloat16)
    value = call(loss, student, teacher)
    value.backward()
    assert value.dtype == torch.float32
    assert math.isfinite(value.item())
    assert all(p.grad.isfinite().all() for p in loss.parameters())


@pytest.mark.long
@every
def test_the_compiled_loss_is_the_same(make: Make):
    loss, (student, teacher) = made(make), signals()
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager")
    student.requires_grad_()
    value = call(loss, student, teacher)
    torch.manual_seed(0)
    keys = (torch.arange(len(student)),) if isinstance(loss, CRD) else ()
    again = compiled(student, teacher, *keys)
    assert again.item() == value.item()
    assert torch.equal(torch.autograd.grad(again, student)[0], torch.autograd.grad(value, student)[0])


@every
@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_batches_are_defined(make: Make, size: int):
    loss, (student, teacher) = made(make), signals()
    value, gradient = slope(loss, student[:size], teacher[:size])
    assert value.isfinite()
    assert gradient.isfinite().all()
    if size < getattr(loss, "least_rows", 1):
        assert value.item() == pytest.approx(0, abs=1e-15)
        assert gradient.abs().max().item() < 1e-12
    else:
        assert value.item() > 0


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_examples_give_no_wild_gradient(make: Make, dtype: torch.dtype):
    loss, (student, teacher) = made(make, dtype), (x.to(dtype) for x in signals())
    ordinary = slope(loss, student, teacher)[1].abs().max()
    student[1], student[4] = student[0], student[0]
    for t in (teacher, teacher[:1].expand(6, -1)):
        value, gradient = slope(loss, student, t)
        assert value.isfinite()
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 20 * ordinary
    value, gradient = slope(loss, student[:1].repeat(6, 1), teacher)  # all the same: no distance, no angle
    assert value.isfinite()
    assert gradient.abs().max() < 20 * ordinary


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dead_examples_give_no_wild_gradient(make: Make, dtype: torch.dtype):
    """An embedding behind a ReLU can be all zero; dividing by max(‖x‖, ε) there multiplies the gradient by 1/ε."""
    loss, (student, teacher) = made(make, dtype), (x.to(dtype) for x in signals())
    ordinary = slope(loss, student, teacher)[1].abs().max()
    student[2] = 0
    for s in (student, torch.zeros_like(student)):
        value, gradient = slope(loss, s, teacher)
        assert value.isfinite()
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 20 * ordinary


@every
def test_maps_are_flattened(make: Make):
    student, teacher = signals(widths=(12, 8))
    loss = made(make, widths=(12, 8))
    flat = call(loss, student, teacher)
    assert call(loss, student.view(6, 3, 2, 2), teacher.view(6, 2, 4)).item() == flat.item()


@every
@pytest.mark.parametrize(
    ("first", "second"),
    [((4, 5), (3, 5)), ((4,), (4, 5)), ((4, 5), (4,)), ((0, 5), (0, 5)), ((1, 5), (4, 5))],
    ids=["batches differ", "student 1-d", "teacher 1-d", "empty", "would broadcast"],
)
def test_batches_that_do_not_match_are_refused(make: Make, first: tuple, second: tuple):
    with pytest.raises(TutelageError) as error:
        call(make(), torch.zeros(first), torch.zeros(second))
    assert f"{list(first)}" in str(error.value)
    assert f"{list(second)}" in str(error.value)


@plain
def test_students_can_be_stacked(make: Make):
    """Many students at once, each with its own hyperparameters: the loss under ``vmap`` is each one's own."""
    students = torch.stack([signals(seed=seed)[0] for seed in range(3)])
    teacher, loss = signals()[1], make()
    buffers = {name: torch.stack([b, 2 * b, 3 * b]) for name, b in loss.named_buffers()}
    stacked = torch.func.vmap(lambda b, s: torch.func.functional_call(loss, b, (s, teacher)))(buffers, students)
    for i, student in enumerate(students):
        alone = torch.func.functional_call(loss, {name: b[i] for name, b in buffers.items()}, (student, teacher))
        assert stacked[i].item() == pytest.approx(alone.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("make", "names"),
    [(RKD, {"distance_weight", "angle_weight"}), (CC, {"gamma"}), (EVERY["CRD"], {"temperature", "momentum"})],
    ids=["RKD", "CC", "CRD"],
)
def test_swept_numbers_are_buffers_outside_the_state(make: Make, names: set[str]):
    loss = make()
    assert names <= dict(loss.named_buffers()).keys()
    assert not names & loss.state_dict().keys()
    assert all(getattr(loss, name).shape == () and getattr(loss, name).dtype == torch.float32 for name in names)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RKD(distance_weight=-1), "distance_weight.*found -1"),
        (lambda: RKD(angle_weight=math.nan), "angle_weight.*found nan"),
        (lambda: RKD(angle_weight=math.inf), "angle_weight.*found inf"),
        (lambda: CC(gamma=0), "gamma.*found 0"),
        (lambda: CC(gamma=math.nan), "gamma.*found nan"),
        (lambda: CC(order=0), "order.*found 0"),
        (lambda: CC(order=1.5), "order.*found 1.5"),  # type: ignore[arg-type]
        (lambda: CC(dim=0), "dim.*found 0"),
        (lambda: CRD(examples=1), "examples.*found 1"),
        (lambda: CRD(examples=9, dim=0), "dim.*found 0"),
        (lambda: CRD(examples=9, negatives=0), "negatives.*found 0"),
        (lambda: CRD(examples=9, temperature=0), "temperature.*found 0"),
        (lambda: CRD(examples=9, temperature=math.nan), "temperature.*found nan"),
        (lambda: CRD(examples=9, momentum=1), "momentum.*found 1"),
        (lambda: CRD(examples=9, momentum=-0.1), "momentum.*found -0.1"),
        (lambda: CRD(examples=9, momentum=math.nan), "momentum.*found nan"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Make, says: str):
    with pytest.raises(TutelageError, match=says):
        make()


def test_unit_keeps_zero_and_gives_it_no_gradient():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    y = unit(x)
    assert torch.equal(y, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    y.backward(torch.ones(2, 2))
    assert torch.allclose(x.grad[0], torch.tensor([0.032, -0.024]))
    assert torch.equal(x.grad[1], torch.zeros(2))


def test_flat_rows_lets_widths_differ():
    student, teacher = flat_rows(torch.zeros(3, 2, 4), torch.zeros(3, 5), "x")
    assert (student.shape, teacher.shape) == ((3, 8), (3, 5))
