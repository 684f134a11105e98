"""``tutelage evaluate checkpoint=…``: the figures of a network that Tutelage wrote."""

import hydra
from omegaconf import DictConfig

from tutelage.config.paths import conf_dir


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="evaluate")
def main(cfg: DictConfig) -> float:
    """Runs one evaluation; returns the accuracy."""
    from tutelage.pipeline.evaluate import evaluate_job

    return evaluate_job(cfg)
