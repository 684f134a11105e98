"""``tutelage predict checkpoint=… input=… output=…``: answers images or rows, and writes a table."""

import hydra
from omegaconf import DictConfig

from tutelage.config.paths import conf_dir


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="predict")
def main(cfg: DictConfig) -> None:
    """Runs one prediction."""
    from tutelage.pipeline.predict import predict_job

    predict_job(cfg)
