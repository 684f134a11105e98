"""``tutelage condense``: few images for a whole training set."""

import hydra
from omegaconf import DictConfig

from tutelage.config.paths import conf_dir


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="condense")
def main(cfg: DictConfig) -> None:
    """Makes or finds the images, and prints their folder."""
    from tutelage.pipeline.condense import condense_job

    condense_job(cfg)
