"""How hard each part of the loss pulls at the trained student."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from tutelage.evaluation.predictions import Predictions
from tutelage.report.answers import Answers, both, hard_gradient, soft_gradient
from tutelage.report.cells import Cell, Sweep
from tutelage.report.document import Block, Table, Text, number, text
from tutelage.report.runs import Run

_MOST = 2000  # examples: enough for a mean
_HARD, _SOFT = "CrossEntropyLoss", "SoftTarget"


@dataclass(frozen=True)
class Pull:
    """Mean norms of two terms' gradients, weights included, and the mean cosine between them."""

    hard: float
    soft: float
    cosine: float


def gradients(sweep: Sweep, chosen: Cell, answers: Answers) -> Iterable[Block]:
    """A table over the cells, and a sentence on the chosen one."""
    label = "Which part of the loss pulls harder?"
    rows, own = [], None
    for cell in sweep.cells:
        found = [pull for run in cell.runs.values() if (pull := _pull(run, answers))]
        if found:
            pull = Pull(*(fmean(getattr(one, name) for one in found) for name in ("hard", "soft", "cosine")))
            own = pull if cell is chosen else own
            rows.append(
                [cell.name, len(found), pull.hard, pull.soft, pull.soft / pull.hard if pull.hard else None, pull.cosine]
            )
    if not rows:
        said = "No cell's loss is cross-entropy with soft targets and nothing else, of which this has a closed form "
        yield Text(f"{said}(or predictions can't be read).", label=label)
        return
    how = (
        "Computed from the trained students' stored answers, not during training: mean over at most "
        f"{_MOST:,} training (or validation) images of the norm of the gradient with respect to the "
        "logits, weights included: w·‖softmax(z) − label‖ and "
        "w·T·‖softmax(z/T) − softmax(z_teacher/T)‖."
    )
    if own is None:
        yield Text(f"Not of the chosen cell, whose loss has other terms. {how}", label=label)
    else:
        towards = (
            "the same way" if own.cosine > 0.1 else "against each other" if own.cosine < -0.1 else "at right angles"
        )
        said = f"At the end the teacher's part pulls {number(own.soft)}, the labels' {number(own.hard)}"
        said += f" ({own.soft / own.hard:.2g} times as hard)" if own.hard else ""
        yield Text(f"{said}, with a mean cosine of {number(own.cosine)}: {towards}. {how}", label=label)
    columns = {"cell": text, "runs": text} | dict.fromkeys(
        ["labels' pull", "teacher's pull", "ratio", "cosine"], number
    )
    caption = "Mean gradient norms with respect to the trained student's logits"
    yield Table("gradients", caption, columns, rows, shown=40, folded=len(rows) > 12)


def _pull(run: Run, answers: Answers) -> Pull | None:
    """Of one run, on training images where they were kept, else on validation."""
    parts = _terms(run)
    if parts is None:
        return None
    for split in ("train", "val"):
        own, teacher = answers.of(run, "student", split), answers.of(run, "teacher", split)
        if own is not None and teacher is not None and (pair := both(own, teacher)):
            return pull(*pair, *parts)
    return None


def pull(own: Predictions, teacher: Predictions, hard: float, soft: float, temperature: float) -> Pull:
    """Of both terms, with their weights."""
    own, teacher = (Predictions(p.logits[:_MOST], p.label[:_MOST], p.key[:_MOST]) for p in (own, teacher))
    a, b = hard_gradient(own), soft_gradient(own, teacher, temperature)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1, eps=1e-12)
    return Pull(hard * _size(a), soft * _size(b), float(cosine.mean()))


def _size(gradient: Tensor) -> float:
    return float(gradient.norm(dim=1).mean())


def _terms(run: Run) -> tuple[float, float, float] | None:
    """Weights of both terms and T, of a loss that is these two and nothing else."""
    loss = run.config.get("loss") or {}
    kinds: dict[str, Mapping] = {}
    for term in (loss.get("terms") or {}).values():
        if not isinstance(term, Mapping) or not isinstance(term.get("weight"), int | float) or term.get("schedule"):
            return None
        kinds[str((term.get("loss") or {}).get("_target_", "")).rpartition(".")[2]] = term
    if set(kinds) != {_HARD, _SOFT} or kinds[_HARD]["loss"].get("label_smoothing"):
        return None
    return float(kinds[_HARD]["weight"]), float(kinds[_SOFT]["weight"]), float(kinds[_SOFT]["loss"]["temperature"])
