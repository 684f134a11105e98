"""Trainings and gradients on two gloo ranks without the command line, and the same in one process."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from shares import Whole, gradients, module_of
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tutelage.config import factory, resolvers
from tutelage.losses.feature.fitnet import FitNet
from tutelage.types import NO_LABEL, Batch


class HintsFirst(FitNet):
    """Hints alone in the first epoch, cross-entropy alone after it: another part of the network learns."""

    first = True

    def on_epoch_start(self, epoch: int, epochs: int) -> None:
        self.first = epoch == 0

    def forward(self, student: Tensor, teacher: Tensor, logits: Tensor, label: Tensor) -> Tensor:
        return super().forward(student, teacher) if self.first else nn.functional.cross_entropy(logits, label)


def train(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Trains the student; its weights, and what DDP was told."""
    stage = factory.stage_config(cfg, "student")
    data = factory.data(stage)
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    trainer = factory.trainer(stage, "student", folder, folder, len(data.train_dataloader()))
    trainer.fit(module, datamodule=data)
    told = getattr(trainer.strategy, "_ddp_kwargs", {})
    return {"weights": dict(module.state_dict()), "told": {key: value for key, value in told.items() if value is True}}


def partly_labelled(batch: Batch) -> Batch:
    """Of 16 examples seven in the first half and three in the second have no label."""
    label = batch["label"].clone()
    label[:7] = label[13:] = NO_LABEL
    return {**batch, "label": label}


def masked_gradients(cfg: DictConfig, share: slice) -> Tensor:
    """Of the student, on a share of a batch in which labels are missing."""
    module, batch = module_of(cfg)
    step = DistributedDataParallel(Whole(module)) if distributed.is_initialized() else None
    return gradients(module, partly_labelled(batch), share, step)


def rank(number: int, folder: str, trainings: Mapping[str, DictConfig], masked: Mapping[str, DictConfig]) -> None:
    """One of two processes: every training, then every gradient on its half of a batch; rank 0 writes what came out."""
    resolvers.register()
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": "2"}
    store = distributed.FileStore(os.path.join(folder, "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=number, world_size=2)
    found: dict[str, Any] = {name: train(cfg, Path(folder, name)) for name, cfg in trainings.items()}
    for name, cfg in masked.items():
        found[f"masked {name}"] = masked_gradients(cfg, slice(8 * number, 8 * number + 8))
    if number == 0:
        torch.save(found, Path(folder) / "found.pt")
    distributed.destroy_process_group()
