"""``tutelage budget parameters=… data=…``: students that meet a target, measured."""

import hydra
from omegaconf import DictConfig

from tutelage.config.paths import conf_dir


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="budget")
def main(cfg: DictConfig) -> None:
    """Tries students, and prints those that meet the targets with the commands that train them."""
    from tutelage.pipeline.budget import budget_job

    budget_job(cfg)
