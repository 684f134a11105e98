"""Rounds of a generator and a student: what they cost, and each thing that does not fit."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from tutelage.errors import TutelageError
from tutelage.losses import CTKD
from tutelage.objective import Term
from tutelage.training.turns import Turn, Turns

PLAIN, LEARNS = (
    Term(loss, inputs={"student": "student.logits"}, targets={"teacher": "teacher.logits"})
    for loss in (nn.MSELoss(), CTKD())
)
STUDENT, GENERATOR = Turn("student"), Turn("generator")
POOLED = [Turn("generator", 4, "pool"), Turn("student", 3, "pool")]


def pool(images: int | None = None, views: int = 2) -> Any:
    return SimpleNamespace(views=range(views), images=images)


def turns(order: list[Turn], **arguments: Any) -> Turns:
    return Turns(nn.Identity(), order, 1, **arguments)


ALONE = {"terms": {"plain": PLAIN}, "optimizer": object()}
COSTS: list[tuple[list[Turn], dict[str, Any], tuple[float, float, float]]] = [
    ([Turn("student", 2)], {}, (2, 6, 2)),
    ([STUDENT, Turn("student", 2, "again"), Turn("student", 4, "last")], {}, (1 + 1, 3 + 6 + 12, 1 + 1)),
    ([Turn("generator", 2), Turn("student", 3, "again")], ALONE, (6 + 1, 4 + 9, 4 + 1)),
    (POOLED, ALONE | {"synthesis": pool()}, (12, 8 + 9, 16 + 3)),
    (POOLED, ALONE | {"synthesis": pool(images=9, views=1)}, (18, 12 + 9, 12 + 3)),  # of 9 images for a batch of 6
]


@pytest.mark.parametrize(("order", "arguments", "expected"), COSTS)
def test_a_step_is_three_passes_and_a_gradient_through_a_network_one_more(order, arguments, expected):
    found = turns(order, **arguments).passes(6)
    assert found == dict(zip(("generator", "student", "teacher"), expected, strict=True))


MISFITS: list[tuple[list[Turn], dict[str, Any], str]] = [
    ([], {}, "needs images=new"),
    ([Turn("student", images="last")], {}, "needs images=new"),
    ([GENERATOR], ALONE, "the student has no turn"),
    ([GENERATOR, STUDENT], {"terms": ALONE["terms"]}, "needs turns.terms and turns.optimizer"),
    ([GENERATOR, STUDENT], {"optimizer": object()}, "needs turns.terms and turns.optimizer"),
    ([GENERATOR, STUDENT], {"terms": {"plain": PLAIN, "learns": LEARNS}}, "needs turns.terms and turns.optimizer"),
    (POOLED, {"synthesis": pool()}, "needs turns.terms and turns.optimizer"),
    (POOLED, {"synthesis": pool(), "terms": {"learns": LEARNS}}, "parameters that learn, which needs one"),
    (POOLED, ALONE, "without it none; found .* and no synthesis"),
    ([STUDENT], {"synthesis": pool()}, "all turns have images=pool.* and a synthesis"),
    ([*POOLED, STUDENT], ALONE | {"synthesis": pool()}, "all turns have images=pool"),
    (POOLED[::-1], ALONE | {"synthesis": pool()}, "the first turn of a round is a generator's"),
    (POOLED, ALONE | {"synthesis": pool(), "clip": 1.0}, "use clip=null"),
    ([STUDENT], {"student_clip": 0.0}, "turns.student_clip must be above 0"),
    ([STUDENT], {"clip": -1.0}, "turns.clip must be above 0"),
    ([STUDENT], {"interval": "round"}, "must be epoch or step"),
]


@pytest.mark.parametrize(("order", "arguments", "said"), MISFITS)
def test_rounds_that_do_not_fit_are_refused(order, arguments, said):
    with pytest.raises(TutelageError, match=said):
        turns(order, **arguments)


def test_what_a_round_need_not_have():
    assert turns(POOLED, terms=ALONE["terms"], synthesis=pool(), student_clip=1e-6).generates  # no optimizer beside it
    assert not turns([STUDENT], interval="step", clip=1e-6).generates
    assert turns([STUDENT]).objective() is None


@pytest.mark.parametrize("steps", [True, 0, 1.5])
def test_a_turn_has_a_whole_number_of_steps(steps):
    with pytest.raises(TutelageError, match="steps must be a whole number of at least 1"):
        Turn("student", steps)
