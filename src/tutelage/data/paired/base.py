"""The base of data whose examples have several fields in memory: the image and other modalities of the same thing."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from tutelage.data.examples import Examples, ExampleSet, normalisation
from tutelage.data.labels import checked_labels
from tutelage.data.module import Data
from tutelage.data.order import Request
from tutelage.errors import TutelageError
from tutelage.types import Batch

INPUT = "input"


@dataclass(frozen=True, eq=False)
class Pairs:
    """Examples of several modalities, in the order of their keys.

    Args:
        fields: name → [N, …], among them ``input``.
    """

    fields: Mapping[str, Tensor]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Returns ``input`` of these examples, [B, …]."""
        return self.fields[INPUT].index_select(0, rows)

    def content(self) -> bytes:
        """Returns a digest of all fields."""
        made = hashlib.sha256()
        for name, field in self.fields.items():
            made.update(repr((name, field.dtype, field.shape)).encode())
            made.update(field.contiguous().numpy().tobytes())
        return made.digest()

    def joined(self, others: Sequence[Any]) -> "Pairs":
        """Refuses further examples, of which a field would be missing.

        Raises:
            TutelageError: always.
        """
        raise TutelageError(
            f"data.unlabelled: the examples have the fields {', '.join(self.fields)}, which images alone don't have; "
            "data.labelled leaves labels of the pairs themselves out"
        )


@dataclass(frozen=True, eq=False)
class PairSet(ExampleSet):
    """A subset of the pairs, fetched batch by batch.

    Args:
        examples: all of them; their ``pixels`` are :class:`Pairs`.
        keys: [n] int64, which of them belong to this set; one may come more than once.
    """

    batch_dim: ClassVar[int] = 0
    in_memory: ClassVar[bool] = True

    @property
    def fields(self) -> Mapping[str, Tensor]:
        """Returns the fields of all examples, name → [N, …]."""
        assert isinstance(self.examples.pixels, Pairs)
        return self.examples.pixels.fields

    def moved(self, to: Callable[[Tensor], Tensor]) -> "PairSet":
        """Returns the same set with ``to`` applied to each of its tensors."""
        pairs = Pairs({name: to(field) for name, field in self.fields.items()})
        return PairSet(Examples(pairs, to(self.examples.labels)), to(self.keys))

    def __getitem__(self, request: Request) -> Batch:
        """Returns ``{"input": [B, …], …, "label": [B], "key": [B]}`` for (epoch, indices into this set)."""
        _, indices = request
        keys = self.keys.index_select(0, indices)
        fields = {name: field.index_select(0, keys) for name, field in self.fields.items()}
        return {**fields, "label": self.examples.labels.index_select(0, keys), "key": keys}


class PairedPart(NamedTuple):
    """Pairs of training (with validation) or test.

    Attributes:
        fields: name → [N, …], ``input`` the image with pixels in [0, 1].
        labels: [N] int64.
    """

    fields: dict[str, Tensor]
    labels: Tensor


class PairedData(Data):
    """Examples with an image, ``input``, and other modalities of the same thing in fields of their own.

    Which field a network reads says its ``reads``, such as ``student.reads={input: sound}``; without it, ``input``.

    Args:
        input_shape: (C, H, W) of the image.
        mean: mean of the image's pixels in [0, 1], one number per channel.
        std: the same.
        views: null, as pairs are not augmented.
        **common: arguments of :class:`~tutelage.data.module.Data`.

    Raises:
        TutelageError: an argument is out of range.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("mean", "std")

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        views: None = None,
        **common: Any,
    ):
        super().__init__(**common)
        if views is not None:
            raise TutelageError(f"data.views must be null: pairs are not augmented; found {views}")
        self.input_shape = tuple(input_shape)
        self.normalise = normalisation(self.input_shape, mean, std)

    @abstractmethod
    def pairs(self) -> tuple[PairedPart, PairedPart]:
        """Returns all training pairs, including validation, and the test pairs.

        Raises:
            TutelageError: files are missing or damaged.
        """

    def load(self) -> tuple[Examples, Examples]:
        """Returns all pairs, the images normalised."""
        train, test = (Examples(Pairs(self._normalised(part.fields)), part.labels) for part in self.pairs())
        return train, test

    def _normalised(self, fields: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**fields, INPUT: self.normalise(fields[INPUT].clone())}

    def checked(self, part: str, examples: Examples) -> Examples:
        """Checks labels and the shape of images.

        Raises:
            TutelageError: they contradict the arguments.
        """
        name = f"{self.name} {part}"
        checked_labels(name, examples.labels, self.num_classes, self.num_outputs)
        shape = tuple(examples.pixels[torch.zeros(1, dtype=torch.long)].shape[1:])
        if shape != self.input_shape:
            raise TutelageError(f"{name}: images have shape {list(shape)}; data.input_shape says {[*self.input_shape]}")
        return examples

    def as_set(self, examples: Examples, keys: Tensor) -> PairSet:
        """Returns some of the pairs."""
        return PairSet(examples, keys)

    def pictures(self, inputs: Tensor) -> Tensor:
        """Returns the images [B, C, H, W] in [0, 1], before normalisation."""
        return self.normalise.undone(inputs)
