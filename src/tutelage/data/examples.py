"""Labelled images, in memory or in files, and the dataset that makes batches of them."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from tutelage import seeding
from tutelage.data.augment import Augment, Pixels
from tutelage.data.chance import Views
from tutelage.data.derived import Derived
from tutelage.data.floats import finished
from tutelage.data.labels import is_class, of_pixels
from tutelage.data.mix import Mixing
from tutelage.data.order import Request, Unfinished
from tutelage.data.pixels import JoinedPixels, MemoryPixels, digest
from tutelage.errors import TutelageError
from tutelage.types import SOFT_LABEL, Batch


@dataclass(frozen=True, eq=False)
class Normalise:
    """Computes (image − mean) / std by channel, in place.

    Args:
        mean: [C, 1, 1].
        std: [C, 1, 1].
    """

    mean: Tensor
    std: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """Normalises [..., C, H, W] in place and returns it."""
        return images.sub_(self.mean).div_(self.std)

    def undone(self, images: Tensor) -> Tensor:
        """Returns [B, C, H, W] as before normalisation, within [0, 1]."""
        return (images * self.std + self.mean).clamp(0, 1)


def normalisation(input_shape: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> Normalise:
    """Returns the normalisation of images [C, H, W] from ``data.mean`` and ``data.std``.

    Raises:
        TutelageError: the shape is none of an image, or there is not one number a channel, above 0 for ``std``.
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise TutelageError(f"data.input_shape must be [channels, height, width]; found {list(input_shape)}")
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != input_shape[0]:
            raise TutelageError(f"data.{key} needs {input_shape[0]} numbers, one a channel; found {list(values)}")
    if min(std) <= 0:
        raise TutelageError(f"data.std must be above 0; found {list(std)}")
    return Normalise(*(torch.tensor([*x], dtype=torch.float32)[:, None, None] for x in (mean, std)))


@dataclass(frozen=True, eq=False)
class Examples:
    """Images with their labels.

    Args:
        pixels: N images.
        labels: [N, …] as in :mod:`tutelage.data.labels`, integers of any type.
    """

    pixels: Pixels
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> bytes:
        """Returns a digest of all images and labels."""
        labels = self.labels if self.labels.is_floating_point() else self.labels.long()
        kind = b"" if is_class(labels) else repr((labels.dtype, labels.shape)).encode()
        return hashlib.sha256(self.pixels.content() + kind + digest(labels)).digest()


@dataclass(frozen=True, eq=False)
class ExampleSet(Dataset[Batch]):
    """A subset of the examples; subclasses fetch its batches.

    Args:
        examples: all of them.
        keys: [n] int64, which of them belong to this set; one may come more than once.
    """

    examples: Examples
    keys: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def labels(self) -> Tensor:
        """Returns the labels [n, …] by index in this set; zeros or −100 where labels come with the samples."""
        return self.examples.labels.index_select(0, self.keys)


@dataclass(frozen=True, eq=False)
class ImageSet(ExampleSet):
    """A subset of images, fetched batch by batch.

    Args:
        examples: all of them.
        keys: [n] int64, which of them belong to this set; one may come more than once.
        normalise: normalisation, applied last; None if pixels are normalised already.
        augment: augmentation, applied first.
        inputs: number of pictures of an example in a batch, each augmented independently.
        derived: further fields, by name, each computed from the augmented images before they are normalised.
        mix: mixes each augmented image with another one; needs ``augment``.
        times: how often the examples are repeated in ``keys``.
    """

    normalise: Normalise | None = None
    augment: Augment | None = None
    inputs: int = 1
    derived: Mapping[str, Derived] = field(default_factory=dict)
    mix: Mixing | None = None
    times: int = 1
    batch_dim: ClassVar[int] = 0

    @property
    def in_memory(self) -> bool:
        """Checks whether the images are in one tensor."""
        return isinstance(self.examples.pixels, MemoryPixels)

    def moved(self, to: Callable[[Tensor], Tensor]) -> "ImageSet":
        """Returns the same set with ``to`` applied to each of its tensors; for images in memory."""
        assert isinstance(self.examples.pixels, MemoryPixels)
        examples = Examples(MemoryPixels(to(self.examples.pixels.images)), to(self.examples.labels))
        normalise = self.normalise and Normalise(to(self.normalise.mean), to(self.normalise.std))
        mix = self.mix and self.mix.moved(to)
        return ImageSet(examples, to(self.keys), normalise, self.augment, self.inputs, self.derived, mix, self.times)

    def repeated(self, times: int) -> "ImageSet":
        """Returns a set with every example ``times`` times, each time in another view."""
        return replace(self, keys=self.keys.repeat(times), times=times)

    def __getitem__(self, request: Request) -> Batch:
        """Returns ``{"input": [B, C, H, W] float32, "label": [B, …], "key": [B]}`` for (epoch, indices into this set).

        Augmented images also say which ``view`` [B] they are. Further pictures of the examples are ``input2`` ….
        Derived fields have their own names. Mixed images have ``soft_label`` [B, C].
        """
        epoch, indices = request
        keys = self.keys.index_select(0, indices)
        labels = self.examples.labels.index_select(0, keys)
        view = {}
        more: dict[str, Tensor] = {}
        # Parts of files are normalised one by one, unless something else reads them before.
        early = self.normalise if self.augment and self.augment.crops and not (self.mix or self.derived) else None
        if self.augment:
            number = self._view(self.augment, epoch, indices)
            view = {"view": _numbers(number, keys)}
            images, *others = self._pictures(self.augment, keys, number, early, isinstance(request, Unfinished))
            more = {f"input{place}": picture for place, picture in enumerate(others, 2)}
            if of_pixels(labels):
                labels = self.augment.move_labels(labels, keys, number)
            if self.mix:
                chance = self.mix.chance(keys, number)
                partners = self.mix.partners(labels, chance)
                other = self.augment.read(self.examples.pixels, partners, number)
                theirs = self.examples.labels.index_select(0, partners)
                images, labels, more[SOFT_LABEL] = self.mix(images, other, labels, theirs, chance)
        else:
            images = self.examples.pixels[keys]
        made = {name: make(images) for name, make in self.derived.items()}
        if self.normalise and not early:
            images = self.normalise(images)
            more |= {name: self.normalise(more[name]) for name in more if name != SOFT_LABEL}
        return {"input": images, "label": labels, "key": keys, **view, **more, **made}

    def _view(self, augment: Augment, epoch: int, indices: Tensor) -> int | Views:
        """The view of an epoch; where examples are repeated in it, that of each."""
        if self.times == 1:
            return augment.view(epoch)
        numbers = [augment.view(epoch * self.times + turn) for turn in range(self.times)]
        return Views(numbers, indices // (len(self.keys) // self.times))

    def finished(self, batch: Batch) -> Batch:
        """Returns a batch with pictures of bytes as normalised floats."""
        return {name: self._finished(x) if x.dtype == torch.uint8 else x for name, x in batch.items()}

    def _finished(self, images: Tensor) -> Tensor:
        return finished(images, torch.empty(images.shape), self.normalise)

    def _pictures(
        self, augment: Augment, keys: Tensor, view: int | Views, early: Normalise | None, unfinished: bool
    ) -> Iterator[Tensor]:
        ways = [augment, *(augment.further(place) for place in range(2, self.inputs + 1))]
        if augment.crops:
            return (way.read(self.examples.pixels, keys, view, early, bool(early) and unfinished) for way in ways)
        images = self.examples.pixels[keys]  # read once for all of them
        return (way(images, keys, view) for way in ways)


def _numbers(view: int | Views, keys: Tensor) -> Tensor:
    """Returns the number of the view of each example [B]."""
    if isinstance(view, int):
        return torch.full_like(keys, view)
    found = torch.zeros_like(keys)
    for turn, number in enumerate(view.numbers):  # no tensor of the numbers, which would be copied to a device
        found = torch.where(view.turns == turn, number, found)
    return found


def normalised(examples: Examples, normalise: Normalise) -> Examples:
    """Returns the examples with pixels as normalised float32 in memory."""
    pixels = examples.pixels[torch.arange(len(examples))]
    return replace(examples, pixels=MemoryPixels(normalise(pixels)))


@runtime_checkable
class Joinable(Protocol):
    """Pixels that can be concatenated with others."""

    def joined(self, others: Sequence[Any]) -> Any:
        """Returns these and all of ``others``, concatenated."""


def joined(parts: Sequence[Examples]) -> Examples:
    """Concatenates examples, in memory if all parts are."""
    labels = torch.cat([part.labels for part in parts])
    pixels = [part.pixels for part in parts]
    if isinstance(first := pixels[0], Joinable):
        return Examples(first.joined(pixels[1:]), labels)
    images = [one.images for one in pixels if isinstance(one, MemoryPixels)]
    if len(images) < len(parts):
        return Examples(JoinedPixels(tuple(pixels), tuple(len(part) for part in parts)), labels)
    if len({one.dtype for one in images}) > 1:
        images = [part.pixels[torch.arange(len(part))] for part in parts]
    return Examples(MemoryPixels(torch.cat(images)), labels)


def divide(count: int, size: float, key: str, *parts: int | str) -> tuple[Tensor, Tensor]:
    """Splits 0 … count − 1 at random, as a function of ``parts``.

    Args:
        count: number of examples.
        size: number (below 1: fraction) of examples to take.
        key: key of ``size`` in the config, for messages.
        parts: see :func:`tutelage.seeding.derive_seed`.

    Returns:
        The remaining and the taken indices, each in ascending order.

    Raises:
        TutelageError: ``size`` takes none or all, or is not an integer.
    """
    taken = size if size >= 1 else round(size * count, 0)
    if not (0 < taken < count and float(taken).is_integer()):
        if count < 2:
            raise TutelageError(f"{key}={size} of {count} examples: at least two are needed")
        share = f" takes {taken:g} of them" if size < 1 else ""
        raise TutelageError(
            f"{key}={size} of {count} examples{share}: expected a whole number from 1 to {count - 1}, or a fraction "
            "that takes as many"
        )
    order = torch.randperm(count, generator=seeding.generator(*parts))
    return order[int(taken) :].sort().values, order[: int(taken)].sort().values


def check_images(name: str, images: Tensor, count: int, shape: tuple[int, ...], finite: bool) -> None:
    """Refuses images that are not what the config says.

    Raises:
        TutelageError: names the type, the count, the shape or the first index that is not finite.
    """
    if images.dtype not in (torch.uint8, torch.float32):
        raise TutelageError(f"{name}: images must be uint8 or float32; found {images.dtype}")
    if len(images) != count:
        raise TutelageError(f"{name}: {len(images)} images but {count} labels")
    if tuple(images.shape[1:]) != shape:
        raise TutelageError(f"{name}: images have shape {list(images.shape[1:])}; input_shape says {list(shape)}")
    if finite and images.is_floating_point():
        bad = (~images.isfinite().flatten(1).all(1)).nonzero()
        if len(bad):
            raise TutelageError(f"{name}: the image at index {int(bad[0])} is not finite ({len(bad)} are not)")
