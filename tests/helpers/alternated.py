"""Modules of a generator and a student as a job builds them, and the pieces of a loop by hand beside them."""

import copy
from collections.abc import Callable, Container, Iterator

import lightning as L
import torch
from omegaconf import open_dict
from torch import Tensor

from tutelage.config import factory
from tutelage.config.turns import training_data
from tutelage.models.tapped import Tapped
from tutelage.seeding import reseed
from tutelage.training.alternating import AlternatingModule

CNNS = ("model@teacher=cnn", "model@student=cnn", "student.net.dropout=0")
EPOCHS, ROUNDS = 2, 2
SMALL = ("data.batch_size=6", "logger=none", f"stages.student.turns.rounds={ROUNDS}")
Made = tuple[AlternatingModule, L.Trainer, object]


def make(
    compose: Callable, loss: str, *overrides: str, nets: tuple[str, ...] = CNNS, precision: str = "64-true"
) -> Made:
    """Returns a module with an untrained teacher, a trainer of 2 · 2 rounds, by default in float64, and data."""
    width = () if loss == "noise" else ("stages.student.turns.generator.width=4",)
    cfg = compose(*nets, *SMALL, *width, f"loss=data_free/{loss}", *overrides)
    with open_dict(cfg):
        cfg.optimizer.fused = False
    stage = factory.stage_config(cfg, "student")
    data = training_data(stage, factory.data(stage))
    module = factory.distillation_module(stage, data, factory.sources(stage), None)
    trainer = L.Trainer(
        max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, precision=precision, num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    return module, trainer, data


class ByHand:
    """Copies of a module's networks, and the pieces that a loop needs."""

    def __init__(self, module: AlternatingModule):
        self.generator = copy.deepcopy(module.generator).double()
        self.student = copy.deepcopy(module.student.net.net).double()
        teacher: Tapped = module.sources()["teacher"].net
        self.teacher = copy.deepcopy(teacher.net).double()
        self.kept: list[Tensor] = []
        self.teacher.embedding.register_forward_hook(lambda *found: self.kept.append(found[2]))
        self.student_optimizer = torch.optim.Adam(self.student.parameters(), lr=1e-3)

    def rounds(self) -> Iterator[None]:
        """Yields at each round, seeded as the module is."""
        for epoch in range(EPOCHS):
            for batch in range(ROUNDS):
                reseed(torch.device("cpu"), 0, "step", epoch, batch, 0)
                yield

    def same(self, module: AlternatingModule, but: Container[str] = ()) -> None:
        """Compares the networks' weights and statistics, all but the named ones."""
        for mine, theirs in ((self.generator, module.generator), (self.student, module.student.net.net)):
            for (name, one), other in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
                # biases before BatchNorm have gradients that are rounding errors
                same = name in but or torch.allclose(one.double(), other.double(), rtol=1e-9, atol=1e-9)
                assert same, name


def step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Steps on the gradient of a loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
