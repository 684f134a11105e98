"""Draws a soft decision tree: every filter, every leaf's distribution, and the path of one example."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tutelage.evaluation.predictions import eval_mode
from tutelage.models.soft_tree import SoftTree
from tutelage.report.svg import Drawing, data_uri

_SIDE, _LEAST, _STEP = 86.0, 25.0, 105.0  # greatest and least side of a filter; distance of the rings
_APART = 1.45  # distance of neighbours in a ring over their side: upright squares at 45° touch at √2
_BAR, _MARGIN, _HEAD, _STRIP, _ANSWER, _NARROWEST = 64.0, 30.0, 150.0, 235.0, 270.0, 1400.0
_GREYS = 16
_STYLE = (
    "text{font:20px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1a2027}"
    ".title{font-size:30px;font-weight:600}.muted{fill:#59636f}.small{font-size:16px}"
    ".halo{paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}"
    "line,path{stroke-linecap:round;fill:none}.edge{stroke:#9aa5b1}.way{stroke:#b45309}"
    ".frame{fill:none;stroke:#b45309;stroke-width:5}"
    ".right{fill:#183e74}.ends{stroke-width:7;stroke-linecap:butt}.ends.all{stroke:#92b2d8}.ends.right{stroke:#183e74}"
    ".track{fill:#f1f3f6}.unused{opacity:.4}image{image-rendering:pixelated}"
)
_LEGEND = (
    "From the middle outwards: white in a filter sends an image to the right (clockwise), black to the left. "
    "Lines: how many images go there.",
    "At the rim each leaf's most probable class, and a bar of the images that end there, dark if it is right. "
    "Pale: no image gets there.",
)


@dataclass(frozen=True)
class Seen:
    """Results of a tree on a split: each example's leaf, each node's share of examples, accuracy.

    Attributes:
        leaf: [N], each example's leaf of greatest path probability.
        label: labels [N].
        shares: for every node breadth first, leaves included, the share of the examples whose leaf is below it.
        accuracy: accuracy by that leaf, and by the mean of all leaves.
    """

    leaf: Tensor
    label: Tensor
    shares: list[float]
    accuracy: tuple[float, float]


class Ring:
    """Positions of the nodes: the root in the middle, each level a ring, leaves clockwise from the bottom.

    Seen outwards from its parent, a left child is on the left and a right child on the right.

    Args:
        depth: depth of the leaves.
    """

    def __init__(self, depth: int):
        self.depth = depth
        outermost = max(_STEP * (depth - 1), 2 ** (depth - 1) * _LEAST * _APART / math.tau)
        step = outermost / max(depth - 1, 1)
        self.radii = [step * level for level in range(depth)]
        room = [_SIDE, *(math.tau * step * level / 2**level / _APART for level in range(1, depth))]
        self.sides = [min(_SIDE, one) for one in room]
        self.radii.append(max(self.radii[-1] + self.sides[-1] + 14, 2**depth * 18 / math.tau))
        self.size = 2 * (self.radii[-1] + 16 + _BAR + _MARGIN)
        self.width = max(self.size, _NARROWEST)

    def at(self, node: int, further: float = 0.0) -> tuple[float, float]:
        """Returns the position of a node, or a position ``further`` outwards."""
        level = _level(node)
        turn = math.tau * (node + 1 - 2**level + 0.5) / 2**level
        radius = self.radii[level] + further
        return self.width / 2 - radius * math.sin(turn), _HEAD + self.size / 2 + radius * math.cos(turn)


def way(leaf: int, leaves: int) -> list[int]:
    """Returns the nodes from the root to a leaf, by their numbers breadth first."""
    node = leaf + leaves - 1
    found = [node]
    while node:
        node = (node - 1) // 2
        found.append(node)
    return found[::-1]


def grey(filters: Tensor) -> list[str]:
    """Returns filters [n, H, W] as data URIs: white sends to the right, black to the left, mid-grey neither.

    Each is scaled by its own 99th percentile.
    """
    scale = filters.abs().flatten(1).quantile(0.99, dim=1).clamp_min(1e-12)[:, None, None]
    level = ((filters / scale).clamp(-1, 1) + 1) / 2 * (_GREYS - 1)
    made = []
    for one in level.round().byte():
        picture = Image.fromarray(one.numpy(), "P")
        picture.putpalette([value for k in range(_GREYS) for value in [k * 255 // (_GREYS - 1)] * 3])
        made.append(data_uri(picture))
    return made


def tree_picture(
    net: SoftTree, seen: Seen, image: Tensor, pixels: Tensor, label: int, names: Sequence[str], title: str
) -> str:
    """Returns the drawing, a whole SVG document.

    Args:
        net: the tree, on the CPU.
        seen: results on the examples whose shares the lines and bars show.
        image: [C, H, W], normalised: the example whose path is marked.
        pixels: [C, H, W] in [0, 1], the same for display.
        label: its label.
        names: names of the classes.
        title: title of the drawing.
    """
    leaves = len(net.leaves.logits)
    accuracy = f"{100 * seen.accuracy[0]:.2f} % by the most probable leaf, {100 * seen.accuracy[1]:.2f} % by the mean"
    used = sum(share > 0 for share in seen.shares[leaves - 1 :])
    found = f"{leaves - 1} filters, {used} of {leaves} leaves reached; {len(seen.leaf):,} images: {accuracy}"
    drawn = _Picture(net, seen, image, names)
    on = Drawing("tree", drawn.ring.width, _HEAD + drawn.ring.size + _STRIP, title, found)
    on.add("rect", width=on.width, height=on.height, fill="#fff")
    on.text(_MARGIN, 52, title, "title")
    for row, line in enumerate([found, *_LEGEND]):
        on.text(_MARGIN, 88 + 28 * row, line, "muted")
    drawn.edges(on)
    drawn.filters(on)
    drawn.leaves(on)
    drawn.steps(on, pixels, label)
    drawn.answer(on)
    return on.alone(_STYLE)


class _Picture:
    """Shared state of the parts of the drawing: the tree, its counts, and the path of the example."""

    def __init__(self, net: SoftTree, seen: Seen, image: Tensor, names: Sequence[str]):
        self.seen, self.names, self.inner = seen, names, len(net.filters.weight)
        self.ring = Ring((self.inner + 1).bit_length() - 1)
        with eval_mode(net), torch.no_grad():
            activation = net.filters(image.flatten()[None])
            paths = net.paths(activation)[0]
            self.turns_right: list[float] = (net.paths.beta * activation[0]).sigmoid().tolist()
            self.probabilities = net.leaves.logits.softmax(1)
        self.choice = [names[c] for c in self.probabilities.argmax(1).tolist()]
        self.probability, self.leaf = float(paths.max().exp()), int(paths.argmax())
        self.way = way(self.leaf, self.inner + 1)
        self.pictures = grey(net.filters.weight.detach().view(-1, *image.shape).mean(1))

    def edges(self, on: Drawing) -> None:
        """Draws the edges, with a width by their number of examples; those of the path last."""
        shares = self.seen.shares
        ends = {node: (*self.ring.at((node - 1) // 2), *self.ring.at(node)) for node in range(1, len(shares))}
        bare = "".join(f"M{x1:.0f} {y1:.0f}L{x2:.0f} {y2:.0f}" for n, (x1, y1, x2, y2) in ends.items() if not shares[n])
        on.add("path", d=bare, class_="edge unused")
        for node, (x1, y1, x2, y2) in ends.items():
            if shares[node] and node not in self.way:
                on.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="edge", stroke_width=_wide(shares[node]))
        for node in self.way[1:]:
            x1, y1, x2, y2 = ends[node]
            on.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="way", stroke_width=max(4.0, _wide(shares[node])))

    def filters(self, on: Drawing) -> None:
        """Draws the inner nodes, those of the first levels with their classes."""
        for node, picture in enumerate(self.pictures):
            level, share, (x, y) = _level(node), self.seen.shares[node], self.ring.at(node)
            side = self.ring.sides[level]
            box: dict[str, Any] = {"x": x - side / 2, "y": y - side / 2, "width": side, "height": side}
            look = None if share else "unused"
            on.add("image", href=picture, tip=f"{share:.1%} of the images", class_=look, **box)
            if node in self.way:
                on.add("rect", class_="frame", **box)
            if 1 <= level <= 3:
                on.text(x, y + side / 2 + 17, " ".join(self._coming(node)), "small halo", "middle")

    def _coming(self, node: int) -> list[str]:
        """Returns the classes that the tree predicts for at least a twentieth of a node's examples."""
        level = _level(node)
        here = self.seen.leaf[self.seen.leaf >> (self.ring.depth - level) == node + 1 - 2**level]
        counts = self.probabilities.argmax(1)[here].bincount(minlength=len(self.names)).tolist()
        return [name for name, n in zip(self.names, counts, strict=True) if n and n >= len(here) / 20]

    def leaves(self, on: Drawing) -> None:
        """Draws each leaf's most probable class and a bar of its examples, dark for correct ones."""
        leaf, size = self.seen.leaf, len(self.probabilities)
        comes = leaf.bincount(minlength=size).tolist()
        right = leaf[self.probabilities.argmax(1)[leaf] == self.seen.label].bincount(minlength=size).tolist()
        for k, sure in enumerate(self.probabilities.amax(1).tolist()):
            x, y = self.ring.at(self.inner + k)
            tip = f"{self.choice[k]} with {sure:.1%}; {comes[k]} images, {right[k]} right"
            look = "halo" if comes[k] else "halo muted small unused"
            on.add("text", self.choice[k][:2], x=x, y=y + 6, class_=look, text_anchor="middle", tip=tip)
            for count, kind in ((comes[k], "all"), (right[k], "right")):
                if count:
                    x1, y1 = self.ring.at(self.inner + k, 16)
                    x2, y2 = self.ring.at(self.inner + k, 16 + max(2.0, _BAR * count / max(comes)))
                    on.add("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=f"ends {kind}")
        x, y = self.ring.at(self.way[-1])
        on.add("circle", cx=x, cy=y, r=14, class_="frame")

    def steps(self, on: Drawing, pixels: Tensor, label: int) -> None:
        """Draws below the tree the example, and its product with each filter of its path."""
        top, step = _HEAD + self.ring.size, (on.width - 2 * _MARGIN - _ANSWER) / len(self.way)
        side = min(104.0, step - 34)
        box: dict[str, Any] = {"width": side, "height": side, "y": top + 40}
        on.text(_MARGIN, top + 20, f"The most probable path of one example, P =  {self.probability:.3f}", "muted")
        example = data_uri(Image.fromarray((pixels.mean(0) * 255).round().byte().numpy()))
        on.add("image", href=example, x=_MARGIN, **box)
        on.text(_MARGIN, top + side + 66, f"true: {self.names[label]}", "small")
        for place, (node, after) in enumerate(pairwise(self.way), start=1):
            x, right = _MARGIN + place * step, self.turns_right[node]
            turn = f"right {right:.3f}" if after == 2 * node + 2 else f"left {1 - right:.3f}"
            on.text(x - step + side + 6, top + 46 + side / 2, "→", "muted")
            on.add("image", href=self.pictures[node], x=x, **box)
            on.text(x, top + side + 66, turn, "small")

    def answer(self, on: Drawing) -> None:
        """Draws beside the steps the leaf's most probable classes, ten at most."""
        x, top = on.width - _MARGIN - _ANSWER + 20, _HEAD + self.ring.size + 24
        probabilities = self.probabilities[self.leaf]
        for row, c in enumerate(sorted(probabilities.topk(min(10, len(self.names))).indices.tolist())):
            y, p = top + 19 * row, float(probabilities[c])
            on.text(x + 40, y + 14, self.names[c][:6], "small", "end")
            on.add("rect", x=x + 48, y=y + 1, width=150, height=14, class_="track")
            on.add("rect", x=x + 48, y=y + 1, width=150 * p, height=14, class_="right")
            on.text(x + 204, y + 14, f"{p:.3f}", "small")


def _level(node: int) -> int:
    return (node + 1).bit_length() - 1


def _wide(share: float) -> float:
    return 0.7 + 9 * math.sqrt(share)
