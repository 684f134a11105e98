"""``sweeper=halving``: many short trainings, of which the best on validation are trained longer."""

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:  # Hydra imports every plugin at every start
    from tutelage.pipeline.halving import Arm

log = logging.getLogger(__name__)


@dataclass
class HalvingSweeperConf:
    """The options of :class:`HalvingSweeper`."""

    _target_: str = "hydra_plugins.tutelage_halving.HalvingSweeper"
    n_trials: int = 9
    rungs: int = 3
    eta: float = 3.0
    draw_seed: int = 0
    fresh_seeds: int = 0
    around: Any = None
    around_odds: Any = None
    beside: Any = None
    params: Any = None


ConfigStore.instance().store(
    group="hydra/sweeper", name="halving", node=HalvingSweeperConf, provider="tutelage", package="hydra.sweeper"
)


class HalvingSweeper(Sweeper):
    """Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943) over ranges, for each combination of choices.

    Every rung trains its trials from the start, in folders of their own: with a schedule or a warm-up that follows the
    length the first epochs of a longer training are not those of a shorter one, and a stack has no state of one job. So
    a rung is one launch, with any launcher, and the same command finds its complete jobs again.

    Args:
        n_trials: of each combination in the first rung.
        rungs: how many; the last has the full length, the one before 1 / eta of it …
        eta: one in so many trials goes on to the next rung, that many times longer.
        draw_seed: of the values that are drawn.
        fresh_seeds: how many further seeds train what was chosen, at full length.
        around: key → factor f: also searched, logarithmically, from a combination's own value / f to value · f; not
            where an interval is given.
        around_odds: the same of value / (1 − value).
        beside: name → overrides: combinations in addition to those of the command line.
        params: overrides before those of the command line, as of Hydra's other sweepers.
    """

    def __init__(
        self,
        n_trials: int,
        rungs: int,
        eta: float,
        draw_seed: int,
        fresh_seeds: int,
        around: DictConfig | None,
        around_odds: DictConfig | None,
        beside: DictConfig | None,
        params: DictConfig | None,
    ):
        from tutelage.errors import TutelageError

        for name, value, least in (("n_trials", n_trials, 1), ("rungs", rungs, 1), ("fresh_seeds", fresh_seeds, 0)):
            if value < least:
                raise TutelageError(f"hydra.sweeper.{name}: expected an integer from {least} on, found {value}")
        if not 1 < eta < math.inf:
            raise TutelageError(f"hydra.sweeper.eta: expected a number above 1, found {eta}")
        self.n_trials, self.rungs, self.eta, self.draw_seed = n_trials, rungs, eta, draw_seed
        self.fresh_seeds = fresh_seeds
        self.around, self.around_odds = _plain(around), _plain(around_odds)
        self.beside, self.params = _plain(beside), _plain(params)
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None
        self.launched = 0
        self.failed: JobReturn | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepares the sweep."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Runs the rungs, then the fresh seeds; raises the first failed job's error at the end."""
        assert self.config is not None
        folder = Path(str(self.config.hydra.sweep.dir))
        OmegaConf.save(self.config, folder / "multirun.yaml")
        arms = self._arms(arguments)
        for rung in range(self.rungs):
            self._rung([arm for arm in arms if arm.ranges], rung)
            self._write(arms, folder)
        self._show(arms)
        self._fresh([arm for arm in arms if arm.alive])
        if self.failed is not None:
            _ = self.failed.return_value  # raises its error

    def _arms(self, arguments: Sequence[str]) -> "list[Arm]":
        from tutelage.errors import TutelageError
        from tutelage.pipeline import halving

        assert self.config is not None
        assert self.hydra_context is not None
        said = {word.partition("=")[0] for word in arguments}
        words = [*(f"{key}={value}" for key, value in self.params.items() if key not in said), *arguments]
        fixed, several, ranges = halving.split(words)
        arms, lacking = [], {*self.around, *self.around_odds}
        for name, common, own in halving.alternatives(fixed, several, self.beside):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, [*common, *own])
            if OmegaConf.select(config, "stages.student.phases"):
                raise TutelageError("sweeper=halving: rungs shorten a student's one training; it has phases")
            searched = [*ranges] if name not in self.beside else []
            near = [*halving.around(config, self.around, "log"), *halving.around(config, self.around_odds, "odds")]
            lacking = {key for key in lacking if OmegaConf.select(config, key) is None}
            given = {one.key for one in searched}
            searched += [one for one in near if one.key not in given]
            trials = halving.drawn(searched, self.n_trials if searched else 1, self.draw_seed)
            epochs = int(OmegaConf.select(config, halving.LENGTH))
            arms.append(halving.Arm(name, common, own, searched, epochs, trials, list(range(len(trials)))))
        if lacking:
            log.warning(
                "sweeper=halving: no combination has %s, which is therefore not searched", ", ".join(sorted(lacking))
            )
        if not any(arm.ranges for arm in arms):
            raise TutelageError(
                "sweeper=halving: nothing to search; give a range, such as loss.temperature=interval(1,20)"
            )
        return arms

    def _rung(self, arms: "list[Arm]", rung: int) -> None:
        """Trains what is alive in a rung, all arms in one launch, and promotes."""
        from tutelage.pipeline import halving

        places, jobs = [], []
        for arm in arms:
            epochs = halving.lengths(arm.epochs, self.rungs, self.eta)
            if rung >= len(epochs):
                continue
            for trial in arm.alive:
                shorter = [] if epochs[rung] == arm.epochs else [f"{halving.LENGTH}={epochs[rung]}"]
                places.append((arm, trial))
                jobs.append([*arm.job(trial, f"rung{rung}"), *shorter])
        for (arm, trial), value in zip(places, self._launch(jobs), strict=True):
            arm.results[rung, trial] = value
        for arm in arms:
            if any(there == rung for there, _ in arm.results):
                last = rung + 1 >= len(halving.lengths(arm.epochs, self.rungs, self.eta))
                arm.promote(rung, 1 if last else math.ceil(self.n_trials / self.eta ** (rung + 1)))

    def _fresh(self, arms: "list[Arm]") -> None:
        """Trains what was chosen with further seeds at full length."""
        assert self.config is not None
        seeds = range(self.config.seed + 1, self.config.seed + 1 + self.fresh_seeds)
        self._launch([arm.job(arm.alive[0], "fresh", seed) for arm in arms for seed in seeds])

    def _write(self, arms: "list[Arm]", folder: Path) -> None:
        from tutelage.pipeline import halving
        from tutelage.runtime.files import write_atomically

        write_atomically(folder / "rungs.csv", halving.as_csv(arms, self.rungs, self.eta).encode())

    def _show(self, arms: "list[Arm]") -> None:
        from tutelage.pipeline import halving
        from tutelage.runtime.status import terminal

        terminal(sys.stdout).print(halving.table(arms, self.rungs))

    def _launch(self, jobs: list[list[str]]) -> list[float]:
        """Launches the jobs; returns their figures on validation, −inf of those that failed or have none."""
        from tutelage.compat.hydra import job_result

        assert self.launcher is not None
        returned = self.launcher.launch(jobs, initial_job_idx=self.launched) if jobs else []
        self.launched += len(jobs)
        values = []
        for one in returned:
            if one.status != JobStatus.COMPLETED:
                self.failed = self.failed or one
                values.append(-math.inf)
            else:
                value = float(job_result(one))
                values.append(-math.inf if math.isnan(value) else value)
        return values


def _plain(node: Any) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(node) if isinstance(node, DictConfig) else node
    return found or {}
