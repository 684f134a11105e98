"""Trains on a simulated GPU or on the CPU, and looks where everything is at every hook of Lightning's that matters."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig
from simulated_gpu import simulated_gpus
from torch import Tensor

from tutelage.config import factory
from tutelage.data.base import ImageData
from tutelage.training.module import SupervisedModule

# The hooks of a training in Lightning's order. The networks move after `setup` and `configure_model`, where
# `LightningModule.device` already names the GPU, and before `configure_optimizers`; validation of an epoch comes
# between its last step and `on_train_epoch_end`.
ORDER = (
    "setup", "configure_model", "MOVED", "configure_optimizers", "on_fit_start", "on_train_start",
    "on_train_epoch_start", "on_train_batch_start", "training_step", "on_before_zero_grad", "on_train_batch_end",
    "on_validation_start", "validation_step", "on_validation_epoch_end", "on_train_epoch_end", "on_train_end",
)  # fmt: skip


def devices(x: Any) -> set[str]:
    """Returns the devices of the tensors in nested containers, modules and optimizers."""
    if isinstance(x, Tensor):
        return {str(x.device)}
    if isinstance(x, torch.nn.Module):
        return devices([*x.parameters(), *x.buffers()])
    if isinstance(x, torch.optim.Optimizer):
        return devices([x.param_groups, list(x.state.values())])
    if isinstance(x, dict):
        return devices(list(x.values()))
    return set().union(*map(devices, x)) if isinstance(x, list | tuple) else set()


def places(module: SupervisedModule) -> dict[str, set[str]]:
    """Returns the devices of the parts of a module; a frozen teacher is no child of it."""
    found = {"module": devices(module)}
    for name, source in module.sources().items():
        for number, part in enumerate(source.modules()):
            if isinstance(net := getattr(part, "net", None), torch.nn.Module):
                found[f"{name} {number}"] = devices(net)
    return found


class Watch(L.Callback):
    """Notes the order of hooks and checks at each that everything is on ``device``, before the move on the host."""

    def __init__(self, device: str):
        self.device, self.hooks = device, []

    def _look(self, hook: str, module: Any, *more: Any) -> None:
        self.hooks.append(hook)
        expected = "cpu" if hook in ("setup", "configure_model") else self.device
        everything = {**places(module), "further": devices(list(more))}
        wrong = {name: found for name, found in everything.items() if not found <= {expected}}
        assert not wrong, f"{hook}: expected everything on {expected}, found {wrong}"

    def watch(self, module: SupervisedModule) -> None:
        """Puts itself around the module's own hooks that a callback has no part in."""
        for hook in ("setup", "configure_model", "configure_optimizers", "training_step", "validation_step"):
            setattr(module, hook, self._around(hook, module, getattr(module, hook)))

    def _around(self, hook: str, module: SupervisedModule, own: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if hook == "configure_optimizers":
                self._look("MOVED", module)
            found = own(*args, **kwargs)
            self._look(hook, module, args, found if isinstance(found, Tensor) else ())
            return found

        return wrapped

    def on_fit_start(self, trainer, pl_module) -> None:
        self._look("on_fit_start", pl_module)

    def on_train_start(self, trainer, pl_module) -> None:
        self._look("on_train_start", pl_module, trainer.optimizers)

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self._look("on_train_epoch_start", pl_module, trainer.optimizers)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self._look("on_train_batch_start", pl_module, trainer.optimizers, batch)

    def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
        self._look("on_before_zero_grad", pl_module, optimizer)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        assert gradients
        self._look("on_train_batch_end", pl_module, trainer.optimizers, outputs, batch, gradients)

    def on_validation_start(self, trainer, pl_module) -> None:
        self._look("on_validation_start", pl_module)

    def on_validation_epoch_end(self, trainer, pl_module) -> None:
        self._look("on_validation_epoch_end", pl_module)

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        self._look("on_train_epoch_end", pl_module, trainer.optimizers)

    def on_train_end(self, trainer, pl_module) -> None:
        self._look("on_train_end", pl_module, trainer.optimizers)


def first(hooks: list[str]) -> list[str]:
    """Every hook once, in the order in which each was called first."""
    return list(dict.fromkeys(hooks))


def fit(
    stage: DictConfig, folder: Path, data: ImageData, accelerator: str, count: int = 1
) -> tuple[SupervisedModule, list[str]]:
    """Trains the student of ``stage``; its module, back on the host, and the hooks in their order."""
    stage = stage.copy()
    stage.trainer.accelerator = accelerator
    with simulated_gpus(count) if accelerator == "cuda" else nullcontext():
        module = factory.distillation_module(stage, data, factory.sources(stage), None)
        trainer = factory.trainer(stage, "student", folder, folder, 2)
        watch = Watch("cuda:0" if accelerator == "cuda" else "cpu")
        watch.watch(module)
        trainer.callbacks.append(watch)
        trainer.fit(module, datamodule=data)
        assert trainer.global_step == 2
        return module.cpu(), watch.hooks


def states(module: SupervisedModule) -> Iterator[tuple[str, Tensor]]:
    """All that a checkpoint would have of it."""
    return ((name, x.detach()) for name, x in module.state_dict().items() if isinstance(x, Tensor))
