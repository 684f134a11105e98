"""Tutelage from Python: loads trained networks, runs the protocol, compares settings over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from tutelage.config import resolvers
from tutelage.config.composed import as_word, composed
from tutelage.config.saved import network_of
from tutelage.config.trust import own_packages
from tutelage.errors import TutelageError
from tutelage.evaluation.results import WEIGHTS
from tutelage.pipeline.distill import run_job
from tutelage.pipeline.plan import Plan, plan_jobs
from tutelage.pipeline.tensorboard_runs import SweepRuns, cell_name
from tutelage.report.cells import sort_runs
from tutelage.report.gains import CellStatistics, mean, standings
from tutelage.report.runs import Run, read_runs
from tutelage.report.write import write_report
from tutelage.tasks.figure_kinds import FigureKind, TaskFigures

if TYPE_CHECKING:
    import pandas as pd


class Preprocess:
    """Turns pixels in [0, 1] into a network's input: ``(x − mean) / std`` for each channel.

    Args:
        mean: one number a channel.
        std: the same.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = (torch.tensor([*x], dtype=torch.float32)[:, None, None] for x in (mean, std))

    def __repr__(self) -> str:
        mean, std = ([round(value, 4) for value in x.flatten().tolist()] for x in (self.mean, self.std))
        return f"Preprocess(mean={mean}, std={std})"

    def __call__(self, images: Tensor) -> Tensor:
        """Returns normalised images, [B, C, H, W] or [C, H, W] like ``images``, on their device."""
        return (images - self.mean.to(images.device)) / self.std.to(images.device)


def load(path: str | Path, trust: Iterable[str] = ()) -> nn.Module:
    """Loads a network that Tutelage trained, in eval mode, without running code that the file names.

    Args:
        path: a file that ``tutelage distill`` wrote, such as ``…/checkpoints/best.safetensors``.
        trust: packages of your own whose networks the file may name.

    Returns:
        The network: [B, C, H, W] float32 → logits [B, classes]. It has three attributes more: ``classes`` (names in the
        order of the logits), ``preprocess`` (normalises pixels in [0, 1] as in training; None where the file does not
        say how) and ``about`` (what the file's header says: stage, seed, config of network and data).

    Raises:
        TutelageError: the file is missing, damaged or none of Tutelage's, or names code that is not trusted.

    Examples:
        >>> import torch, tutelage as tt
        >>> result = tt.distill("data=digits", "trainer.max_epochs=1", seed=3)
        >>> net = tt.load(result.folder / "checkpoints" / "best.safetensors")
        >>> net(net.preprocess(torch.rand(2, 1, 8, 8))).shape
        torch.Size([2, 10])
        >>> net.classes[:3]
        ['0', '1', '2']
    """
    if not isinstance(path, str | PathLike):
        raise TutelageError(f"load takes the path of a file of weights; found {path!r}")
    net, header = network_of(path, trust)
    data: Any = header.get("data") or {}
    known = {"about": header, "classes": header.get("class_names") or data.get("class_names"), "preprocess": None}
    if known["classes"] is None and isinstance(data.get("num_classes"), int):
        known["classes"] = [str(number) for number in range(data["num_classes"])]
    if data.get("mean") and data.get("std"):
        known["preprocess"] = Preprocess(data["mean"], data["std"])
    for name, value in known.items():
        object.__setattr__(net, name, value)  # none of them is a child: a network may run its children in turn
    return net.eval()


@dataclass(frozen=True)
class Result:
    """A finished run of the protocol.

    Attributes:
        folder: the run's folder.
        metrics: the content of its ``metrics.json``: for ``teacher``, ``control`` and ``student``, of the ``last`` and
            the ``best`` weights, figures on ``val`` and ``test``.
        trust: packages of your own that its config names, whose networks are loaded.

    Examples:
        >>> import tutelage as tt
        >>> result = tt.distill("data=digits", "trainer.max_epochs=1", seed=3)
        >>> 0 < result.metrics["student"]["best"]["val"]["accuracy"] < 1
        True
        >>> -1 < result.gain < 1
        True
        >>> result.report().name
        'index.html'
    """

    folder: Path
    metrics: Mapping[str, Any]
    trust: tuple[str, ...] = ()

    @property
    def student(self) -> nn.Module:
        """The student with its last weights (:func:`load`)."""
        return load(self.folder / "checkpoints" / "last.safetensors", self.trust)

    @property
    def gain(self) -> float | None:
        """Headline of the student on test minus that of the control, last weights; None without a control.

        The headline is the task's, such as accuracy; where lower is better, as of RMSE, a gain is negative.
        """
        if not (control := self.metrics.get("control")):
            return None
        headline = TaskFigures.of(self.metrics).headline
        return float(self.metrics["student"]["last"]["test"][headline] - control["last"]["test"][headline])

    def report(self, output: str | Path | None = None) -> Path:
        """Writes the run's report and returns its page; by default into ``<folder>/report``."""
        return write_report(read_runs([self.folder]), Path(output or self.folder / "report"), "last")


@dataclass(frozen=True)
class Comparison:
    """Settings compared over seeds, each distilled student paired with the control of its seed.

    Attributes:
        folder: the runs are below it.
        runs: as the report reads them.
        weights: ``last`` or ``best``: of which weights figures are.

    Examples:
        >>> import tutelage as tt
        >>> settings, short = ["loss=soft_target", "loss=dkd"], "trainer.max_epochs=1"
        >>> results = tt.compare(settings, short, seeds=range(2), folder="outputs/compare/two_losses")
        >>> [(row["loss"], row["seeds"]) for row in results.rows()]
        [('dkd', 2), ('soft_target', 2)]
    """

    folder: Path
    runs: Sequence[Run]
    weights: str = "last"

    def rows(self) -> list[dict[str, Any]]:
        """Returns one dictionary for each setting; accuracies and their gains are fractions.

        ``student`` and ``validation`` are the task's headline on test and validation, such as accuracy or RMSE.
        ``gain`` is distilled − alone on test, ``gain_low`` and ``gain_high`` its 95 % interval over seeds, ``p`` the
        paired t-test's, corrected over the settings by Holm's method; None with fewer than two seeds.
        """
        return [_row(one, self.weights) for one in self.statistics()]

    def statistics(self) -> list[CellStatistics]:
        """Returns the report's statistics of each setting."""
        return standings(sort_runs(self.runs), self.weights)

    def frame(self) -> "pd.DataFrame":
        """Returns :meth:`rows` as a pandas DataFrame.

        Raises:
            TutelageError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise TutelageError("frame() needs pandas: pip install pandas; rows() gives the same as a list") from error
        return pd.DataFrame(self.rows())

    def report(self, output: str | Path | None = None) -> Path:
        """Writes the report of all runs and returns its page; by default into ``<folder>/report``."""
        return write_report(self.runs, Path(output or self.folder / "report"), self.weights)

    def __str__(self) -> str:
        lines = [f"{'setting':<40} {'seeds':>5} {'student':>8} {'gain':>7}  95 % interval"]
        found = [(one.figures.main, _row(one, self.weights)) for one in self.statistics()]
        for kind, row in found:
            student = "–" if row["student"] is None else kind.text(row["student"])
            gain, low, high = (
                "–" if row[name] is None else kind.difference(row[name]) for name in ("gain", "gain_low", "gain_high")
            )
            lines.append(f"{row['setting']:<40} {row['seeds']:>5} {student:>8} {gain:>7}  {low} to {high}")
        return "\n".join([*lines, *dict.fromkeys(_legend(kind) for kind, _ in found)])


def _legend(kind: FigureKind) -> str:
    better = "" if kind.sign > 0 else ", lower is better"
    unit = f", in {kind.unit}" if kind.unit else ""
    return f"test {kind.title}{' in %' if kind.percent else ''}{better}; gain: distilled − alone{unit}"


def _row(one: CellStatistics, weights: str) -> dict[str, Any]:
    gain, accuracy = one.test_gain, mean(one.cell, "student", weights, "test", one.figures.headline)
    return {
        "setting": one.cell.name, **one.cell.values, "seeds": len(one.cell.runs),
        "student": accuracy.mean if accuracy else None, "validation": one.val.mean,
        "gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high, "p": one.holm_t,
    }  # fmt: skip


def distill(*overrides: str, folder: str | Path | None = None, **values: Any) -> Result:
    """Runs the whole protocol: teacher, student alone (the control), distilled student.

    Does what ``tutelage distill`` does with the same overrides, in this process. Teachers and controls that were made
    before are found again; a run that was stopped goes on where it was, given its ``folder``.

    Args:
        *overrides: as on the command line: ``"loss=dkd"``, ``"data=digits"``, ``"trainer.max_epochs=5"``.
        folder: of the run; by default a new one below ``outputs/distill``.
        **values: keys without dots: ``seed=3`` is ``"seed=3"``.

    Raises:
        TutelageError: a wrong override or value, in a sentence; or what the run itself finds wrong.

    Examples:
        >>> import tutelage as tt
        >>> result = tt.distill("loss=dkd", "data=digits", "trainer.max_epochs=1", seed=3)
        >>> 0 < result.metrics["student"]["last"]["test"]["accuracy"] < 1
        True
    """
    words = [*overrides, *(f"{key}={as_word(value)}" for key, value in values.items())]
    with composed(words, folder) as (cfg, place):
        own = own_packages(OmegaConf.to_container(cfg.student))
        return Result(place, run_job(cfg, words, place), own)


def plan(*overrides: str, multirun: bool = False, **values: Any) -> Plan:
    """Says what :func:`distill` would train, reuse and write, without training; makes no folder.

    Args:
        *overrides: as on the command line; with ``multirun``, ``"loss.temperature=1,4,10"`` gives three jobs.
        multirun: whether values with commas are those of several jobs.
        **values: as for :func:`distill`.

    Returns:
        The jobs and their tasks: ``action``, ``digest``, ``steps``, ``macs``, ``bytes`` of each; as text, a table.

    Raises:
        TutelageError: as of :func:`distill`, before its first step.

    Examples:
        >>> import tutelage as tt
        >>> [task.name for task in tt.plan("data=digits").tasks if task.action == "train"]
        ['teacher', 'control', 'student']
    """
    words = [*overrides, *(f"{key}={as_word(value)}" for key, value in values.items())]
    return plan_jobs(words, multirun)


def compare(
    settings: Sequence[str | Sequence[str]],
    *overrides: str,
    seeds: Iterable[int] = range(3),
    folder: str | Path | None = None,
    weights: str = "last",
    **values: Any,
) -> Comparison:
    """Runs the protocol for each of several settings and each of several seeds.

    Args:
        settings: one override each, or a sequence of them:
            ``["loss=soft_target", ("loss=dkd", "loss.temperature=2")]``.
        *overrides: what all of them share.
        seeds: of control and student; the same for every setting, which pairs them.
        folder: the runs go below it, and are found there again; by default a new one below ``outputs/compare``.
        weights: ``last`` or ``best``.
        **values: as for :func:`distill`.

    Raises:
        TutelageError: as of :func:`distill`; there is no setting or no seed; or ``weights`` is neither of the two.

    Examples:
        >>> import tutelage as tt
        >>> settings, short = ["loss=soft_target", "loss=dkd"], "trainer.max_epochs=1"
        >>> results = tt.compare(settings, short, seeds=range(2), folder="outputs/compare/two_losses")
        >>> print(results)
        setting                                  seeds  student    gain  95 % interval
        ...
        test accuracy in %; gain: distilled − alone, in points
    """
    if isinstance(settings, str) or not isinstance(seeds, Iterable):
        raise TutelageError('compare takes a list of settings and of seeds: compare(["loss=dkd"], seeds=range(2))')
    named, numbers = [[one] if isinstance(one, str) else list(one) for one in settings], list(seeds)
    if weights not in WEIGHTS:
        raise TutelageError(f"weights must be last or best; found {weights!r}")
    if not named or not numbers:
        raise TutelageError("compare needs at least one setting and one seed")
    root = Path(folder) if folder is not None else _new_folder("outputs/compare")
    for words in named:
        for seed in numbers:
            place = root / resolvers.folder_name(",".join(words)) / f"seed={seed}"
            distill(*overrides, *words, folder=place, seed=seed, **values)
            SweepRuns(root.absolute(), place.absolute(), cell_name([*words, f"seed={seed}"])).finish()
    return Comparison(root, read_runs([root]), weights)


def _new_folder(parent: str) -> Path:
    return Path(parent) / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
