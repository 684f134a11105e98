"""Trainings of a language model by accumulated batches, on two gloo ranks and in one process."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor, distributed
from two_ranks import train

from tutelage.config import resolvers


def trained(cfg: DictConfig, folder: Path) -> dict[str, Tensor]:
    """Returns the student's weights after its training."""
    return {name: value.detach().clone() for name, value in train(cfg, folder)["weights"].items()}


def rank(number: int, folder: str, trainings: Mapping[str, DictConfig]) -> None:
    """One of two processes: every training; rank 0 writes the weights."""
    resolvers.register()
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2"}
    store = distributed.FileStore(os.path.join(folder, "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=number, world_size=2)
    found = {name: trained(cfg, Path(folder, name)) for name, cfg in trainings.items()}
    if number == 0:
        torch.save(found, Path(folder) / "found.pt")
    distributed.destroy_process_group()
