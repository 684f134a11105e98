"""A user's LightningDataModule: the datasets of its loaders, with our keys, order and random numbers."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import lightning as L
from torch.utils.data import DataLoader

from tutelage.data.chance import own_generators, seed_generators
from tutelage.data.dataset import DatasetData
from tutelage.errors import TutelageError

_LOADERS = {"train": "train_dataloader", "val": "val_dataloader", "test": "test_dataloader"}
_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class ModuleData(DatasetData):
    """Uses the datasets, custom ``collate_fn``s and choices of examples of a LightningDataModule's loaders.

    The module is prepared and set up once, with random numbers seeded by ``split_seed``. A ``SubsetRandomSampler``
    leaves out what it leaves out, a ``WeightedRandomSampler`` of the training loader weighs; others than the plain
    orders are refused. A loader's batch size, order and workers are not used: they are ``data``'s own. Without
    ``val_dataloader`` or ``test_dataloader`` that part is drawn from the training set.

    Args:
        datamodule: the module, or a function that returns one.
        split_seed: see :class:`~tutelage.data.module.Data`.
        **common: arguments of :class:`~tutelage.data.dataset.DatasetData`.

    Raises:
        TutelageError: it is no LightningDataModule, fails, has several loaders for a part, or a hook that changes
            batches on their way to the device.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("datamodule", *DatasetData.seen_through)

    def __init__(self, *, datamodule: Any, split_seed: int = 0, **common: Any):
        if isinstance(datamodule, _Loaders):
            super().__init__(**datamodule.parts, split_seed=split_seed, **common)
            self.name = datamodule.name
            return
        name, given = loaders_of(datamodule, split_seed)
        parts: dict[str, Any] = dict(given)
        super().__init__(**parts, split_seed=split_seed, **common)
        self.name = name

    @property
    def shared(self) -> dict[str, Any]:
        """Returns an argument that gives another object the same datasets."""
        return {"datamodule": _Loaders(self.name, super().shared)}


class _Loaders(NamedTuple):
    """The parts of a module's loaders by name."""

    name: str
    parts: dict[str, Any]


def loaders_of(datamodule: Any, split_seed: int) -> tuple[str, dict[str, DataLoader[Any] | None]]:
    """Prepares a LightningDataModule; returns its name and its loaders for ``train``, ``val`` and ``test``.

    Args:
        datamodule: the module, or a function that returns one.
        split_seed: seeds the random numbers that it draws.

    Raises:
        TutelageError: it is no LightningDataModule, fails, or has several loaders for a part.
    """
    module = datamodule() if callable(datamodule) else datamodule
    if not isinstance(module, L.LightningDataModule):
        raise TutelageError(f"data.datamodule: expected a LightningDataModule; found {type(module).__name__}")
    name = type(module).__name__
    for hook in _HOOKS:
        if getattr(type(module), hook) is not getattr(L.LightningDataModule, hook):
            raise TutelageError(
                f"data.datamodule: {name}.{hook} would not be called, as batches are made here: change samples in the "
                "dataset or by data.transform, batches by the loader's collate_fn"
            )
    with own_generators():
        seed_generators(split_seed, "datamodule")
        _run(name, "prepare_data", module.prepare_data)
        for stage in ("fit", "test"):
            _run(name, f"setup({stage!r})", partial(module.setup, stage))
        given = {part: _loader(module, part) for part in _LOADERS}
    if given["train"] is None:
        raise TutelageError(f"data.datamodule: {name} has no train_dataloader")
    return name, given


def _loader(module: L.LightningDataModule, part: str) -> DataLoader[Any] | None:
    method, name = _LOADERS[part], type(module).__name__
    if getattr(type(module), method) is getattr(L.LightningDataModule, method):
        return None
    found = _run(name, method, getattr(module, method))
    if isinstance(found, list | tuple) and len(found) == 1:
        found = found[0]
    if found is not None and not isinstance(found, DataLoader):
        raise TutelageError(f"data.datamodule: {name}.{method} gives {type(found).__name__}; expected one DataLoader")
    return found


def _run(name: str, step: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except TutelageError:
        raise
    except Exception as error:  # it is anyone's
        raise TutelageError(f"data.datamodule: {name}.{step} failed: {type(error).__name__}: {error}") from error
