"""``tutelage distill``: a teacher, the student alone and the student it teaches, under one protocol."""

import hydra
from omegaconf import DictConfig

from tutelage.config.paths import conf_dir


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="distill")
def main(cfg: DictConfig) -> float:
    """Runs one job; returns the value that a sweeper optimises: the student's best figure on validation."""
    from tutelage.pipeline.distill import distill_job

    return distill_job(cfg)
