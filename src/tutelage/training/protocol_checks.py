"""Checks before the first step: enough rows, what others read stays as it is, answers rest on their example alone."""

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tutelage.errors import TutelageError
from tutelage.losses.base import contract
from tutelage.objective import Objective
from tutelage.runtime.distributed import is_up
from tutelage.runtime.messages import ONCE
from tutelage.types import Batch, Signals

log = logging.getLogger(__name__)

_SAME = 1e-3  # of the largest logit: kernels of a GPU may add in another order
_ALIKE = 0.03  # the same for batches of two sizes, which in half precision differ more


def check_rows(objective: Objective, batch_size: int) -> None:
    """Checks that a whole batch has enough rows for each loss; a short last one may have too few.

    Raises:
        TutelageError: a loss compares more examples than a rank has in a batch.
    """
    ranks = torch.distributed.get_world_size() if is_up() else 1
    for _, loss in objective.losses():
        if (least := contract(loss).least_rows) > batch_size // ranks:
            raise TutelageError(
                f"{type(loss).__name__} compares examples and needs at least {least}; with "
                f"data.batch_size={batch_size} each of {ranks} ranks has {batch_size // ranks}"
            )


def watched_pass(
    batch: Batch,
    answers: Callable[[Batch], dict[str, Signals]],
    objective: Objective,
    student: Callable[[Batch], Signals],
) -> tuple[dict[str, Signals], dict[str, Tensor]]:
    """Returns signals and terms of a batch, after networks and losses have been watched at their work.

    Args:
        batch: some examples.
        answers: batch → the signals of all sources.
        objective: has the terms.
        student: the student in eval mode.

    Raises:
        TutelageError: a network or a loss changes what others read.
    """
    before = copied({"batch": batch})
    signals = answers(batch)
    check_unchanged(before, {"batch": batch}, "a network")
    warn_of_answers(student, signals["batch"], signals["student"]["logits"].detach())
    before = copied(signals)
    _, parts = objective(signals)
    check_unchanged(before, signals, "a loss")
    return signals, parts


def copied(signals: Mapping[str, Signals]) -> dict[str, dict[str, Tensor]]:
    """Returns copies of all signals, without gradient."""
    return {source: {name: x.detach().clone() for name, x in own.items()} for source, own in signals.items()}


def check_unchanged(before: Mapping[str, Signals], after: Mapping[str, Signals], by: str) -> None:
    """Compares signals with copies made earlier.

    Args:
        before: source → the copies.
        after: the signals now.
        by: who may have changed them, as the error says it.

    Raises:
        TutelageError: one has changed; names it.
    """
    for source, own in before.items():
        for name, x in own.items():
            now = after[source][name].detach()
            if not x.equal(now) and not bool(((x == now) | (x.isnan() & now.isnan())).all()):
                raise TutelageError(
                    f"{by} changes {source}.{name} in place, which others read after it: let it work on a copy, such "
                    "as x.clone(), or leave out inplace=True"
                )


def warn_of_answers(answer: Callable[[Batch], Signals], batch: Batch, first: Tensor) -> None:
    """Warns of a student whose answer to an example is random, or depends on the others of its batch.

    Args:
        answer: the student in eval mode.
        batch: with one row an example in each field, but for those that are shared, such as ``graph.edges``.
        first: the student's logits of this batch, computed before.
    """
    largest = float(first.abs().max())
    again = answer(batch)["logits"].detach()
    if (difference := float((first - again).abs().max())) > _SAME * largest:
        log.warning(
            "the student's answers in eval mode are random: the same examples twice differ by %.2g, with logits up to "
            "%.2g; its figures are those of one draw",
            difference, largest, extra=ONCE,
        )  # fmt: skip
        return
    count = len(batch["input"])
    half = count // 2
    part = {name: x[:half] if "." not in name and len(x) == count else x for name, x in batch.items()}
    if not half or (alone := answer(part)["logits"].detach()).shape != first[:half].shape:
        return
    if (difference := float((alone - first[:half]).abs().max())) > _ALIKE * largest:
        log.warning(
            "the student's answer to an example depends on the others of its batch: %d of %d examples alone differ by "
            "%.2g, with logits up to %.2g; its figures hold for this data.eval_batch_size and order of examples",
            half, count, difference, largest, extra=ONCE,
        )  # fmt: skip
