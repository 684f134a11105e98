"""``tutelage cache``: a teacher's signals on every training image, written once for all students."""

import hydra
from omegaconf import DictConfig

from tutelage.config.paths import conf_dir


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="cache")
def main(cfg: DictConfig) -> None:
    """Trains or finds the teacher and writes the signals that the loss reads."""
    from tutelage.pipeline.distill import cache_job

    cache_job(cfg)
