"""Section "diagnosis": measured reasons why distillation helps or does not."""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from tutelage.report.answers import Answers, entropy, off_label
from tutelage.report.cells import ALPHA, TEMPERATURE, Cell, Sweep
from tutelage.report.document import Block, Section, Table, Text, number, percent, plural, points
from tutelage.report.gains import CellStatistics, gains, mean
from tutelage.report.sections.gradients import gradients
from tutelage.report.statistics import paired
from tutelage.tasks.predictions import SavedPredictions

_LITTLE, _FLAT = 0.05, 0.9  # shares of the maximum entropy
_SURE = 0.995  # accuracy


def diagnosis(sweep: Sweep, found: Sequence[CellStatistics], best: CellStatistics, answers: Answers) -> Section:
    """Returns the section: one item per question, each a measurement and its meaning."""
    cell = best.cell
    blocks: list[Block] = [
        Text(
            "Each item is a measurement on these runs and what it may explain; none of them is a proof. "
            f"All are for the chosen cell, {cell.name}."
        ),
        *_of_teacher(sweep, cell, answers),
        *gradients(sweep, cell),
        *_limits(found, best),
    ]
    return Section("diagnosis", "Diagnosis: why it helps or does not", blocks)


def _of_teacher(sweep: Sweep, cell: Cell, answers: Answers) -> Iterable[Block]:
    """Yields what the teacher can explain."""
    if not cell.has_teacher:
        yield Text("These runs have no figures of a teacher.")
        return
    yield from _advantage(cell, answers.weights)
    yield from _dark_knowledge(sweep, cell, answers)
    yield from _train_and_test(cell, answers)
    yield from _capacity(cell, answers)


def _advantage(cell: Cell, weights: str) -> Iterable[Block]:
    """Yields the teacher's advantage, and whether the student agrees more with it."""
    label = "Is the teacher better?"
    teacher, control = (mean(cell, role, weights, "test", "accuracy") for role in ("teacher", "control"))
    if teacher is None or control is None:
        yield Text("Not measured: there are no metrics of a teacher or of a control.", label=label)
        return
    ahead = teacher.mean - control.mean
    sentence = f"On test it is right for {percent(teacher.mean)} %, the student alone for {percent(control.mean)} %: "
    sentence += f"{points(ahead)} points. "
    if ahead <= 0:
        sentence += "There is nothing better to imitate."
    elif own := [*gains(cell, weights, "test").values()]:
        share, tested = 100 * fmean(own) / ahead, paired(own)
        if tested.low is not None and tested.high is not None and tested.low <= 0 <= tested.high:
            sentence += (
                "These seeds do not show that distillation has changed that gap: the gain's interval has 0 in it."
            )
        else:
            sentence += f"Distillation {f'closed {share:.0f} % of' if share >= 0 else 'has widened'} that gap."
    yield Text(sentence, label=label)
    alone, taught = (mean(cell, role, weights, "test", "agreement") for role in ("control", "student"))
    if alone and taught:
        sentence = (
            f"On test the student alone agrees with the teacher for {percent(alone.mean)} %, the distilled one for "
        )
        sentence += f"{percent(taught.mean)} %: {points(taught.mean - alone.mean)} points. "
        sentence += "It did not become more like its teacher." if taught.mean <= alone.mean else ""
        yield Text(sentence.strip(), label="Did the student become like it?")


def _dark_knowledge(sweep: Sweep, cell: Cell, answers: Answers) -> Iterable[Block]:
    """Yields the entropy of the teacher's outputs at every temperature of the sweep."""
    label = "How much information beyond the label do the teacher's outputs have?"
    run = next(iter(cell.runs.values()))
    split, teacher = _first(answers, cell, "teacher")
    if teacher is None:
        yield Text("The teacher's predictions cannot be read.", label=label)
        return
    used = {t for one in sweep.cells if (t := _temperature(one)) is not None}
    most = math.log(teacher.logits.shape[1])
    rows = [
        [float(t), found := entropy(teacher.logits, float(t)), found / most, off_label(teacher, float(t))]
        for t in sorted({1.0, *used})
    ]
    own = _temperature(cell) or 1.0
    at = next(row for row in rows if row[0] == own)
    plain = f"{number(entropy(teacher.logits, 1.0))} nats of entropy at T = 1"
    plain += f" and {number(at[1])} at the T = {at[0]:g} used" if at[0] != 1 else ""
    sentence = f"On {_of(split)} its outputs have {plain}: {percent(at[2])} % of the maximum "
    sentence += f"(ln {teacher.logits.shape[1]}). "
    if at[2] < _LITTLE:
        sentence += f"Below {_LITTLE:.0%}: hardly more than the label."
    elif at[2] > _FLAT:
        sentence += f"Above {_FLAT:.0%}: near the limit of a high T, where the student matches centred logits."
    yield Text(sentence, label=label)
    columns = {
        "T": lambda t: f"{t:g}",
        "mean entropy, nats": number,
        "of ln C, %": percent,
        "not on the label, %": percent,
    }
    seed = f"; seed {run.seed}" if len(cell.runs) > 1 else ""
    yield Table("entropy", f"The teacher's outputs on {_of(split)} by temperature{seed}", columns, rows)


def _temperature(cell: Cell) -> float | None:
    """Returns the temperature of the cell's loss; None if it has none."""
    found = cell.setting(TEMPERATURE)
    is_one = isinstance(found, int | float) and not isinstance(found, bool) and 0 < found < math.inf
    return float(found) if is_one else None


def _train_and_test(cell: Cell, answers: Answers) -> Iterable[Block]:
    """Yields the teacher's accuracy on training and test data: one that is always right on the former adds little."""
    label = "Has the teacher memorised its training examples?"
    train, test = (_mean_figures(cell, answers, "teacher", split) for split in ("train", "test"))
    if train is None or test is None:
        yield Text(_unmeasured("the teacher"), label=label)
        return
    gap = train["accuracy"] - test["accuracy"]
    sentence = (
        f"It is right for {percent(train['accuracy'])} % of training examples and {percent(test['accuracy'])} % of "
    )
    sentence += f"test examples ({points(gap)} points), with NLL {number(train['nll'])} and {number(test['nll'])}. "
    sentence += "The student sees its outputs for training examples only."
    sentence += " There it is almost always right, so that only its uncertainty adds to the label." * (
        train["accuracy"] > _SURE
    )
    yield Text(sentence, label=label)


def _capacity(cell: Cell, answers: Answers) -> Iterable[Block]:
    """Yields the training loss of student and teacher."""
    label = "Can the student match the teacher?"
    found = {role: _mean_figures(cell, answers, role, "train") for role in ("teacher", "control", "student")}
    teacher, control, student = (found[role] for role in ("teacher", "control", "student"))
    if teacher is None or student is None:
        yield Text(_unmeasured("teacher or student"), label=label)
        return
    own, theirs = student["nll"], teacher["nll"]
    sentence = f"On training examples the student's loss (NLL) is {number(own)}, the teacher's {number(theirs)}: "
    sentence += f"a gap of {number(own - theirs)} nats. "
    sentence += f"Alone, the student reaches {number(control['nll'])}. " if control else ""
    tested = _mean_figures(cell, answers, "student", "test") or {}
    for one, where in ((student, "training"), (tested, "test")):
        if "kl_teacher" in one:
            sentence += f"On {where} examples the KL from the teacher's outputs is {number(one['kl_teacher'])} nats. "
    yield Text(sentence.strip(), label=label)


def _limits(found: Sequence[CellStatistics], best: CellStatistics) -> Iterable[Block]:
    """Yields the sweep's results at alpha = 1 and at T = 1."""
    for key, sign, means in ((ALPHA, "α", "no label is used"), (TEMPERATURE, "T", "the teacher's outputs as they are")):
        label = f"And at {sign} = 1 ({means})?"
        if best.cell.setting(key) is None:
            continue
        rest = _without(best, key)
        near = next((one for one in found if one.cell.setting(key) == 1 and _without(one, key) == rest), None)
        if near is None:
            sentence = f"Not measured: no run has it with all else as in the chosen cell; {key}=1 would tell."
        elif near is best:
            sentence = "That is the chosen cell."
        elif near.test_gain.mean is None or best.test_gain.mean is None:
            sentence = "It has no control to be compared with."
        else:
            own = f"the chosen cell {points(best.test_gain.mean)}"
            sentence = f"{points(near.test_gain.mean)} points on test ({plural(near.test_gain.n, 'seed')}), {own}."
        yield Text(sentence, label=label)


def _without(one: CellStatistics, key: str) -> dict[str, Any]:
    return {name: value for name, value in one.cell.values.items() if name != key}


def _first(answers: Answers, cell: Cell, role: str) -> tuple[str, SavedPredictions | None]:
    """Returns the predictions of the cell's first seed: on training images, or on validation without those."""
    run = next(iter(cell.runs.values()))
    own = answers.of(run, role, "train")
    return ("train", own) if own is not None else ("val", answers.of(run, role, "val"))


def _mean_figures(cell: Cell, answers: Answers, role: str, split: str) -> Mapping[str, float] | None:
    """Returns the mean over seeds of the metrics on a split, with fidelity if there is a teacher."""
    found = [one for run in cell.runs.values() if (one := answers.figures(run, role, split))]
    return {name: fmean(one[name] for one in found) for name in found[0]} if found else None


def _of(split: str) -> str:
    return {"train": "training examples", "val": "validation examples (none of training were kept)"}[split]


def _unmeasured(whose: str) -> str:
    return f"Not measured: no predictions of {whose} for training examples were stored (older runs, ensembles)."
