"""Converts samples of a user's dataset to the named tensors of a batch."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutelage.data.pil_images import eight_bit
from tutelage.errors import TutelageError, nearest

INPUT, LABEL = "input", "label"
_OURS = ("key", "view")  # fields of a batch that identify the example
_USUAL = {
    INPUT: ("input", "image", "img", "inputs", "pixel_values", "x", "data"),
    LABEL: ("label", "labels", "target", "targets", "y", "fine_label", "class"),
}
_CHANNELS = (1, 3, 4)


class Fields:
    """Maps the parts of a sample to the fields of the batch.

    Args:
        places: field → key of a dict, attribute of a dataclass, or position in a tuple. Without it a tuple is (input,
            label); for a dict the usual names are recognised, and other numeric entries keep their names.

    Raises:
        TutelageError: a field is named ``key`` or ``view``, or there is no ``input``.
    """

    def __init__(self, places: Mapping[str, Hashable] | None = None):
        self.places = None if places is None else {str(field): place for field, place in places.items()}
        if self.places is not None:
            if INPUT not in self.places:
                raise TutelageError(f"data.fields needs a field 'input'; found {', '.join(self.places) or 'none'}")
            if LABEL not in self.places and (near := get_close_matches(LABEL, self.places, 1, 0.7)):
                raise TutelageError(f"data.fields: {near[0]!r}: did you mean {LABEL!r}?")
        self._refuse_ours(self.places or ())

    def pick(self, sample: Any, where: str) -> dict[str, Any]:
        """Returns the fields of a sample as they are; without ``label`` if it has none.

        Args:
            sample: a tuple, dict, dataclass, or an input alone.
            where: the sample, for messages.

        Raises:
            TutelageError: a field is missing; lists the existing ones.
        """
        parts = entries(sample)
        if self.places is None:
            return self._usual(parts, where)
        wanted = {field: place for field, place in self.places.items() if field != LABEL or place in parts}
        return {field: self._at(parts, place, field, where) for field, place in wanted.items()}

    def label(self, sample: Any, where: str) -> Any:
        """Returns the label of a sample.

        Raises:
            TutelageError: it has none.
        """
        parts = entries(sample)
        return self._at(parts, self.label_place(parts), LABEL, where)

    def label_place(self, entries: Mapping[Hashable, Any]) -> Hashable:
        """Returns the key or position of the label among these entries of a sample."""
        if self.places is not None:
            return self.places.get(LABEL, 1 if 0 in entries else LABEL)
        return 1 if 0 in entries else next((name for name in _USUAL[LABEL] if name in entries), LABEL)

    def put(self, sample: Any, fields: Mapping[str, Any], where: str) -> Any:
        """Returns the sample with other values of some of its fields."""
        parts = entries(sample)
        places = self.places or {field: self._place(parts, field) for field in fields}
        changed = {places[field]: value for field, value in fields.items()}
        if isinstance(sample, Mapping):
            return {**sample, **changed}
        if dataclasses.is_dataclass(sample) and not isinstance(sample, type):
            return dataclasses.replace(sample, **changed)  # type: ignore[arg-type]
        values = [changed.get(i, changed.get(place, value)) for i, (place, value) in enumerate(parts.items())]
        return values[0] if not isinstance(sample, tuple | list) else type(sample)(values)

    def _place(self, entries: Mapping[Hashable, Any], field: str) -> Hashable:
        if 0 in entries:
            return {INPUT: 0, LABEL: 1}[field]
        return next((name for name in _USUAL.get(field, ()) if name in entries), field)

    def _usual(self, entries: Mapping[Hashable, Any], where: str) -> dict[str, Any]:
        if 0 in entries:
            return {INPUT: entries[0], **({LABEL: entries[1]} if 1 in entries else {})}
        named = {field: self._place(entries, field) for field in (INPUT, LABEL)}
        found = {INPUT: self._at(entries, named[INPUT], INPUT, where)}
        if named[LABEL] in entries:
            found[LABEL] = entries[named[LABEL]]
        others = {str(name): value for name, value in entries.items() if name not in named.values()}
        self._refuse_ours(others)
        return found | {name: value for name, value in others.items() if is_numeric(value)}

    def _at(self, entries: Mapping[Hashable, Any], place: Hashable, field: str, where: str) -> Any:
        if place in entries:
            return entries[place]
        known = ", ".join(map(repr, entries))
        hint = nearest(str(place), map(str, entries)) if isinstance(place, str) else f"known: {known}"
        raise TutelageError(
            f"{where} has no {place!r}, which is to be its field {field!r}: {hint} "
            f"(data.fields={{{INPUT}: …, {LABEL}: …}} says which is which)"
        )

    def _refuse_ours(self, names: Any) -> None:
        if taken := [name for name in _OURS if name in names]:
            raise TutelageError(
                f"data.fields: {taken[0]!r} is Tutelage's own field of a batch; give yours another name, such as "
                f"data.fields={{…, my_{taken[0]}: {taken[0]}}}"
            )


def entries(sample: Any) -> dict[Hashable, Any]:
    """Returns the parts of a sample by key, attribute or position."""
    if isinstance(sample, Mapping):
        return dict(sample)
    if dataclasses.is_dataclass(sample) and not isinstance(sample, type):
        return {field.name: getattr(sample, field.name) for field in dataclasses.fields(sample)}
    if isinstance(sample, tuple) and (names := getattr(type(sample), "__match_args__", ())):  # a named tuple
        return dict(zip(names, sample, strict=True)) | dict(enumerate(sample))
    return dict(enumerate(sample)) if isinstance(sample, tuple | list) else {0: sample}


def is_numeric(value: Any) -> bool:
    """Checks whether a value can be a tensor."""
    if isinstance(value, list | tuple):
        return bool(value) and all(is_numeric(one) for one in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return isinstance(value, Tensor | np.number | np.bool_ | int | float | Image.Image)


def as_tensor(name: str, value: Any, where: str) -> Tensor:
    """Returns a field's value as a tensor.

    Images become [C, H, W] with levels from 0 to 1: PIL images, and in the field ``input`` uint8 of three
    dimensions (a tensor [C, H, W]; an array [H, W, C] or [C, H, W]) or an array [H, W] of uint8. Other floats become
    float32, everything else is unchanged.

    Raises:
        TutelageError: it is none of these.
    """
    if isinstance(value, Image.Image):
        try:
            value = eight_bit(value)
        except ValueError as error:
            raise TutelageError(f"{where}: the field {name!r} is no plain picture: {error}") from error
        mode = value.mode if value.mode in ("L", "RGB") else "RGB"
        return _levels(_channels_first(np.array(value if value.mode == mode else value.convert(mode))))
    if isinstance(value, np.ndarray):
        if name == INPUT and value.dtype == np.uint8 and value.ndim in (2, 3):
            value = _channels_first(value)
        elif value.dtype.kind in "biuf":
            value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, list | tuple | int | float | np.number | np.bool_) and is_numeric(value):
        try:
            value = torch.tensor(value)
        except (ValueError, TypeError) as error:
            raise TutelageError(f"{where}: the field {name!r} is no tensor: {error}") from error
    if not isinstance(value, Tensor):
        shown = f"{value!r:.40}" if isinstance(value, str | type(None)) else f"of {type(value).__name__}"
        raise TutelageError(
            f"{where}: the field {name!r} is {shown}; expected a tensor, an array, a number or a PIL image"
        )
    value = value.detach().as_subclass(Tensor)  # torchvision has subclasses
    if name == INPUT and value.dtype == torch.uint8 and value.ndim == 3:
        return _levels(value)
    return value.float() if value.is_floating_point() else value


def _channels_first(pixels: np.ndarray) -> Tensor:
    if pixels.ndim == 2:
        return torch.from_numpy(pixels)[None]
    last = pixels.shape[-1] in _CHANNELS and pixels.shape[0] not in _CHANNELS
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1) if last else pixels))


def _levels(pixels: Tensor) -> Tensor:
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def stacked(samples: Sequence[Mapping[str, Tensor]], place: Callable[[int], str]) -> dict[str, Tensor]:
    """Stacks samples to one tensor per field.

    Args:
        samples: fields of each.
        place: position in ``samples`` → what errors call that sample.

    Raises:
        TutelageError: two samples have other fields or shapes; names them.
    """
    first, made = samples[0], {}
    for i, sample in enumerate(samples):
        if sample.keys() != first.keys():
            odd = sorted(sample.keys() ^ first.keys())
            raise TutelageError(f"{place(0)} and {place(i)} differ in their fields: {', '.join(odd)}")
        for name, value in sample.items():
            if value.shape != first[name].shape or value.dtype != first[name].dtype:
                raise TutelageError(
                    f"{name!r} is {_kind(first[name])} in {place(0)} and {_kind(value)} in {place(i)}; make them alike "
                    "(data.transform), or say how a batch is made of them (data.collate)"
                )
    for name in first:
        made[name] = torch.stack([sample[name] for sample in samples])
    return made


def _kind(value: Tensor) -> str:
    return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
