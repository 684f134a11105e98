"""Section "gradients": the gradient norm of each term of the loss during training."""

from collections.abc import Iterable
from statistics import fmean

from tutelage.errors import TutelageError
from tutelage.report.cells import Cell, Sweep
from tutelage.report.document import Block, Table, Text, number, plural, text
from tutelage.report.runs import Run
from tutelage.runtime.json_shape import read_json_as

_HARD = "hard"  # the term of the labels
_HOW = (
    "Measured while the students trained, on the last batch of some epochs (the last one always): norms of the terms' "
    "gradients with respect to the student's parameters, weights and schedules included."
)
_FORM = {"*": {"*": "two numbers"}}
_STAGE = {"gradient_norms?": _FORM, "pulls?": _FORM}  # pulls: in runs of the previous release
Norms = list[dict[str, list[float]]]  # measurements: term → [norm, cosine with all other terms together]


def gradients(sweep: Sweep, chosen: Cell) -> Iterable[Block]:
    """Yields a sentence on the chosen cell and a table over cells and terms."""
    label = "Which term of the loss has the largest gradient?"
    found = {id(cell): [norms for run in cell.runs.values() if (norms := _norms(run))] for cell in sweep.cells}
    rows = [row for cell in sweep.cells if found[id(cell)] for row in _rows(cell, found[id(cell)])]
    if not rows:
        yield Text("Not measured: the loss has one term, or the runs are older, stacked or sharded.", label=label)
        return
    own = found.get(id(chosen))
    sentence = _sentence(own) if own else "Not measured in the chosen cell, whose loss has one term."
    yield Text(f"{sentence} {_HOW}", label=label)
    columns = {"cell": text, "runs": text, "term": text} | dict.fromkeys(
        ["mean norm", "norm at the end", "of the labels'", "cosine with the rest"], number
    )
    caption = "Mean norms of the terms' gradients with respect to the student's parameters"
    yield Table("gradients", caption, columns, rows, shown=40, folded=len(rows) > 12)


def _rows(cell: Cell, runs: list[Norms]) -> Iterable[list]:
    norms, cosines = _means(runs, 0), _means(runs, 1)
    ends = _means([measured[-1:] for measured in runs], 0)
    for name, norm in norms.items():
        share = norm / norms[_HARD] if norms.get(_HARD) and name != _HARD else None
        yield [cell.name, len(runs), name, norm, ends[name], share, cosines[name]]


def _sentence(runs: list[Norms]) -> str:
    """Describes one cell's norms, the ratio of the largest to the labels' (or the smallest), and the cosine."""
    norms, cosines = _means(runs, 0), _means(runs, 1)
    if len(norms) < 2:
        return "Not measured in the chosen cell, whose runs have no two terms in common."
    named = {name: "the labels'" if name == _HARD else f"that of {name}" for name in norms}
    first, *others = sorted(norms, key=norms.__getitem__, reverse=True)
    base = _HARD if _HARD in others else others[-1]
    sentence = f"In the mean over training ({plural(sum(map(len, runs)), 'measurement')}) the largest gradient is "
    sentence += f"{named[first]}, {number(norms[first])}"
    sentence += f", {norms[first] / norms[base]:.2g} times {named[base]}: " if norms[base] else ": "
    sentence += ", ".join(f"{named[name]} is {number(norms[name])}" for name in others)
    about = _HARD if _HARD in norms else first
    cosine = cosines[about]
    way = "the same way" if cosine > 0.1 else "against each other" if cosine < -0.1 else "at right angles"
    return f"{sentence}. The cosine between {named[about]} and the sum of the rest is {number(cosine)}: {way}."


def _means(runs: list[Norms], place: int) -> dict[str, float]:
    """Returns by term, for terms of all runs, the mean over each run's measurements and then over runs."""
    names = [name for name in runs[0][0] if all(name in one for measured in runs for one in measured)]
    return {name: fmean(fmean(one[name][place] for one in measured) for measured in runs) for name in names}


def _norms(run: Run) -> Norms | None:
    """Returns the gradient norms by epoch in the student's ``stage.json``; None without."""
    try:
        stage = read_json_as(run.folder / "checkpoints" / "stage.json", _STAGE)
    except TutelageError:
        return None
    norms = {
        int(epoch): terms
        for epoch, terms in (stage.get("gradient_norms") or stage.get("pulls") or {}).items()
        if epoch.isdecimal()
    }
    found = sorted(norms.items())
    return [terms for _, terms in found if terms] or None
