"""The gradient of an objective on a share of a batch, alone and as one of several ranks."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tutelage.config import factory, resolvers
from tutelage.seeding import reseed
from tutelage.training.distillation import DistillationModule
from tutelage.types import Batch


class Whole(nn.Module):
    """Batch → objective, as DDP sees a Lightning module."""

    def __init__(self, module: DistillationModule):
        super().__init__()
        self.module = module

    def forward(self, batch: Batch) -> Tensor:
        return self.module.objective(self.module.signals(batch))[0]


def module_of(cfg: DictConfig) -> tuple[DistillationModule, Batch]:
    """A student that has met its data, and 16 examples; in eval mode, where no example depends on another."""
    stage = factory.stage_config(cfg, "student")
    data = factory.data(stage)
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    module.dry_run(data)
    for loss in module.objective.modules():
        if hasattr(loss, "prepared"):
            loss.prepared = True  # as it is: which paraphraser does not matter here
        if callable(hear := getattr(loss, "on_epoch_start", None)):
            hear(2, 4)
    return module.eval(), data.sample(16)


def gradients(module: DistillationModule, batch: Batch, share: slice, step: nn.Module | None = None) -> Tensor:
    """Of the student's parameters, one vector."""
    reseed(torch.device("cpu"), 0)
    (step or Whole(module))({name: value[share] for name, value in batch.items()}).backward()
    found = [p.grad for p in module.student.parameters() if p.requires_grad and p.grad is not None]
    return torch.cat([gradient.flatten() for gradient in found])


def gradients_of_shares(module: DistillationModule, batch: Batch, shares: Sequence[slice]) -> list[Tensor]:
    """Of each share, as if the module had seen no other."""
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    found = []
    for share in shares:
        found.append(gradients(module, batch, share))
        module.zero_grad()
        for name, buffer in module.named_buffers():
            buffer.copy_(before[name])
    return found


def rank(number: int, ranks: int, folder: str, configs: Mapping[str, DictConfig]) -> None:
    """One of the processes: every loss on its share, the gradients averaged by DDP; rank 0 writes them."""
    resolvers.register()
    torch.set_num_threads(1)
    store = distributed.FileStore(os.path.join(folder, "store"), ranks)
    distributed.init_process_group("gloo", store=store, rank=number, world_size=ranks)
    found = {}
    for loss, cfg in configs.items():
        module, batch = module_of(cfg)
        size = len(batch["input"]) // ranks
        share = slice(number * size, (number + 1) * size)
        found[loss] = gradients(module, batch, share, DistributedDataParallel(Whole(module)))
    if number == 0:
        torch.save(found, Path(folder) / "gradients.pt")
    distributed.destroy_process_group()
