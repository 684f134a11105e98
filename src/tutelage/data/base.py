"""The base of all image data: pixels, their normalisation and augmentation."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from tutelage.data.augment import Augment, Step
from tutelage.data.derived import Derived
from tutelage.data.examples import Examples, ImageSet, check_images, normalisation, normalised
from tutelage.data.labels import checked_labels, is_class, of_pixels
from tutelage.data.mix import Mix
from tutelage.data.module import Data
from tutelage.data.pixels import MemoryPixels
from tutelage.errors import TutelageError
from tutelage.types import SOFT_LABEL


class ImageData(Data):
    """Images with labels, as batches ``{"input": [B, C, H, W] float32 normalised, "label": [B, …], "key": [B]}``.

    A subclass returns the examples in :meth:`load`.

    Args:
        input_shape: (C, H, W).
        mean: mean of pixels in [0, 1], one number per channel.
        std: the same.
        augment: augmentations (:mod:`tutelage.data.augment`) of training images.
        views: number of augmented views of an example; epoch e uses number e mod views.
        inputs: number of pictures of an example in a training batch, augmented independently: ``input``, ``input2`` …,
            one for each of the networks that learn together (:class:`tutelage.sources.peers.Peers`).
        derived: further fields of a batch, by name, each computed from ``input`` after its augmentation
            (:mod:`tutelage.data.derived`), such as edges for a network with ``reads={input: edges}``.
        mix: mixes training images after their augmentation (:class:`tutelage.data.mix.Mix`); their labels are then the
            field ``soft_label`` [B, C].
        check_finite: whether to refuse NaN and ±∞ in pixels that are floats.
        seed: of the order and the augmentation.
        **common: arguments of :class:`~tutelage.data.module.Data`.

    Raises:
        TutelageError: an argument is out of range; or labels are of pixels, and an augmentation cannot move them.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("mean", "std", "derived")

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        augment: Iterable[Step] | None = None,
        views: int | None = None,
        inputs: int = 1,
        derived: Mapping[str, Derived] | None = None,
        mix: Mix | None = None,
        check_finite: bool = True,
        **common: Any,
    ):
        super().__init__(seed=seed, **common)
        self.input_shape, self.check_finite = tuple(input_shape), check_finite
        self.augment = Augment(augment or [], seed, views) if augment or mix else None
        self.mix = mix
        if mix and inputs > 1:
            raise TutelageError(f"data.mix mixes one picture of an example; data.inputs={inputs} makes several")
        if inputs < 1 or (inputs > 1 and not augment):
            raise TutelageError(
                f"data.inputs must be 1 or more, and more than 1 needs data.augment: pictures of an example would be "
                f"the same; found {inputs}"
            )
        self.inputs, self.derived = inputs, dict(derived or {})
        self._check_derived()
        self.normalise = normalisation(self.input_shape, mean, std)

    def checked(self, part: str, examples: Examples) -> Examples:
        """Checks that labels fit the arguments and that images in memory have the given shape.

        Raises:
            TutelageError: they do not; names the first.
        """
        name = f"{self.name} {part}"
        labels = checked_labels(name, examples.labels, self.num_classes, self.num_outputs)
        if isinstance(examples.pixels, MemoryPixels):
            check_images(name, examples.pixels.images, len(examples), self.input_shape, self.check_finite)
        if self.inputs > 1 and of_pixels(labels):
            raise TutelageError(
                f"data.inputs={self.inputs}: labels of {name} are of pixels, which move with one picture"
            )
        if self.mix and (self.num_classes is None or not is_class(labels)):
            raise TutelageError(
                f"data.mix mixes labels that are one class an example; those of {name} are {list(labels.shape[1:])} "
                f"{'floats' if labels.is_floating_point() else 'integers'}"
            )
        if self.augment and of_pixels(labels):
            self._check_moves(name, labels)
        return replace(examples, labels=labels)

    def as_set(self, examples: Examples, keys: Tensor) -> ImageSet:
        """Returns some of the examples; images in memory are normalised once."""
        if isinstance(examples.pixels, MemoryPixels) and not self.derived:
            return ImageSet(normalised(examples, self.normalise), keys)
        return ImageSet(examples, keys, self.normalise, derived=self.derived)

    def for_training(self, plain: ImageSet, examples: Examples) -> ImageSet:
        """Returns the training set, augmented if configured."""
        if not self.augment:
            return plain
        mix = None if self.mix is None else self.mix.of(plain.keys, plain.labels, self.num_outputs, self.seed)
        return ImageSet(examples, plain.keys, self.normalise, self.augment, self.inputs, self.derived, mix)

    def pictures(self, inputs: Tensor) -> Tensor:
        """Returns the images [B, C, H, W] in [0, 1], before normalisation."""
        return self.normalise.undone(inputs)

    def _check_moves(self, name: str, labels: Tensor) -> None:
        self.augment.check_moves_labels()
        if labels.shape[1:] != self.input_shape[1:]:
            raise TutelageError(
                f"data.augment: labels of {name} are {list(labels.shape[1:])} and images {list(self.input_shape[1:])}; "
                "only labels of each pixel can be moved alike"
            )

    def _check_derived(self) -> None:
        own = ("input", "label", "key", "view", SOFT_LABEL)
        for name, make in self.derived.items():
            if name in own or re.fullmatch(r"input\d+", name):
                raise TutelageError(f"data.derived: {name!r} is a field of its own; give what is derived another name")
            if not callable(make):
                raise TutelageError(
                    f"data.derived.{name}: expected a function of images, such as tutelage.data.derived.Sobel; found "
                    f"{make!r}"
                )
