from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.unit.losses.properties import check_gradients, value
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tutelage.errors import TutelageError
from tutelage.losses.language.akl import AKL
from tutelage.losses.language.fused_linear import FusedLinear
from tutelage.losses.language.mixture import JSD, SkewKL
from tutelage.losses.language.reverse_kl import ReverseKL
from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.objective import Term

LOSSES = {
    "forward": lambda: SoftTarget(2.0),
    "reverse": ReverseKL,
    "JSD": JSD,
    "skew": SkewKL,
    "AKL": AKL,
}
each = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


def draw(rows: int = 11, classes: int = 7, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = {
        "student": (rows, 3), "teacher": (rows, 5), "student_weight": (classes, 3), "teacher_weight": (classes, 5),
        "student_bias": (classes,), "teacher_bias": (classes,),
    }  # fmt: skip
    return {name: torch.randn(shape, generator=g, dtype=dtype) for name, shape in shapes.items()}


def naive(loss: nn.Module, signals: dict[str, Tensor]) -> Tensor:
    both = [F.linear(signals[w], signals[f"{w}_weight"], signals.get(f"{w}_bias")) for w in ("student", "teacher")]
    found: Tensor = loss(*both)
    return found


class Widest(TorchDispatchMode):
    """Notes the largest number of elements of any tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        sizes = [one.numel() for one in tree_leaves(found) if isinstance(one, Tensor)]
        self.elements = max([self.elements, *sizes])
        return found


@each
@pytest.mark.parametrize("chunk", [1, 4, 11, 100])
def test_value_and_gradients_are_those_of_the_logits(make: Callable[[], nn.Module], chunk: int) -> None:
    loss, signals = make().double(), draw()
    free = {name: x.clone().requires_grad_() for name, x in signals.items()}
    found = FusedLinear(loss, chunk)(**free)
    expected_of = {name: x.clone().requires_grad_() for name, x in signals.items()}
    expected = naive(loss, expected_of)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    gradients = torch.autograd.grad(found, list(free.values()))
    for one, other in zip(gradients, torch.autograd.grad(expected, list(expected_of.values())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_gradients_are_the_finite_differences() -> None:
    signals = draw(5, 4)
    check_gradients(FusedLinear(SoftTarget(2.0).double(), 2), signals, tuple(signals))


def test_a_classifier_needs_no_bias() -> None:
    signals = {name: x for name, x in draw().items() if "bias" not in name}
    loss = SoftTarget(1.0).double()
    assert value(FusedLinear(loss, 4), signals) == pytest.approx(naive(loss, signals).item(), rel=1e-12)


def test_the_logits_are_never_there_at_once() -> None:
    rows, classes, chunk = 64, 500, 8
    signals = draw(rows, classes, torch.float32)
    free = [signals[name].requires_grad_() for name in ("student", "student_weight", "student_bias")]
    with Widest() as fused:
        torch.autograd.grad(FusedLinear(SoftTarget(1.0), chunk)(**signals), free)
    with Widest() as whole:
        torch.autograd.grad(naive(SoftTarget(1.0), signals), free)
    assert fused.elements == max(chunk * classes, classes * 5)
    assert whole.elements == rows * classes


def test_states_in_half_precision_are_multiplied_so_and_compared_in_float32() -> None:
    signals = draw(64, 20, torch.bfloat16)
    student = signals["student"].requires_grad_()
    found = FusedLinear(SoftTarget(2.0), 16)(**signals)
    assert found.dtype == torch.float32
    logits = [F.linear(signals[w], signals[f"{w}_weight"], signals[f"{w}_bias"]) for w in ("student", "teacher")]
    assert found.item() == pytest.approx(SoftTarget(2.0)(*logits).item(), rel=1e-5)
    assert torch.autograd.grad(found, student)[0].dtype == torch.bfloat16


def test_in_a_term_the_tokens_are_chosen_and_the_classifiers_whole() -> None:
    named, mask = draw(12), torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]], dtype=torch.bool)
    student = named["student"].unflatten(0, (3, 4)).requires_grad_()
    signals = {
        "student": {"hidden": student, "net.head.weight": named["student_weight"]},
        "teacher": {"hidden": named["teacher"].unflatten(0, (3, 4)), "net.head.weight": named["teacher_weight"]},
        "batch": {"mask": mask},
    }
    term = Term(
        FusedLinear(SoftTarget(2.0).double(), 4),
        {"student": "student.hidden", "student_weight": "student.net.head.weight"},
        {"teacher": "teacher.hidden", "teacher_weight": "teacher.net.head.weight"},
        where="batch.mask",
    )
    found = term(signals)
    kept = {name: x[mask.flatten()] if len(x) == 12 else x for name, x in named.items() if "bias" not in name}
    assert found.item() == pytest.approx(naive(SoftTarget(2.0).double(), kept).item(), rel=1e-12)
    gradient = torch.autograd.grad(found, student)[0]
    assert not gradient[~mask].any()
    assert gradient[mask].any(-1).all()


def test_what_does_not_fit_is_refused() -> None:
    signals, loss = draw(), FusedLinear(SoftTarget())
    with pytest.raises(TutelageError, match=r"found student's states \[11, 3\], weight \[7, 5\]"):
        loss(**signals | {"student_weight": signals["teacher_weight"]})
    with pytest.raises(TutelageError, match=r"found teacher's states .*, bias \[1\]"):
        loss(**signals | {"teacher_bias": signals["teacher_bias"][:1]})
    with pytest.raises(TutelageError, match=r"same rows.*\[10, 3\] and \[11, 5\]"):
        loss(**signals | {"student": signals["student"][:10]})
    with pytest.raises(TutelageError, match=r"FusedLinear.chunk: expected an integer of 1 or more, found 0"):
        FusedLinear(SoftTarget(), 0)
