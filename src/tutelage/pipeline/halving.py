"""Successive halving: which trials a search has, how long each rung trains them, and which go on."""

import csv
import io
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.markup import escape
from rich.table import Table

from tutelage.config.resolvers import folder_name
from tutelage.errors import TutelageError
from tutelage.seeding import derive_seed, uniform

LENGTH = "stages.student.trainer.max_epochs"


def _logit(x: float) -> float:
    return math.log(x / (1 - x))


# Scale → the function in whose values numbers are drawn uniformly, and its inverse.
_SCALES: Mapping[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "linear": (float, float),
    "log": (math.log, math.exp),
    "odds": (_logit, lambda x: 1 / (1 + math.exp(-x))),
}


@dataclass(frozen=True)
class Range:
    """The values of one key that a search draws from.

    Attributes:
        key: as an override names it.
        low: the lower end.
        high: the upper end.
        scale: ``linear``, ``log``, or ``odds``: the logarithm of x / (1 − x), for weights that share 1.
        whole: whether its values are integers.
    """

    key: str
    low: float
    high: float
    scale: str = "linear"
    whole: bool = False

    def at(self, share: float) -> str:
        """Returns the value at ``share`` of the way from the lower end, rounded to four digits or to an integer."""
        there, back = _SCALES[self.scale]
        low, high = there(self.low), there(self.high)
        value = back(low + share * (high - low))
        return str(min(round(value), int(self.high))) if self.whole else f"{value:.4g}"


@dataclass
class Arm:
    """One of the things that are compared: it gets as many trials as any other.

    Attributes:
        name: what distinguishes it.
        common: overrides that it shares with others.
        own: those that make it what it is.
        ranges: what is searched for it; if nothing, it needs no trial.
        epochs: of its full length.
        trials: what each sets, key → value; the first one is in the middle of every range.
        alive: indices of the trials that go on, the best first.
        results: (rung, trial) → the figure on validation; −inf if it failed.
    """

    name: str
    common: list[str]
    own: list[str]
    ranges: list[Range]
    epochs: int
    trials: list[dict[str, str]]
    alive: list[int] = field(default_factory=list)
    results: dict[tuple[int, int], float] = field(default_factory=dict)

    def job(self, trial: int, place: str, seed: int | None = None) -> list[str]:
        """Returns the overrides of a trial's job, whose folder is below ``place`` and named by what varies.

        Args:
            trial: its index.
            place: such as ``rung0``.
            seed: None for that of the search.
        """
        sets = [f"{key}={value}" for key, value in self.trials[trial].items()]
        if seed is not None:
            sets.append(f"seed={seed}")
        varied = [*_without(self.own, sets), *sets]
        name = folder_name(",".join(varied))
        return [*_without(self.common, varied), *varied, f"hydra.sweep.subdir='{place}/{name}'"]

    def promote(self, rung: int, keep: int) -> None:
        """Keeps the best trials of a rung; of equals those with the smaller index, and none that failed."""
        found = [trial for trial in self.alive if self.results[rung, trial] > -math.inf]
        self.alive = sorted(found, key=lambda trial: (-self.results[rung, trial], trial))[:keep]


def _without(words: Iterable[str], others: Iterable[str]) -> list[str]:
    """Returns the overrides whose keys none of ``others`` has."""
    keys = {word.partition("=")[0].lstrip("+") for word in others}
    return [word for word in words if word.partition("=")[0].lstrip("+") not in keys]


def drawn(ranges: Iterable[Range], count: int, seed: int) -> list[dict[str, str]]:
    """Returns ``count`` trials, a pure function of the seed, the key and the trial's index.

    So more trials begin with the same ones, and all arms try the same factors of their own published values. The first
    trial is the middle of each range, which is the published value where a range lies around one.
    """
    shares = {}
    for one in ranges:
        numbers = uniform(derive_seed(seed, "halving", one.key), torch.arange(count), 1)[:, 0].tolist()
        shares[one] = [0.5, *numbers[1:]]
    return [{one.key: one.at(row[trial]) for one, row in shares.items()} for trial in range(count)]


def lengths(epochs: int, rungs: int, eta: float) -> list[int]:
    """Returns the epochs of each rung, the last being the full length; rungs of one length are one rung."""
    return sorted({max(1, round(epochs / eta**back)) for back in range(rungs)})


def split(words: Sequence[str]) -> tuple[list[str], list[list[str]], list[Range]]:
    """Splits the overrides of a search.

    Args:
        words: as on the command line.

    Returns:
        The overrides with one value, the alternatives of each with several, and the ranges.

    Raises:
        TutelageError: the ends of an interval are in the wrong order, or not above 0 on a logarithmic scale; or the
            seed or the length of the training is searched.
    """
    fixed: list[str] = []
    several: list[list[str]] = []
    ranges: list[Range] = []
    for word, one in zip(words, OverridesParser.create().parse_overrides([*words]), strict=True):
        if one.is_sweep_override() and one.key_or_group == "seed":
            raise TutelageError(
                "seed: a search has one seed; hydra.sweeper.fresh_seeds trains what it chose with others"
            )
        if one.is_interval_sweep():
            if one.key_or_group in (LENGTH, "trainer.max_epochs"):
                raise TutelageError(f"{one.key_or_group}: rungs set how long a trial trains; it can't be searched")
            ranges.append(_interval(one, word))
        elif one.is_sweep_override():
            several.append([f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()])
        else:
            fixed.append(word)
    return fixed, several, ranges


def _interval(one: Override, word: str) -> Range:
    value = one.value()
    assert isinstance(value, IntervalSweep)
    low, high = value.start, value.end
    if low is None or high is None or not low < high or ("log" in value.tags and low <= 0):
        raise TutelageError(f"{word}: expected a lower and an upper end, above 0 for tag(log, interval(low, high))")
    whole = isinstance(low, int) and isinstance(high, int)
    return Range(str(one.get_key_element()), low, high, "log" if "log" in value.tags else "linear", whole)


def around(config: DictConfig, factors: Mapping[str, float], scale: str) -> list[Range]:
    """Returns a range around each key's value in an arm's config; keys that it has not, or that are off, have none.

    Args:
        config: of the arm.
        factors: key → the factor between the value and either end.
        scale: ``log``: from value / factor to value · factor; ``odds``: the same of value / (1 − value).

    Raises:
        TutelageError: a factor is not above 1, or a value is no number.
    """
    there, back = _SCALES[scale]
    found = []
    for key, factor in factors.items():
        if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 1:
            raise TutelageError(f"hydra.sweeper: expected a factor above 1 for {key}, found {factor!r}")
        value = OmegaConf.select(config, key)
        if value is None or value == 0 or (scale == "odds" and value == 1):
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or value < 0
            or (scale == "odds" and value > 1)
        ):
            raise TutelageError(f"hydra.sweeper: {key}={value!r} is no number that a range can lie around")
        middle, half = there(value), math.log(factor)
        found.append(Range(key, back(middle - half), back(middle + half), scale))
    return found


def alternatives(
    fixed: Sequence[str], several: Sequence[Sequence[str]], beside: Mapping[str, Sequence[str]]
) -> list[tuple[str, list[str], list[str]]]:
    """Returns the name, common and own overrides of each arm: all combinations, then those beside them.

    Args:
        fixed: overrides of all; those beside may have others for the same keys.
        several: of each varied key its alternatives.
        beside: name → overrides instead of the varied keys.
    """
    found = [(", ".join(chosen) or "all", [*fixed], [*chosen]) for chosen in itertools.product(*several)]
    return [*found, *((name, _without(fixed, words), [*words]) for name, words in beside.items())]


def table(arms: Iterable[Arm], rungs: int) -> Table:
    """Returns a table of the search: of each arm the trials and the best figure on validation of each rung."""
    made = Table(box=box.SIMPLE_HEAD)
    for head in ("search", *(f"rung {rung}: best of" for rung in range(rungs)), "chosen"):
        made.add_column(head, overflow="fold")
    for arm in arms:
        cells = []
        for rung in range(rungs):
            values = [value for (there, _), value in arm.results.items() if there == rung]
            cells.append(f"{max(values):.4f} of {len(values)}" if values else "")
        chosen = arm.trials[arm.alive[0]] if arm.alive else None
        text = "every trial failed" if chosen is None else ", ".join(f"{key}={value}" for key, value in chosen.items())
        made.add_row(escape(arm.name), *cells, escape(text or "nothing to search"))
    return made


def as_csv(arms: Iterable[Arm], rungs: int, eta: float) -> str:
    """Returns one line for each trial in each rung: what it sets, how long it trained, its figure on validation."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["arm", "trial", "sets", "rung", "epochs", "validation"])
    for arm in arms:
        epochs = lengths(arm.epochs, rungs, eta)
        for (rung, trial), value in sorted(arm.results.items()):
            sets = " ".join(f"{key}={one}" for key, one in arm.trials[trial].items())
            lines.writerow([arm.name, trial, sets, rung, epochs[rung], "failed" if value == -math.inf else value])
    return text.getvalue()
