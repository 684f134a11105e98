"""Makes the random numbers of users' transforms and datasets a function of (seed, view, key)."""

import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tutelage import seeding
from tutelage.data.fields import INPUT, LABEL
from tutelage.errors import TutelageError
from tutelage.runtime import devices


@contextmanager
def own_generators() -> Iterator[None]:
    """Context manager that restores the states of Python's, NumPy's and torch's global generators."""
    states = global_states()
    try:
        yield
    finally:
        set_global_states(states)


def global_states() -> tuple[Any, Any, Tensor]:
    """Returns the states of Python's, NumPy's and torch's global generators."""
    return random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002


def set_global_states(states: tuple[Any, Any, Tensor]) -> None:
    """Restores the states of Python's, NumPy's and torch's global generators."""
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])


def seed_generators(*parts: int | str) -> int:
    """Seeds Python's, NumPy's and torch's global generators with a function of ``parts``; returns 32 bits of it."""
    seed = seeding.derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    return seed & 0xFFFFFFFF


@dataclass(frozen=True)
class Views:
    """Views of examples of which an epoch has several: example i of a batch is seen in view ``numbers[turns[i]]``.

    Args:
        numbers: of the views, on the host, so that no device is waited for.
        turns: [B] int64.
    """

    numbers: Sequence[int]
    turns: Tensor

    def __getitem__(self, rows: Tensor) -> "Views":
        return Views(self.numbers, self.turns[rows])


def drawn(seed: int, what: str, keys: Tensor, view: int | Views, count: int) -> Tensor:
    """Returns random numbers [B, count] in [0, 1) for ``what``; a row is a function of (seed, view, key) alone.

    Args:
        seed: the run's.
        what: they are for.
        keys: [B] int64.
        view: of all, or of each example.
        count: how many an example gets.
    """
    if isinstance(view, int):
        return seeding.uniform(seeding.derive_seed(seed, what, view), keys, count)
    seeds = [seeding.derive_seed(seed, what, number) for number in view.numbers]
    if devices.waits(keys.device):  # which examples are of a view is not known here
        places = torch.arange(len(keys), device=keys.device)
        return torch.stack([seeding.uniform(one, keys, count) for one in seeds])[view.turns, places]
    found = torch.empty(len(keys), count)
    for turn, one in enumerate(seeds):
        rows = view.turns == turn
        found[rows] = seeding.uniform(one, keys[rows], count)
    return found


@dataclass(frozen=True)
class Chance:
    """Chooses the view of an example that an epoch uses.

    Args:
        seed: the run's.
        views: number of views of an example; None: no limit.
        times: how often each example occurs in an epoch.

    Raises:
        TutelageError: there is no view.
    """

    seed: int
    views: int | None = None
    times: int = 1

    def __post_init__(self) -> None:
        if self.views is not None and self.views < 1:
            raise TutelageError(f"data.views must be at least 1, or null; found {self.views}")

    def with_seed(self, seed: int) -> "Chance":
        """Returns the same with another seed."""
        return Chance(seed, self.views, self.times)

    def view(self, epoch: int, turn: int = 0) -> int:
        """Returns the number of the view of an example in an epoch, at its ``turn``-th occurrence."""
        view = epoch * self.times + turn
        return view % self.views if self.views else view


Transform = Callable[..., Any]


class Transforms:
    """Applies a user's transforms one after the other to the fields of a sample, before these are tensors.

    They are called as ``transform(input)``, as torchvision's and timm's; as
    ``transform(image=array)["image"]``, as albumentations', if a transform takes keyword arguments only; with several
    fields if ``fields`` lists them. torchvision's of version 2 then move a label of pixels as they move the image.

    Args:
        steps: one or several.
        fields: null: the input; a list: positional arguments, returning a tuple; a dict, argument → field: by name.
        key: key of the config, for messages.

    Raises:
        TutelageError: a step is not callable.
    """

    def __init__(
        self,
        steps: Transform | Sequence[Transform],
        fields: Sequence[str] | Mapping[str, str] | None = None,
        key: str = "data.transform",
    ):
        self.steps: list[Transform] = list(steps) if isinstance(steps, list | tuple) else [steps]  # type: ignore[list-item]
        self.fields, self.key = fields, key
        for step in self.steps:
            if not callable(step):
                raise TutelageError(f"{key}: {type(step).__name__} is not callable")
        self._by_name = [isinstance(fields, Mapping) or _takes_names_alone(step) for step in self.steps]

    def __call__(self, sample: Mapping[str, Any], seed: int, where: str) -> dict[str, Any]:
        """Returns the changed fields.

        Args:
            sample: all fields.
            seed: 32 bits, for a transform with its own generators (``set_random_seed``).
            where: the sample, for messages.

        Raises:
            TutelageError: a transform fails.
        """
        names = self.fields if isinstance(self.fields, Mapping) else None
        chosen = list(names.values() if names else self.fields or ["input"])
        if missing := [field for field in chosen if field not in sample]:
            raise TutelageError(f"{self.key}: {where} has no field {missing[0]!r}; it has {', '.join(sample)}")
        values = {field: sample[field] for field in chosen}
        for step, by_name in zip(self.steps, self._by_name, strict=True):
            if callable(reseed := getattr(step, "set_random_seed", None)):
                reseed(seed)
            try:
                values = _named(step, values, names or {"image": "input"}) if by_name else _called(step, values)
            except Exception as error:  # it is anyone's
                given = ", ".join(f"{field} {_kind(value)}" for field, value in values.items())
                raise TutelageError(
                    f"{self.key}: {type(step).__name__} of {where} ({given}) failed: {error}"
                ) from error
        return values


def _called(step: Transform, values: dict[str, Any]) -> dict[str, Any]:
    given = values
    if LABEL in values and _knows_masks(step):
        given = values | {name: _marked(name, values[name]) for name in (INPUT, LABEL) if name in values}
    made = step(*given.values())
    return dict(zip(values, made if len(values) > 1 else [made], strict=True))


def _knows_masks(step: Transform) -> bool:
    """Checks for a transform of torchvision.transforms.v2, which moves labels only where their type says mask."""
    return any(one.__module__.startswith("torchvision.transforms.v2") for one in type(step).__mro__)


def _marked(field: str, value: Any) -> Any:
    """Returns labels of pixels as torchvision's Mask, and an array that is an image as its Image."""
    from torchvision import tv_tensors
    from torchvision.transforms.v2 import functional

    if field == INPUT:
        return functional.to_image(value) if isinstance(value, np.ndarray) and value.ndim > 1 else value
    if isinstance(value, Image.Image):
        value = np.array(value)
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    plain = isinstance(value, Tensor) and not isinstance(value, tv_tensors.TVTensor) and value.ndim > 1
    return tv_tensors.Mask(value) if plain else value


def _named(step: Transform, values: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    made = step(**{name: _as_array(values[field]) for name, field in names.items()})
    return {field: made[name] for name, field in names.items()}


def _as_array(value: Any) -> Any:
    if isinstance(value, Image.Image):
        return np.array(value)
    if isinstance(value, Tensor):
        return value.permute(1, 2, 0).numpy() if value.ndim == 3 else value.numpy()
    return value


def _takes_names_alone(step: Transform) -> bool:
    """Checks for albumentations' way of being called: nothing is taken by position but what it ignores."""
    try:
        found = inspect.signature(step.forward if isinstance(step, nn.Module) else step).parameters.values()
    except (TypeError, ValueError):
        return False
    by_place = any(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in found)
    by_name = any(
        one.kind == one.VAR_KEYWORD or (one.kind == one.KEYWORD_ONLY and one.name == "image") for one in found
    )
    return by_name and not by_place


def _kind(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray):
        return f"{list(value.shape)} {value.dtype}"
    return f"{value.mode} {value.size}" if isinstance(value, Image.Image) else type(value).__name__
