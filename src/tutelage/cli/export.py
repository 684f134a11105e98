"""``tutelage export checkpoint=…``: a trained network as files that others run."""

import hydra
from omegaconf import DictConfig

from tutelage.config.paths import conf_dir


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="export")
def main(cfg: DictConfig) -> None:
    """Runs one export."""
    from tutelage.pipeline.export import export_job

    export_job(cfg)
