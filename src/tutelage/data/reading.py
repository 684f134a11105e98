"""Makes batches of the samples of users' datasets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.data.chance import Transforms
from tutelage.data.fields import INPUT, LABEL, Fields, as_tensor, stacked
from tutelage.data.sample_labels import SampleLabels
from tutelage.data.samples import Samples
from tutelage.errors import TutelageError

_MASKS = {"mask", "attention_mask"}  # true at tokens


@dataclass(frozen=True, eq=False)
class Reading:
    """Makes batches of samples.

    Args:
        fields: what a sample consists of.
        transforms: of each sample.
        collate: list of samples → batch: a dict, or a structure that ``fields`` can read; None stacks.
        mean: mean of the input by channel (its first dimension); None: not normalised.
        std: the same.
        labels: of labels that come with the samples; None: they stand in a table.
    """

    fields: Fields
    transforms: Transforms | None = None
    collate: Callable[[list[Any]], Any] | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    labels: SampleLabels | None = None

    def sample(self, samples: Samples, key: int, seed: int) -> Any:
        """Returns one transformed sample, as tensors unless a ``collate`` makes the batch."""
        return self.made(samples.sample(key), samples.place(key)[0], seed)

    def made(self, sample: Any, where: str, seed: int) -> Any:
        """Returns a sample as :meth:`sample` does, from itself."""
        if self.transforms is None and self.collate is not None:
            return sample
        fields, changed = self.fields.pick(sample, where), {}
        if self.transforms is not None:
            changed = self.transforms(fields, seed, where)
        if self.collate is not None:
            return self.fields.put(sample, changed, where)
        made = {**fields, **changed}
        label = made.pop(LABEL, None)
        tensors = {name: as_tensor(name, x, where) for name, x in made.items()}
        if self.labels is not None and label is not None:
            tensors[LABEL] = self.labels.reader(label, where)
        return tensors

    def batch(self, samples: list[Any], where: str, place: Callable[[int], str]) -> dict[str, Tensor]:
        """Returns the fields of a batch; with its labels only where these come with the samples.

        Args:
            samples: as :meth:`sample` returns them.
            where: what errors call the dataset.
            place: position in ``samples`` → what errors call that sample.

        Raises:
            TutelageError: a sample's ``mask`` (``attention_mask``) is false everywhere; names it.
        """
        if self.collate is not None:
            made = self._collated(samples, where)
        else:
            labels = [sample.pop(LABEL, None) for sample in samples]
            made = stacked(samples, place)
            if self.labels is not None:
                made[LABEL] = self.labels.stack(labels, place)
        made[INPUT] = self.normalised(made[INPUT])
        for name in _MASKS & made.keys():
            _check_mask(name, made[name], place)
        return made

    def _collated(self, samples: list[Any], where: str) -> dict[str, Tensor]:
        assert self.collate is not None
        try:
            made = self.collate(samples)
        except Exception as error:  # it is anyone's
            raise TutelageError(f"data.collate of {len(samples)} samples of {where} failed: {error}") from error
        named = isinstance(made, Mapping) and INPUT in made
        parts = dict(made) if named else self.fields.pick(made, f"what data.collate makes of {where}")
        found = {name: as_tensor(name, value, "data.collate") for name, value in parts.items() if name != LABEL}
        if self.labels is not None:
            if LABEL not in parts:
                raise TutelageError(f"data.collate gives no {LABEL!r}; it has {', '.join(map(str, parts))}")
            found[LABEL] = self.labels.reader.column(as_tensor(LABEL, parts[LABEL], "data.collate"), "data.collate")
        elif LABEL in parts:
            self._check_labels(samples, as_tensor(LABEL, parts[LABEL], "data.collate"), where)
        for name, value in found.items():
            if not value.ndim or len(value) != len(samples):
                raise TutelageError(
                    f"data.collate: {name!r} is {list(value.shape)}; its first dimension must be the batch's, "
                    f"{len(samples)}"
                )
        if found[INPUT].dtype == torch.uint8 and found[INPUT].ndim == 4:
            found[INPUT] = found[INPUT].float().div_(255)
        return found

    def _check_labels(self, samples: list[Any], given: Tensor, where: str) -> None:
        """Checks that a collate leaves labels as they are, where they are read from the samples one by one."""
        try:
            own = torch.stack([as_tensor(LABEL, self.fields.label(sample, where), where) for sample in samples])
        except (TutelageError, RuntimeError):  # names of classes, or labels of several lengths
            return
        if given.numel() == own.numel() and not torch.equal(given.flatten().double(), own.flatten().double()):
            raise TutelageError(
                f"data.collate: the labels {given.flatten()[:5].tolist()} … that it gives are not those of its "
                f"samples, in their order, {own.flatten()[:5].tolist()} …; change labels in the dataset, and leave the "
                "order"
            )

    def normalised(self, inputs: Tensor) -> Tensor:
        """Returns (x − mean) / std."""
        if self.mean is None or self.std is None:
            return inputs
        mean, std = self.statistics(inputs)
        return (inputs - mean) / std

    def statistics(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns ``mean`` and ``std``, shaped to broadcast with a batch.

        Raises:
            TutelageError: the input has another number of channels, or is none of floats.
        """
        channels = inputs.shape[1] if inputs.ndim > 1 else 1
        for key, values in (("mean", self.mean), ("std", self.std)):
            if len(values or ()) != channels or not inputs.is_floating_point():
                raise TutelageError(
                    f"data.{key} has {len(values or ())} numbers for inputs {list(inputs.shape[1:])} of "
                    f"{inputs.dtype}; expected {channels}, one a channel, and floats"
                )
        shape = [-1] + [1] * (inputs.ndim - 2)
        return tuple(torch.tensor(list(x or ()), dtype=torch.float32).view(shape) for x in (self.mean, self.std))


def _check_mask(name: str, mask: Tensor, place: Callable[[int], str]) -> None:
    """Refuses a sample without a token, of which networks make numbers that mean nothing, or NaN."""
    if mask.ndim > 1 and (empty := ~mask.bool().flatten(1).any(1)).any():
        raise TutelageError(
            f"{place(int(empty.int().argmax()))}: its {name} is false everywhere; nothing would be learned from it"
        )
