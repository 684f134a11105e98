"""Groups runs into cells: combinations of the varied values, except the seed."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from tutelage.report.runs import Run
from tutelage.runtime.identity import is_cosmetic
from tutelage.tasks.figure_kinds import CLASSIFICATION, TaskFigures

_OF_HYDRA = {"hydra", "launcher", "sweeper"}  # settings of a multirun, not of its jobs
_LARGEST_GRID = 1000
_FEW_KEYS = 2
_SHORT = {"loss.temperature": "T", "loss.alpha": "α"}
TEMPERATURE, ALPHA = "loss.temperature", "loss.alpha"


@dataclass(frozen=True)
class Cell:
    """One combination of the varied values.

    Attributes:
        values: key → value.
        runs: seed → run, only those with metrics.
        named: the keys in its name; by default all.
    """

    values: Mapping[str, Any]
    runs: Mapping[int, Run]
    named: Sequence[str] | None = None

    @property
    def figures(self) -> TaskFigures:
        """Returns the figures of the task of its runs."""
        return next((run.figures for run in self.runs.values()), CLASSIFICATION)

    @property
    def has_teacher(self) -> bool:
        """Checks whether a run has figures of a teacher; one with peers alone has none."""
        return any("teacher" in run.metrics for run in self.runs.values())

    @property
    def name(self) -> str:
        """Returns a name such as ``T = 4, α = 0.9``."""
        keys = self.values if self.named is None else self.named
        settings = [f"{_SHORT.get(key, key)} = {show(self.values[key])}" for key in keys]
        return ", ".join(settings) or ("the defaults" if self.values else "the only setting")

    def setting(self, key: str) -> Any:
        """Returns the value at a dotted key of its runs' config; None if there is none."""
        return select(next(iter(self.runs.values())).config, key)


@dataclass(frozen=True)
class Sweep:
    """Runs grouped into cells.

    Attributes:
        cells: those with at least one run with metrics.
        keys: the varied keys.
        failed: distillations without metrics.
        missing: (cell's name, seed) without metrics although other cells have that seed.
        never: names of combinations of these values without any run.
        repeated: runs left out because a later one has the same cell and seed.
        others: evaluations.
    """

    cells: Sequence[Cell]
    keys: Sequence[str]
    failed: Sequence[Run] = ()
    missing: Sequence[tuple[str, int]] = ()
    never: Sequence[str] = ()
    repeated: Sequence[Run] = ()
    others: Sequence[Run] = ()

    @property
    def figures(self) -> TaskFigures:
        """Returns the figures of the task, which all runs have in common (:func:`by_data`)."""
        return next((run.figures for run in self.runs), CLASSIFICATION)

    @property
    def runs(self) -> list[Run]:
        """Returns every run with metrics."""
        return [run for cell in self.cells for run in cell.runs.values()]


def sort_runs(runs: Iterable[Run]) -> Sweep:
    """Groups runs into cells and lists what is missing."""
    everyone = list(runs)
    trained = [run for run in everyone if run.verb == "distill"]
    keys = varied(trained)
    groups: dict[str, list[Run]] = {}
    values = {run.folder: {key: value_of(run, key) for key in keys} for run in trained}
    for run in trained:
        groups.setdefault(json.dumps(values[run.folder], sort_keys=True), []).append(run)
    cells, failed, repeated, missing = [], [], [], []
    seeds = sorted({run.seed for run in trained if run.seed is not None})
    for group in groups.values():
        kept: dict[int, Run] = {}
        for run in sorted(group, key=lambda run: run.ended):
            if run.problem or run.seed is None:
                failed.append(run)
                continue
            if run.seed in kept:
                repeated.append(kept[run.seed])
            kept[run.seed] = run
        cell = Cell(values[group[0].folder], dict(sorted(kept.items())), _named(group, keys))
        missing += [(cell.name, seed) for seed in seeds if seed not in kept]
        if kept:
            cells.append(cell)
    cells.sort(key=lambda cell: [_rank(value) for value in cell.values.values()])
    others = [run for run in everyone if run.verb == "evaluate" and not run.problem]
    return Sweep(cells, keys, failed, missing, _never([*values.values()], keys), repeated, others)


def by_data(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Groups runs by the data that they are tested on, and by the figure that they are compared by.

    A run whose config does not name its data (``evaluate`` takes them from the checkpoint) joins the first group.
    """
    groups: dict[str, list[Run]] = {}
    without: list[Run] = []
    for run in runs:
        data = run.config.get("data")
        if not (isinstance(data, Mapping) and data.get("_target_")):
            without.append(run)
            continue
        parts = [data["_target_"], _test_set(data), _compared_by(run)]
        groups.setdefault(json.dumps(parts, sort_keys=True, default=str), []).append(run)
    if without:
        groups.setdefault(next(iter(groups), ""), []).extend(without)
    return groups


def _test_set(data: Mapping[str, Any]) -> list[Any]:
    """Returns the values of a config's keys that say which examples and labels are the test set."""
    place = data.get("dataset") or data.get("root")  # of a known data set another machine's folder is as good
    given = data.get("test") or data.get("test_root")
    drawn = None if given else [data.get("train"), data.get("test_size")]
    return [place, *(data.get(key) for key in ("path", "images", "task", "label")), given or drawn]


def _compared_by(run: Run) -> list[str]:
    found = run.metrics.get("task")
    task = found if isinstance(found, Mapping) else {}
    return [str(task.get("name", CLASSIFICATION.task)), str(task.get("headline", CLASSIFICATION.headline))]


def _named(group: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """Returns the keys that distinguish a cell from others: of many keys those that its runs override."""
    return [key for key in keys if len(keys) <= _FEW_KEYS or any(key in run.overrides for run in group)]


def varied(runs: Sequence[Run]) -> list[str]:
    """Returns the overridden keys whose values differ between runs; temperature and alpha first."""
    keys = dict.fromkeys(key for run in runs for key in run.overrides)
    chosen = [key for key in keys if key != "seed" and not is_cosmetic(key) and key.split(".")[0] not in _OF_HYDRA]
    differ = [key for key in chosen if len({json.dumps(value_of(run, key), default=str) for run in runs}) > 1]
    return sorted(differ, key=lambda key: {TEMPERATURE: 0, ALPHA: 1}.get(key, 2))


def value_of(run: Run, key: str) -> Any:
    """Returns the value of ``key`` in a run, overridden or not: a group's choice, or the config's value.

    An override that is an interpolation (``${seed}``) is returned as written, not resolved.
    """
    text = run.overrides.get(key)
    if text is not None and "${" in text:
        return text
    if key in run.choices:
        return run.choices[key]
    found = select(run.config, key)
    return parsed(text) if found is None and text is not None else found


def parsed(text: str) -> Any:
    """Parses an override's value as YAML if possible, for runs that failed before they had a config."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def select(config: Mapping[str, Any], key: str) -> Any:
    """Returns the value at a dotted key."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return None
        node = node[part]
    return node


def show(value: Any) -> str:
    """Returns a short text for a value."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | dict):
        value = json.dumps(value, separators=(",", ":")).replace('"', "")
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _rank(value: Any) -> tuple[int, float, str]:
    """Returns a sort key: numbers by size, then everything else by name."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def _never(found: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """Returns the names of untried combinations of a full grid of the values found."""
    if len(keys) < 2:
        return []
    tried = {json.dumps(values, sort_keys=True) for values in found}
    levels = [{json.dumps(values[key]): values[key] for values in found}.values() for key in keys]
    if math.prod(map(len, levels)) > _LARGEST_GRID:  # not meant as a grid
        return []
    grid = (dict(zip(keys, combination, strict=True)) for combination in itertools.product(*levels))
    untried = [values for values in grid if json.dumps(values, sort_keys=True) not in tried]
    if len(untried) > len(tried):  # a search, or several sweeps
        return []
    return [Cell(values, {}).name for values in untried if None not in values.values()]
