"""Many networks and their objectives as one module: tensors with a leading dimension K, one forward pass for all."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from tutelage.compat.torch import map_tensors
from tutelage.objective import Term
from tutelage.sources.base import Source
from tutelage.stacked.layers import DropoutMasks
from tutelage.stacked.tensors import joined, parts_of, stacked
from tutelage.training.module import SupervisedModule
from tutelage.types import Batch, Signals


class _One(nn.Module):
    """Computes one job's losses of a batch and the teachers' signals."""

    def __init__(self, module: SupervisedModule):
        super().__init__()
        self.student, self.objective = module.student, module.objective

    def forward(self, batch: Batch, teachers: dict[str, Signals]) -> tuple[Tensor, dict[str, Tensor]]:
        return self.objective({"batch": batch, "student": self.student(batch), **teachers})


class Stack(nn.Module):
    """K students, their objectives and their teachers, under ``torch.func.vmap`` over (seed, cell).

    Jobs with the same seed share their batches: if every seed has the same number of jobs, an image is fetched once per
    seed, else once per job. The optimizer sees the tensors in runs of jobs with equal settings; as it works element by
    element, each job gets its own updates.

    Args:
        modules: one per job as it would train alone, sorted by :func:`~tutelage.stacked.train.sort_learners`; equal up
            to tensors, dropout rates and seeds.
        data_seeds: seeds of their orders and augmentations.
        teaching: name → source, shared by all and not trained.
        example: a batch of images, to find the calls of dropout.
    """

    def __init__(
        self,
        modules: Sequence[SupervisedModule],
        data_seeds: Sequence[int],
        teaching: Mapping[str, Source],
        example: Tensor,
    ):
        super().__init__()
        self.teaching = nn.ModuleDict({name: source for name, source in teaching.items() if name in modules[0].needs})
        self.seeds, self.cells = layout(data_seeds)
        self.dropout = DropoutMasks([module.student.net for module in modules], [m.seed for m in modules], example)
        self.one = stacked([_One(module) for module in modules])
        self.masks = self.dropout.install(self.one.student)
        self._whole: dict[str, nn.Parameter] = {}  # all parameters by name: the walk would cost at every step
        self._parts: dict[str, list[nn.Parameter]] = {}

    @property
    def net(self) -> nn.Module:
        """Returns the students as one module: every tensor is [K, …]."""
        return self.one.student.net.net

    def _split(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Reshapes [K, …] to [S, K / S, …]."""
        return {name: tensor.unflatten(0, (len(self.seeds), self.cells)) for name, tensor in tensors.items()}

    def losses(self, batch: Batch, masks: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns losses [K] and unweighted terms [K] by name, for a batch [S, B, …] and masks [K, B, …]."""
        learning = {name: joined(self._whole[name], parts) for name, parts in self._parts.items()}
        state = {**dict(self.one.named_buffers()), **learning}
        rows, constant = self._teachers(batch)

        def one(state: dict[str, Tensor], masks: list[Tensor], batch: Batch, rows: dict[str, Signals]) -> Any:
            self.masks[:] = masks
            teachers = {name: {**signals, **constant[name]} for name, signals in rows.items()}
            return functional_call(self.one, state, (batch, teachers))

        if len(self.seeds) == 1:  # one vmap: the Python of a nested one takes as long again
            batch, rows = map_tensors(lambda tensor: tensor[0], (batch, rows))
            return vmap(one, in_dims=(0, 0, None, None))(state, masks, batch, rows)
        if self.cells == 1:
            return vmap(one)(state, masks, batch, rows)
        cells = vmap(one, in_dims=(0, 0, None, None))
        split = [mask.unflatten(0, (len(self.seeds), self.cells)) for mask in masks]
        total, parts = vmap(cells)(self._split(state), split, batch, rows)
        return total.flatten(), {name: part.flatten() for name, part in parts.items()}

    def _teachers(self, batch: Batch) -> tuple[dict[str, Signals], dict[str, Signals]]:
        """Returns the teachers' signals, in one pass for all seeds: by example [S, B, …], and constant ones."""
        flat = {name: tensor.flatten(0, 1) for name, tensor in batch.items()}
        shape = batch["key"].shape
        rows: dict[str, Signals] = {}
        constant: dict[str, Signals] = {}
        for name, source in self.teaching.items():
            signals = source(flat)
            rows[name] = {key: x.unflatten(0, shape) for key, x in signals.items() if "." not in key}
            constant[name] = {key: x for key, x in signals.items() if "." in key}
        return rows, constant

    def logits(self, images: Tensor) -> Tensor:
        """Returns the logits of all jobs for the same images: [K, B, C]."""
        net = self.one.student.net
        state = self._split({**dict(net.named_buffers()), **dict(net.named_parameters())})
        one = vmap(lambda state: functional_call(net, state, (images,))["logits"])
        return vmap(one)(state).flatten(0, 1)

    def parameter_groups(self, settings: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[int]]:
        """Returns an optimizer's parameter groups, one per distinct setting, and the index of each job's group.

        Args:
            settings: each job's settings, such as its learning rate.
        """
        runs = [(setting, len(list(same))) for setting, same in groupby(settings)]
        self._whole = dict(self.one.named_parameters())
        self._parts = {name: parts_of(whole, [n for _, n in runs]) for name, whole in self._whole.items()}
        distinct: list[Mapping[str, Any]] = []
        for setting, _ in runs:
            if setting not in distinct:
                distinct.append(setting)
        groups: list[dict[str, Any]] = [{"params": [], **setting} for setting in distinct]
        for i, (setting, _) in enumerate(runs):
            groups[distinct.index(setting)]["params"] += [parts[i] for parts in self._parts.values()]
        return groups, [distinct.index(setting) for setting in settings]

    def gradients(self) -> dict[str, Tensor]:
        """Returns the gradients of the last backward pass, by parameter: [K, …]."""
        grads = {name: [part.grad for part in parts] for name, parts in self._parts.items()}
        return {name: torch.cat(own) for name, own in grads.items() if all(grad is not None for grad in own)}  # type: ignore[arg-type]

    def gradients_of_terms(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the gradient of every weighted term for the students, name → [K, P]; retains the graph."""
        leaves = [own for name, own in self._parts.items() if name.startswith("student.")]
        gradients: dict[str, Tensor] = {}
        for name, part in parts.items():
            loss = (cast(Term, self.one.objective.terms[name]).scale * part).sum()
            found = iter(torch.autograd.grad(loss, [*chain(*leaves)], retain_graph=True, materialize_grads=True))
            whole = [torch.cat([next(found) for _ in own]).flatten(1).float() for own in leaves]
            gradients[name] = torch.cat(whole, 1)
        return gradients

    def begin_epoch(self, modules: Sequence[SupervisedModule], epoch: int, epochs: int) -> None:
        """Starts the epoch for every job's scheduled terms and losses."""
        scheduled = [module.objective.on_epoch_start(epoch, epochs) for module in modules]
        for path in scheduled[0]:
            own = [module.objective.get_submodule(path) for module in modules]
            for key, whole in self.one.objective.get_submodule(path).named_buffers(recurse=False):
                whole.copy_(torch.stack([one.get_buffer(key) for one in own]))


def settings_of(module: SupervisedModule) -> dict[str, Any]:
    """Returns the settings of a module's optimizer, a partial, for its parameter groups."""
    assert isinstance(module.optimizer, partial)
    return dict(module.optimizer.keywords)


def layout(data_seeds: Sequence[int]) -> tuple[list[int], int]:
    """Returns the seeds of the outer dimension and the number of jobs for each; one seed per job if numbers differ."""
    runs = [(seed, len(list(same))) for seed, same in groupby(data_seeds)]
    if len({count for _, count in runs}) == 1 and len({seed for seed, _ in runs}) == len(runs):
        return [seed for seed, _ in runs], runs[0][1]
    return list(data_seeds), 1
