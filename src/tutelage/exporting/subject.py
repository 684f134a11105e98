"""A network as a file of another format takes it: fields of a batch in a fixed order, in eval mode, on the CPU."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.exporting.quantised import exportable
from tutelage.models.tapped import arguments, run
from tutelage.types import Batch, is_shared

PIXELS = ("unit", "bytes")


class FromPixels(nn.Module):
    """Normalises raw pixels: (x / scale − mean) / std by channel.

    Args:
        kind: ``unit``: floats from 0 to 1; ``bytes``: uint8 from 0 to 255.
        mean: of pixels in [0, 1], one number a channel.
        std: the same.

    Raises:
        TutelageError: another kind.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, kind: str, mean: list[float], std: list[float]):
        super().__init__()
        if kind not in PIXELS:
            raise TutelageError(f"preprocess must be null, {' or '.join(PIXELS)}; found {kind!r}")
        self.kind = kind
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the normalised images [B, C, H, W] of raw ones."""
        shares = pixels.float() / 255 if self.kind == "bytes" else pixels
        return (shares - self.mean) / self.std

    def undone(self, images: Tensor) -> Tensor:
        """Returns the raw pixels of normalised images; of bytes the nearest."""
        shares = images * self.std + self.mean
        return (shares * 255).round().clamp(0, 255).to(torch.uint8) if self.kind == "bytes" else shares


class Entrance(nn.Module):
    """A network that takes the fields of a batch in order and returns its logits.

    Args:
        net: the network.
        fields: names of the fields, in the order of the arguments.
        pixels: makes ``input`` of raw pixels; None: it comes normalised.
    """

    def __init__(self, net: nn.Module, fields: list[str], pixels: FromPixels | None):
        super().__init__()
        self.net, self.fields, self.pixels = net, fields, pixels

    def forward(self, *values: Tensor) -> Tensor:
        """Returns logits [B, …, C] of the fields [B, …]."""
        batch = dict(zip(self.fields, values, strict=True))
        if self.pixels is not None:
            batch["input"] = self.pixels(batch["input"])
        logits: Tensor = run(self.net, batch)
        return logits


@dataclass(frozen=True, eq=False)
class Subject:
    """The network that is exported, with what describes it.

    Attributes:
        net: in eval mode, on the CPU.
        example: the fields that it reads → two rows each, without a storage that they share with more.
        pixels: makes ``input`` of raw pixels within the file; None: it comes normalised.
        about: what a file says of itself: network, names of classes, normalisation, task.
        header: of the file of weights that it comes from.
        reload: path of a file of weights in our format → the network.
        texts: whether fields are token ids, whose second axis has any length.
    """

    net: nn.Module
    example: dict[str, Tensor]
    pixels: FromPixels | None
    about: dict[str, Any]
    header: Mapping[str, Any]
    reload: Callable[[Path], nn.Module]
    texts: bool

    @property
    def entrance(self) -> Entrance:
        """Returns the network as a program takes it."""
        return Entrance(exportable(self.net), [*self.example], self.pixels).eval()

    def arguments(self, batch: Batch) -> tuple[Tensor, ...]:
        """Returns the arguments of :attr:`entrance` for a batch of the data."""
        values = {name: batch[name].clone() for name in self.example}
        if self.pixels is not None:
            values["input"] = self.pixels.undone(values["input"])
        return tuple(values.values())

    def axes(self) -> list[dict[int, str]]:
        """Returns for each argument the axes of any length, by number, with their names."""
        return [
            {0: "batch", 1: "length"} if self.texts and x.ndim == 2 and not x.is_floating_point() else {0: "batch"}
            for x in self.example.values()
        ]


def fields_of(net: nn.Module, sample: Batch) -> dict[str, Tensor]:
    """Returns the fields of two examples that a network reads, in the order of its arguments.

    ``torch.export`` writes the whole storage of an example with its program: so they are copies.

    Raises:
        TutelageError: it reads something of the whole batch, such as a graph, which a file can't take.
    """
    positional, named = arguments(net, sample)
    read = [*positional, *named.values()]
    found = {name: x for name, x in sample.items() if any(x is one for one in read)}
    if shared := [name for name in found if is_shared(name) or name == "key"]:
        raise TutelageError(
            f"{type(net).__name__} computes its answers from the whole data ({', '.join(shared)}): it can't be "
            "exported or asked about single examples"
        )
    ordered = [next(name for name, x in found.items() if x is one) for one in read]
    return {name: found[name][:2].clone() for name in ordered}
