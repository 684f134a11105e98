"""Section "answer": the chosen cell, its gain and the evidence for it."""

from collections.abc import Iterable, Sequence

from tutelage.report.cells import ALPHA, TEMPERATURE, Cell, Sweep, show
from tutelage.report.charts import NAMES, Row, forest
from tutelage.report.document import (
    Block,
    Figure,
    Section,
    Table,
    Text,
    number,
    plural,
    probability,
    spread_of,
    text,
    titled,
    value_of,
)
from tutelage.report.gains import CellStatistics, Mean, figure, gains, mean
from tutelage.report.matrices import Tile, gain_tile, heat_map
from tutelage.report.statistics import LEVEL, MOST_SEEDS, Paired
from tutelage.tasks.figure_kinds import FigureKind

MOST_ROWS = 42  # of all forest plots
_ROWS = 14  # of one plot
_STAR = "Star: the t-test's p is below 5 % after Holm's correction."


def answer(sweep: Sweep, found: Sequence[CellStatistics], best: CellStatistics, weights: str) -> Section:
    """Returns the section; ``best`` is the cell chosen by :func:`~tutelage.report.gains.choose`."""
    blocks: list[Block] = [
        Text(sentence(sweep, best), "lead"),
        side_by_side(best, weights),
        Text(how_sure(best)),
        Text(_choice(found, best, weights)),
    ]
    blocks += _remarks(sweep, found)
    blocks += _heat_maps(sweep, found, best)
    blocks += _forests(found, best)
    blocks += [cells_table(found, best, weights), tests_table(found, weights), _seeds_table(best.cell, weights)]
    return Section("answer", "Answer", blocks)


def side_by_side(best: CellStatistics, weights: str) -> Table:
    """Returns headline and size of teacher, student alone and distilled student of the chosen cell, on test."""
    rows, figures = [], best.figures
    beside = "nll" if "nll" in figures.kinds and figures.headline != "nll" else None
    for role, name in NAMES.items():
        if (found := mean(best.cell, role, weights, "test", figures.headline)) is None:
            continue
        nll = mean(best.cell, role, weights, "test", beside) if beside else None
        gain = best.test_gain.mean if role == "student" else None
        parameters = next(run.metrics[role]["parameters"] for run in best.cell.runs.values() if run.metrics.get(role))
        rows.append(
            [name, found.mean, found.sd, gain, *([nll and nll.mean] if beside else []), parameters, found.count]
        )
    kind = figures.main
    columns = {
        "network": text, f"test {titled(kind)}": value_of(kind), "sd": spread_of(kind), "gain": kind.difference,
        **({"NLL": number} if beside else {}), "parameters": text, "runs": text,
    }  # fmt: skip
    return Table("networks", f"The networks on test: {best.cell.name}", columns, rows)


def _forests(found: Sequence[CellStatistics], best: CellStatistics) -> Iterable[Figure]:
    """Yields forest plots of the gains with intervals, split so that they fit side by side."""
    rows = [Row(one.cell.name, one.test_gain, one.significant, one is best) for one in _ordered(found)[:MOST_ROWS]]
    if not any(row.found.mean is not None for row in rows):
        return
    if len(rows) == 1 and rows[0].found.low is None:  # a single dot would repeat the sentence above it
        return
    count = -(-len(rows) // _ROWS)
    size = -(-len(rows) // count)
    for start in range(0, len(rows), size):
        part, last = rows[start : start + size], min(start + size, len(rows))
        which = f"cells {start + 1} to {last}" if count > 1 else "cell by cell"
        title = f"Gain on test over the student alone, {which}"
        caption = f"Mean over seeds with {LEVEL:.0%} t-interval, best validation {best.figures.main.title} first"
        caption += f", of {len(found)} cells." if last == len(rows) < len(found) else "."
        caption += f" Round and bold: the chosen cell. {_STAR}"
        drawn = forest(f"gains-{start + 1}", title, best.figures.main, part, rows)
        yield Figure(f"gains-{start + 1}", title, drawn, caption)


def _ordered(found: Sequence[CellStatistics]) -> list[CellStatistics]:
    return sorted(found, key=lambda one: -one.figures.main.sign * one.val.mean)


def sentence(sweep: Sweep, best: CellStatistics) -> str:
    """The answer in one sentence."""
    gain, cells, kind = best.test_gain, len(sweep.cells), best.figures.main
    where = f"with {best.cell.name}" if sweep.keys else "in the only setting that was run"
    chosen = f", chosen on validation among {cells} cells," if cells > 1 else ","
    if gain.mean is None:
        return f"No gain can be told: no run {where} has a control of the same seed."
    if gain.n == 1:
        return (
            f"One seed is no evidence: {where}{chosen} it shows {kind.difference(gain.mean)} {kind.of_test} over the "
            f"same student alone{_direction(kind)}."
        )
    if not gain.is_tested:
        return (
            f"No test is possible without spread: {where}{chosen} all {gain.n} seeds show exactly "
            f"{kind.difference(gain.mean)} {kind.of_test} over the same student alone{_direction(kind)}."
        )
    verdict = f"Distillation {'helps' if best.helps else 'harms'}"
    if not best.significant:
        verdict = "These runs do not show that distillation makes a difference"
    size = f"{kind.difference(abs(gain.mean))[1:]} {kind.of_test} {'above' if gain.mean >= 0 else 'below'}"
    low, high = (kind.difference(end or 0) for end in (gain.low, gain.high))
    interval = f"{LEVEL:.0%} interval of the gain {low} to {high}"
    return (
        f"{verdict}: {where}{chosen} the student is {size} the same student alone{_direction(kind)} ({interval}; "
        f"{gain.n} seeds, paired)."
    )


def _direction(kind: FigureKind) -> str:
    return ", where lower is better" if kind.mode == "min" else ""


def how_sure(best: CellStatistics) -> str:
    """Returns the statistical tests and the number of seeds needed, as text."""
    gain = best.test_gain
    if not gain.is_tested:
        return "No interval and no test: they need at least two seeds whose gains differ."
    message = (
        f"Paired t-test {_p(gain.p_t)}, after Holm's correction over the cells {_p(best.holm_t)}; Wilcoxon signed-rank "
        f"{_p(gain.p_wilcoxon)}, corrected {_p(best.holm_wilcoxon)} (of {gain.n} seeds it is never below "
        f"{probability(2.0 ** (1 - gain.n))}). The gain's sd over seeds is {_sd(best)}; "
    )
    if gain.seeds is None:
        return message + f"more than {MOST_SEEDS:,} seeds would be needed to resolve a gain of this size."
    return message + (
        f"{gain.seeds} seeds resolve a gain of this size in four of five experiments (80 % power, 5 % two-sided, "
        "noncentral t; about ((1.96 + 0.84)·sd/gain)²)."
    )


def _sd(best: CellStatistics) -> str:
    kind = best.figures.main
    return f"{spread_of(kind)(best.test_gain.sd or 0)} {kind.unit}".strip()


def _p(value: float | None) -> str:
    written = "–" if value is None else probability(value)
    return f"p {written}" if written.startswith("<") else f"p = {written}"


def _choice(found: Sequence[CellStatistics], best: CellStatistics, weights: str) -> str:
    of = {
        "last": "the last weights", "best": "the epoch of each network that was best on validation",
        "average": "the average of the epochs of each network that were best on validation",
    }[weights]  # fmt: skip
    message = f"All figures are of {of}. "
    if len(found) > 1:
        kind = best.figures.main
        value = f"{value_of(kind)(best.val.mean)}{' %' if kind.percent else ''}"
        message += (
            f"The cell was chosen by its mean validation {kind.title}, {value}, and by nothing else; "
            "test had no part in it. Test figures of the other cells are shown for what they are: the highest of many "
            "would flatter. "
        )
    return message + (
        "Each student is compared with the control of its own seed: same first weights, order of examples and budget. "
        f"The interval is over seeds, for {_teachers(best.cell)}this split and this test set."
    )


def _teachers(cell: Cell) -> str:
    if not cell.has_teacher:
        return ""
    made = {str(run.artifacts.get("teacher", {}).get("folder")) for run in cell.runs.values()}
    return "this one teacher, " if len(made) == 1 else f"these {len(made)} teachers, "


def _remarks(sweep: Sweep, found: Sequence[CellStatistics]) -> Iterable[Text]:
    if unpaired := [f"{one.cell.name}, seed {seed}" for one in found for seed in one.unpaired]:
        message = f"In no gain, for want of a control of their own seed: {plural(len(unpaired), 'run')}"
        yield Text(f"{message}: {'; '.join(unpaired[:6])}.", "note")
    if short := [one.cell.name for one in found if not one.complete]:
        message = f"Could not be chosen, with fewer seeds than others: {plural(len(short), 'cell')}"
        yield Text(f"{message}: {'; '.join(short[:6])}.", "note")
    if sweep.failed or sweep.repeated:
        message = f"Left out: {plural(len(sweep.failed), 'run')} without figures, {len(sweep.repeated)} repeated"
        yield Text(f"{message}; see provenance.", "note")


def _seeds_table(cell: Cell, weights: str) -> Table:
    rows, headline, kind = [], cell.figures.headline, cell.figures.main
    for seed, run in cell.runs.items():
        row: list[float | None] = [seed]
        for split in ("val", "test"):
            pair = [figure(run, role, weights, split, headline) for role in ("control", "student")]
            row += [*pair, gains(cell, weights, split).get(seed)]
        rows.append(row)
    unit, value = ", %" if kind.percent else "", value_of(kind)
    kinds = {f"alone{unit}": value, f"distilled{unit}": value, "gain": kind.difference}
    columns = {"seed": text} | {f"{split} {kind}": form for split in ("val", "test") for kind, form in kinds.items()}
    return Table("seeds", f"The chosen cell, seed by seed: {cell.name}", columns, rows, folded=len(rows) > 12)


def _heat_maps(sweep: Sweep, found: Sequence[CellStatistics], best: CellStatistics) -> list[Block]:
    """Returns heat maps of temperature × alpha, or of the two varied keys; further keys as in the chosen cell."""
    keys = list(sweep.keys)
    if len(keys) < 2 or (set(keys[:2]) != {TEMPERATURE, ALPHA} and len(keys) > 2):
        return []
    x, y = keys[:2]
    fixed = {key: best.cell.values[key] for key in keys[2:]}
    here = [one for one in found if all(one.cell.values[key] == value for key, value in fixed.items())]
    columns, rows = (list(dict.fromkeys(show(one.cell.values[key]) for one in here)) for key in (x, y))
    if max(len(columns), len(rows)) > 30:
        return []
    rows.sort(key=_as_number)
    at = {(show(one.cell.values[y]), show(one.cell.values[x])): one for one in here}
    suffix = " with " + ", ".join(f"{key} = {show(value)}" for key, value in fixed.items()) if fixed else ""
    blocks: list[Block] = []
    for split in ("val", "test"):
        tiles = [
            [_tile(one, split, one is best) if (one := at.get((row, column))) else None for column in columns]
            for row in rows
        ]
        long = {"val": "validation: what the choice was made on", "test": "test"}[split]
        title = f"Gain on {long}{suffix}"
        drawn = heat_map(f"heat-{split}", title, x, y, columns, rows, tiles)
        kind = best.figures.main
        caption = (
            f"{'Percentage points' if kind.percent else kind.title} over the student alone, mean over seeds; losses "
            "are hatched, the chosen cell is framed."
        )
        caption += f" {_STAR}" if split == "test" else ""
        blocks.append(Figure(f"heat-{split}", title, drawn, caption, wide=drawn.startswith("<div")))
    return blocks


def _as_number(value: str) -> tuple[bool, float, str]:
    try:
        return False, float(value), ""
    except ValueError:
        return True, 0.0, value


def _tile(one: CellStatistics, split: str, chosen: bool) -> Tile | None:
    gain = one.val_gain if split == "val" else one.test_gain
    if gain.mean is None:
        return None
    tip = f"{one.cell.name}: {_interval(gain, one.figures.main)}"
    return gain_tile(gain.mean, one.figures.main, tip, split == "test" and one.significant, chosen)


def _interval(gain: Paired, kind: FigureKind) -> str:
    if gain.mean is None:
        return "no pair"
    if gain.low is None or gain.high is None:
        return f"{kind.difference(gain.mean)} ({gain.n} seed{'s' * (gain.n > 1)})"
    mean, low, high = map(kind.difference, (gain.mean, gain.low, gain.high))
    return f"{mean} ({low} to {high}; {gain.n} seeds)"


def cells_table(found: Sequence[CellStatistics], best: CellStatistics, weights: str) -> Table:
    """Returns every cell's headline and gain, the best on validation first."""
    rows, kind = [], best.figures.main
    for one in _ordered(found):
        test, gain = _mean(one.cell, one.figures.headline, weights), one.test_gain
        choice = "chosen" if one is best else ""
        tested = [test and test.mean, test and test.sd, gain.mean, gain.low, gain.high, one.holm_t]
        rows.append([one.cell.name, choice, len(one.cell.runs), one.val.mean, one.val.sd, one.val_gain.mean, *tested])
    unit, value, sd, gained = ", %" if kind.percent else "", value_of(kind), spread_of(kind), kind.difference
    columns = {
        "cell": text, "choice": text, "seeds": text, f"val{unit}": value, "sd": sd, "val gain": gained,
        f"test{unit}": value, "test sd": sd, "test gain": gained, "from": gained, "to": gained,
        "p (t, Holm)": probability,
    }  # fmt: skip
    points_of = " in points" if kind.percent else ""
    caption = f"Every cell: {kind.title} and gain over the student alone{points_of}, with its {LEVEL:.0%} interval"
    return Table("cells", caption, columns, rows, shown=60)


def tests_table(found: Sequence[CellStatistics], weights: str) -> Table:
    """Returns every cell's tests, and its other figures on test."""
    rows, figures = [], found[0].figures
    others = {name: kind for name, kind in figures.kinds.items() if name not in (figures.headline, "errors")}
    for one in _ordered(found):
        gain = one.test_gain
        means = [_mean(one.cell, name, weights) for name in others]
        tests = [gain.sd, gain.p_t, one.holm_t, gain.p_wilcoxon, one.holm_wilcoxon, gain.seeds]
        rows.append([one.cell.name, gain.n, *tests, *(one_mean and one_mean.mean for one_mean in means)])
    columns = {
        "cell": text, "pairs": text, "gain's sd": spread_of(figures.main), "t-test p": probability, "Holm": probability,
        "Wilcoxon p": probability, "Wilcoxon, Holm": probability, "seeds needed": text,
        **{titled(kind): value_of(kind) for kind in others.values()},
    }  # fmt: skip
    return Table(
        "tests", "Every cell: tests of its gain, and its students' other figures on test", columns, rows, shown=60
    )


def _mean(cell: Cell, name: str, weights: str) -> Mean | None:
    return mean(cell, "student", weights, "test", name)
