"""Distillation under a plain ``lightning.Trainer``, with any loader of images and labels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tutelage.errors import TutelageError
from tutelage.objective import Objective
from tutelage.seeding import seeded
from tutelage.sources.base import Source
from tutelage.sources.frozen import Frozen
from tutelage.sources.live import Live
from tutelage.training.distillation import DistillationModule
from tutelage.training.module import Optimizer, Scheduler
from tutelage.types import Batch


class Distillation(DistillationModule):
    """A student that learns from a teacher, to be given to a plain ``lightning.Trainer``.

    Batches may be ``(x, y)``, as torchvision's datasets give them, or mappings with ``input`` [B, …], ``label`` [B]
    int64 and, for losses that keep something for each example (CRD), ``key`` [B] int64. Logs what
    :class:`~tutelage.training.module.SupervisedModule` logs.

    Args:
        student: maps x to logits [B, C]; a :class:`~tutelage.models.tapped.Tapped` where terms read more than logits.
        teacher: the same, with its weights; it is frozen. Or a :class:`~tutelage.sources.base.Source`.
        objective: what is minimised; its terms read ``student.…``, ``teacher.…`` and ``batch.label``.
        optimizer: parameters → optimizer, such as ``functools.partial(torch.optim.AdamW, lr=1e-3)``.
        scheduler: optimizer → learning-rate schedule, stepped after each epoch.
        example: a batch, needed where a loss has parameters whose shapes it learns from one (FitNet's regressor).
        seed: of dropout and every other random draw in a step.

    Raises:
        TutelageError: the objective reads what is not there, or needs an ``example``.

    Examples:
        >>> import torch, tutelage as tt
        >>> student, teacher = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> soft = tt.Term(
        ...     tt.losses.SoftTarget(temperature=4.0),
        ...     inputs={"student": "student.logits"},
        ...     targets={"teacher": "teacher.logits"},
        ... )
        >>> module = tt.Distillation(student=student, teacher=teacher, objective=tt.Objective({"soft": soft}))
        >>> sorted(module.needs)
        ['student', 'teacher']
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        objective: Objective,
        optimizer: Optimizer | Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        scheduler: Scheduler | None = None,
        example: Any = None,
        seed: int = 0,
    ):
        source = teacher if isinstance(teacher, Source) else Frozen(teacher)
        super().__init__(
            sources={"teacher": source}, student=Live(student), objective=objective, optimizer=optimizer,
            scheduler=scheduler, seed=seed,
        )  # fmt: skip
        self.check_sources()
        if example is not None:
            self._shape(as_batch(example))
        elif any(is_lazy(parameter) for parameter in objective.parameters()):
            raise TutelageError(
                "a loss of this objective needs a batch for the shapes of its parameters: Distillation(…, "
                "example=next(iter(loader)))"
            )

    def _shape(self, batch: Batch) -> None:
        """Runs the objective once without gradients, in eval mode."""
        self.eval()
        with torch.no_grad(), seeded(self.seed, "shapes"):
            try:
                self.objective(self.signals(batch))
            except (RuntimeError, ValueError) as error:
                if isinstance(error, TutelageError):
                    raise
                shape = list(batch["input"].shape)
                raise TutelageError(f"the networks or the objective can't take a batch of {shape}: {error}") from error
        self.train()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the student's logits [B, C] for inputs ``x`` [B, …]."""
        return self.student.net.net(x)

    def setup(self, stage: str) -> None:
        """Does nothing: the networks are shaped by ``example``, or in the first step."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Names the parts of a batch ``(x, y)``."""
        return as_batch(batch)

    def schedule(self, optimizer: torch.optim.Optimizer, trainer: Any) -> dict[str, Any]:
        """Returns the schedule as Lightning takes it: one step an epoch."""
        assert self.scheduler is not None
        return {"scheduler": self.scheduler(optimizer), "interval": "epoch"}


def as_batch(batch: Any) -> Batch:
    """Returns a mapping with ``input`` and ``label`` for a batch ``(x, y)``, and a mapping as it is.

    Raises:
        TutelageError: it is neither.
    """
    if isinstance(batch, dict) and {"input", "label"} <= batch.keys():
        return batch
    if isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch):
        return {"input": batch[0], "label": batch[1]}
    found = sorted(batch) if isinstance(batch, dict) else type(batch).__name__
    raise TutelageError(f"a batch must be (x, y) or a mapping with 'input' and 'label'; found {found}")
