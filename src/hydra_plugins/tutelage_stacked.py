"""``launcher=stacked``: Hydra's sequential launcher, after those jobs that can have trained together."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, configure_log, filter_overrides, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

log = logging.getLogger(__name__)

UNSET = ""  # None is a value


@dataclass
class StackedLauncherConf:
    """The options of :class:`StackedLauncher`."""

    _target_: str = "hydra_plugins.tutelage_stacked.StackedLauncher"
    max_jobs: int | None = None
    max_macs: float | None = 2e7
    most_jobs: Any = UNSET  # the names of the last release
    most_work: Any = UNSET


ConfigStore.instance().store(
    group="hydra/launcher", name="stacked", node=StackedLauncherConf, provider="tutelage", package="hydra.launcher"
)


class StackedLauncher(Launcher):
    """Jobs that differ in seed, temperature, weights of losses, learning rate, weight decay or dropout train as one.

    After that each runs as under Hydra's basic launcher and finds its student trained.

    Args:
        max_jobs: in a stack; None: as many as fit into memory.
        max_macs: multiply-adds of a student's batch, those of convolutions twice, above which a CPU trains jobs one by
            one; None: no limit.
        most_jobs: old name of ``max_jobs``, with a warning; in this release only.
        most_work: old name of ``max_macs``, likewise.
    """

    def __init__(self, max_jobs: int | None, max_macs: float | None, most_jobs: Any = UNSET, most_work: Any = UNSET):
        self.max_jobs = max_jobs if most_jobs == UNSET else _renamed("most_jobs", "max_jobs", most_jobs)
        self.max_macs = max_macs if most_work == UNSET else _renamed("most_work", "max_macs", most_work)
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keeps what the sweeper composes of every job, to see whether it is legal, for the launch."""
        kept = _Kept(hydra_context.config_loader)
        hydra_context.config_loader = cast(ConfigLoader, kept)
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Trains what goes together, then runs the jobs one by one."""
        from tutelage.stacked.owner import only_owner

        setup_globals()
        assert self.config is not None
        hydra = self.config.hydra
        configure_log(hydra.hydra_logging, hydra.verbose)
        with only_owner(Path(str(hydra.sweep.dir))):
            return self._launch(job_overrides, initial_job_idx)

    def _launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        from tutelage.stacked.launch import Limits, train_together

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.task_function is not None
        hydra = self.config.hydra
        configs = [self._config(list(own), initial_job_idx + i) for i, own in enumerate(job_overrides)]
        jobs = [job for config in configs if (job := _job(config)) is not None]
        train_together(jobs, Limits(self.max_jobs, self.max_macs))
        returned = []
        for config, overrides in zip(configs, job_overrides, strict=True):
            log.info("#%d: %s", config.hydra.job.num, " ".join(filter_overrides(overrides)))
            returned.append(
                run_job(
                    self.task_function,
                    config,
                    "hydra.sweep.dir",
                    "hydra.sweep.subdir",
                    hydra_context=self.hydra_context,
                )
            )
            configure_log(hydra.hydra_logging, hydra.verbose)
        return returned

    def _config(self, overrides: list[str], number: int) -> DictConfig:
        assert self.config is not None
        assert self.hydra_context is not None
        config: DictConfig = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config


def _renamed(old: str, new: str, value: Any) -> Any:
    """Returns the value of an option that was given by its old name, with a warning."""
    from tutelage.errors import TutelageError

    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TutelageError(f"hydra.launcher.{old}, now {new}: expected a number or null, found {value!r}")
    log.warning("hydra.launcher.%s is now %s; the old name works in this release only", old, new)
    return value


class _Kept:
    """A config loader that gives out a job's config a second time: composing one takes as long as many steps."""

    def __init__(self, loader: ConfigLoader):
        self._loader = loader
        self._configs: dict[tuple[str, ...], DictConfig] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        key = tuple(sweep_overrides)
        if key not in self._configs:
            self._configs[key] = self._loader.load_sweep_config(master_config, sweep_overrides)
            return self._configs[key]
        return self._configs.pop(key)


def _job(config: DictConfig) -> Any:
    """The job as :func:`hydra.core.utils.run_job` will run it: its plan, folder and overrides; None if it's refused."""
    from tutelage.config.moved import update_targets
    from tutelage.pipeline.sweep import given
    from tutelage.stacked.launch import planned

    update_targets(config)  # here, that a name of the last release is warned of once
    plain = deepcopy(config)
    folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
    with read_write(plain), open_dict(plain):
        del plain["hydra"]
        plain.paths.run = str(folder)
    return planned(plain, config.hydra, folder, given(config.hydra))
