"""Datasets of one's own are made once a job: for what a config asks of them, and for every training."""

import json
from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from tutelage.config.data_keys import FACTS, OF_THE_RUN
from tutelage.data.dataset import DatasetData
from tutelage.data.module import Data

# Keys that decide what is done with the samples, not which there are and what labels they have.
_OF_THE_USE = {
    *FACTS, *OF_THE_RUN,
    "class_names", "collate", "mean", "std", "test_size", "train_transform", "transform", "transform_fields",
}  # fmt: skip


class JobDatasets:
    """Keeps the datasets that were made last, with their labels, until others are made or a job begins."""

    def __init__(self) -> None:
        self._key = ""
        self._shared: Mapping[str, Any] = {}

    def forget(self) -> None:
        """Drops them: files that they were made from may have changed since."""
        self._key, self._shared = "", {}

    def make(self, node: DictConfig, **given: Any) -> Data:
        """Returns the data of a config.

        Args:
            node: with a ``_target_``, resolved or not.
            given: arguments that replace those of the config.

        Raises:
            InstantiationException: they can't be made; its cause is the reason.
            TutelageError: likewise, with datasets that are there.
        """
        plain: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
        decisive = {key: value for key, value in plain.items() if key not in _OF_THE_USE} | {
            "split_seed": plain.get("split_seed", 0),
            "sampler": plain.get("sampler") is None,  # else it takes the place of a loader's own
        }
        key = json.dumps(decisive, sort_keys=True, default=str)
        if self._shared and key == self._key:
            rest = OmegaConf.create({name: value for name, value in plain.items() if name not in self._shared})
            again: Data = instantiate(rest, _partial_=True)(**{**self._shared, **given})
            return again
        self.forget()
        made: Data = instantiate(node, **given)
        if isinstance(made, DatasetData) and made.shared.keys() <= plain.keys():  # a subclass may make its own
            self._key, self._shared = key, made.shared
        return made


job_datasets = JobDatasets()
