"""Losses that take masks themselves, on a batch whose examples are unlike long, alone and as two ranks."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from tutelage import losses
from tutelage.objective import Term

LENGTHS = (1, 5, 3, 2)
Signals = dict[str, Tensor]


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _tokens() -> Tensor:
    return torch.arange(5) < torch.tensor(LENGTHS)[:, None]


def _states(*names: str) -> Signals:
    return {name: _draw(4, 5, 6, seed=i) for i, name in enumerate(names)} | {"mask": _tokens()}


def _answers() -> Signals:
    label = torch.where(_tokens(), 1.0, math.nan).double()
    return {"student": _draw(4, 5, seed=1), "teacher": _draw(4, 5, seed=2), "label": label}


def _some_answers() -> Signals:
    label = torch.where(_tokens(), (_draw(4, 5, seed=3) > 0).double(), math.nan)
    return {"student": _draw(4, 5, seed=1), "label": label}


def _maps() -> Signals:
    mask = _tokens()[:, None].expand(4, 6, 5)
    return {"student": _draw(4, 3, 6, 5, seed=1), "teacher": _draw(4, 3, 6, 5, seed=2), "mask": mask}


def _own_masks() -> Signals:
    found = {"student": _draw(4, 5, 6, seed=1), "teacher": _draw(4, 5, 6, seed=2)}
    return found | {"student_mask": _tokens(), "teacher_mask": _tokens().flip(1)}


class _OfLabels(nn.Module):
    """A loss against labels in its term, which knows that some examples have none."""

    def __init__(self, loss: nn.Module, labels: Tensor, first: str = "input", second: str = "target", **targets: str):
        super().__init__()
        self.term = Term(loss, {first: "student.logits", second: "batch.label"}, targets)
        self.term.bind(torch.arange(len(labels)), labels)

    def forward(self, student: Tensor, label: Tensor, teacher: Tensor | None = None) -> Tensor:
        found = {"student": {"logits": student}, "batch": {"label": label}}
        return self.term(found if teacher is None else found | {"teacher": {"logits": teacher}})


class _OfRows(nn.Module):
    """A loss in a term that chooses rows by a mask; ``second`` is its other argument."""

    def __init__(self, loss: nn.Module, first: str = "input", second: str = "target"):
        super().__init__()
        self.term = Term(loss, {first: "student.logits"}, {second: "batch.other"}, where="batch.where")

    def forward(self, student: Tensor, other: Tensor, where: Tensor) -> Tensor:
        return self.term({"student": {"logits": student}, "batch": {"other": other, "where": where}})


def _rows(other: Tensor, counts: tuple[int, ...]) -> Signals:
    """Of four examples some positions count: ``counts`` of three each."""
    where = torch.arange(3) < torch.tensor(counts)[:, None]
    return {"student": _draw(4, 3, 5, seed=1), "other": other, "where": where}


def _numbers() -> Signals:
    label = _draw(4, 5, seed=3)
    label[1], label[2, 3:] = math.nan, math.nan  # an example without a label, another with a part of it
    return {"student": _draw(4, 5, seed=1), "label": label}


def _pixels() -> Signals:
    label = torch.arange(12).view(4, 3) % 4
    label[1], label[2, 1:] = -100, -100
    return {"student": _draw(4, 3, 4, seed=1), "label": label}


_LABELS = torch.arange(12).view(4, 3) % 5
_PARTLY = _draw(4, 3, 5, seed=3).where(_draw(4, 3, 5, seed=4) > -0.5, math.nan)
_WEIGHTS = [1.0, 2.0, 0.5, 3.0, 1.5]
_FEW, _NONE = (1, 0, 3, 2), (0, 0, 3, 1)  # of the second rank; in the second case the first has none
_ATTENTION = tuple(f"{whose}_{what}" for whose in ("student", "teacher") for what in ("query", "key", "value"))
CASES: dict[str, tuple[Callable[[], nn.Module], Signals]] = {
    "BernoulliKL": (losses.BernoulliKL, _answers()),
    "CWD": (losses.CWD, _maps()),
    "PairWise": (losses.PairWise, _maps()),
    "MiniLM": (lambda: losses.MiniLM(2), _states(*_ATTENTION)),
    "MiniLMv2": (lambda: losses.MiniLMv2(2), _states(*_ATTENTION)),
    "TinyBERTAttention": (
        lambda: losses.TinyBERTAttention(2),
        _states(*(name for name in _ATTENTION if "value" not in name)),
    ),
    "TinyBERTStates": (losses.TinyBERTStates, _states("student", "teacher")),
    "ULD": (losses.ULD, _own_masks()),
    "SquaredError": (lambda: _OfLabels(losses.SquaredError(), _numbers()["label"]), _numbers()),
    "WeightedCrossEntropy": (
        lambda: _OfLabels(losses.WeightedCrossEntropy([1.0, 2.0, 0.5, 3.0]), _pixels()["label"]),
        _pixels(),
    ),
    "BinaryCrossEntropy": (lambda: _OfLabels(losses.BinaryCrossEntropy(), _some_answers()["label"]), _some_answers()),
    "TeacherBounded of labelled rows": (
        lambda: _OfLabels(losses.TeacherBounded(), _numbers()["label"], "student", "label", teacher="teacher.logits"),
        _numbers() | {"teacher": _draw(4, 5, seed=2)},
    ),
    "SquaredError of rows": (lambda: _OfRows(losses.SquaredError()), _rows(_PARTLY, _FEW)),
    "SquaredError of one rank's rows": (lambda: _OfRows(losses.SquaredError()), _rows(_PARTLY, _NONE)),
    "WeightedCrossEntropy of rows": (lambda: _OfRows(losses.WeightedCrossEntropy(_WEIGHTS)), _rows(_LABELS, _FEW)),
    "WeightedCrossEntropy of one rank's rows": (
        lambda: _OfRows(losses.WeightedCrossEntropy(_WEIGHTS)),
        _rows(_LABELS, _NONE),
    ),
    "BernoulliKL of rows": (
        lambda: _OfRows(losses.BernoulliKL(), "student", "teacher"),
        _rows(_draw(4, 3, 5, seed=2), _FEW),
    ),
    "CrossEntropy of rows": (lambda: _OfRows(nn.CrossEntropyLoss()), _rows(_LABELS, _FEW)),
    "CrossEntropy of one rank's rows": (lambda: _OfRows(nn.CrossEntropyLoss()), _rows(_LABELS, _NONE)),
}


def gradient(name: str, share: slice) -> Tensor:
    """Returns the loss on a share of the examples and its derivative along a change of the student's signals, [2]."""
    make, signals = CASES[name]
    torch.manual_seed(0)
    loss = make().double()
    factor = torch.zeros((), dtype=torch.float64, requires_grad=True)
    given = {key: x[share] for key, x in signals.items()}
    given |= {
        key: x + factor * x.sin() for key, x in given.items() if key.startswith("student") and x.is_floating_point()
    }
    value = loss(**given)
    return torch.stack([value.detach(), torch.autograd.grad(value, factor)[0]])


def rank(number: int, folder: str) -> None:
    """One of two processes: every loss on its half of the examples; rank 0 writes the means of both."""
    torch.set_num_threads(1)
    store = distributed.FileStore(os.path.join(folder, "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=number, world_size=2)
    found = {}
    for name in CASES:
        found[name] = gradient(name, slice(2 * number, 2 * number + 2))
        distributed.all_reduce(found[name])
        found[name] /= 2
    if number == 0:
        torch.save(found, Path(folder) / "found.pt")
    distributed.destroy_process_group()
