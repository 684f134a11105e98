"""``launcher=stacked``: trains stackable jobs together, then runs all as Hydra's sequential launcher does."""

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
    most_jobs: Any = UNSET  # names of the previous release
    most_work: Any = UNSET


ConfigStore.instance().store(
    group="hydra/launcher", name="stacked", node=StackedLauncherConf, provider="tutelage", package="hydra.launcher"
)


class StackedLauncher(Launcher):
    """Trains jobs that differ only in seed, temperature, loss weights, learning rate, weight decay or dropout as one.

    Then each job runs as under Hydra's basic launcher and reuses its trained student.

    Args:
        max_jobs: greatest number of jobs in a stack; None: as many as fit into memory.
        max_macs: multiply-adds of a student's batch, counting those of convolutions twice, above which a CPU trains
            jobs one by one; None: no limit.
        most_jobs: deprecated name of ``max_jobs``.
        most_work: deprecated name of ``max_macs``.
    """

    def __init__(self, max_jobs: int | None, max_macs: float | None, most_jobs: Any = UNSET, most_work: Any = UNSET):
        self.max_jobs = max_jobs if most_jobs == UNSET else _renamed("most_jobs", "max_jobs", most_jobs)
        self.max_macs = max_macs if most_work == UNSET else _renamed("most_work", "max_macs", most_work)
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Prepares the launch; configs that the sweeper composes to validate the jobs are kept for it."""
        hydra_context.config_loader = cast(ConfigLoader, _CachedConfigs(hydra_context.config_loader))
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Trains the stackable jobs together, then runs all jobs one by one."""
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
    """Returns the value of an option that was given by its deprecated name, with a warning."""
    from tutelage.errors import TutelageError

    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TutelageError(f"hydra.launcher.{old}, now {new}: expected a number or null, found {value!r}")
    log.warning("hydra.launcher.%s is now %s; the old name works in this release only", old, new)
    return value


class _CachedConfigs:
    """A config loader that returns each job's config a second time without composing it again, which is slow."""

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
    """Returns the job as :func:`hydra.core.utils.run_job` will run it; None if its config is invalid."""
    from tutelage.config.moved import update_targets
    from tutelage.pipeline.sweep import given
    from tutelage.stacked.launch import planned

    update_targets(config)  # here, so that names of the previous release cause one warning only
    plain = deepcopy(config)
    folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
    with read_write(plain), open_dict(plain):
        del plain["hydra"]
        plain.paths.run = str(folder)
    return planned(plain, config.hydra, folder, given(config.hydra))
