"""Nodes of a graph as examples: their split, and batches that hold the graph beside them."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tutelage import seeding
from tutelage.data.examples import Examples, ExampleSet, divide
from tutelage.data.graph.files import read_graph
from tutelage.data.graph.graph import Graph
from tutelage.data.labels import checked_labels
from tutelage.data.module import Data
from tutelage.data.order import Request
from tutelage.errors import TutelageError
from tutelage.types import NO_LABEL, Batch

_UNLABELLED = ("val", "test")
_TESTED = ("held_out", "observed")


@dataclass(frozen=True, eq=False)
class Nodes:
    """Some nodes of a graph, in the order of their keys.

    Args:
        graph: which they are of.
        place: [n] int64, the number of each in the graph.
    """

    graph: Graph
    place: Tensor

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Returns features [B, F] float32."""
        return self.graph.features.index_select(0, self.place.index_select(0, rows))

    def content(self) -> bytes:
        """Returns a digest of the graph and of which nodes these are."""
        return hashlib.sha256(self.graph.content() + self.place.numpy().tobytes()).digest()

    def joined(self, others: Sequence["Nodes"]) -> "Nodes":
        """Returns these nodes followed by others of the same graph."""
        return replace(self, place=torch.cat([self.place, *(other.place for other in others)]))


@dataclass(frozen=True, eq=False)
class NodeSet(ExampleSet):
    """A subset of the nodes, fetched batch by batch.

    Args:
        examples: all of them; their ``pixels`` are :class:`Nodes`.
        keys: [n] int64, which of them belong to this set; one may come more than once.
    """

    batch_dim: ClassVar[int] = 0
    in_memory: ClassVar[bool] = True

    @property
    def nodes(self) -> Nodes:
        """Returns the nodes of all examples."""
        assert isinstance(self.examples.pixels, Nodes)
        return self.examples.pixels

    def moved(self, to: Callable[[Tensor], Tensor]) -> "NodeSet":
        """Returns the same set with ``to`` applied to each of its tensors."""
        nodes = Nodes(self.nodes.graph.moved(to), to(self.nodes.place))
        return NodeSet(Examples(nodes, to(self.examples.labels)), to(self.keys))

    def __getitem__(self, request: Request) -> Batch:
        """Returns a batch of B nodes for (epoch, indices into this set).

        ``{"input": [B, F] float32, "label": [B], "key": [B], "node": [B]}``, and of the whole graph ``graph.edges``
        [2, E], ``graph.columns`` [Z], ``graph.offsets`` [N] and ``graph.values`` [Z]
        (:class:`~tutelage.data.graph.graph.Graph`). ``node`` is the number of each node in this graph.
        """
        _, indices = request
        keys = self.keys.index_select(0, indices)
        batch = {"input": self.nodes[keys], "label": self.examples.labels.index_select(0, keys), "key": keys}
        return {**batch, "node": self.nodes.place.index_select(0, keys), **self.nodes.graph.fields()}


@dataclass(frozen=True, eq=False)
class _WithoutLabels:
    """Nodes whose labels are not used in training."""

    nodes: Nodes

    def load(self, shape: tuple[int, ...]) -> Examples:
        """Returns them as examples without labels."""
        return Examples(self.nodes, torch.full((len(self.nodes.place),), NO_LABEL))


class GraphData(Data):
    """The nodes of one graph, each with features and a class; a network may read a node alone, or the whole graph.

    Of each class ``train_per_class`` nodes are for training and ``val_per_class`` for validation, drawn with
    ``split_seed``; all others are for the test. Training and validation see the graph with all nodes (transductive),
    or without a part of the test nodes (``inductive``).

    Args:
        path: an ``.npz`` file (:func:`~tutelage.data.graph.files.read_graph`).
        largest_component: whether only the largest connected part is used.
        train_per_class: number of training nodes of each class.
        val_per_class: number of validation nodes of each class.
        inductive: fraction of the test nodes that is held out of the graph until the test; 0: transductive.
        tested: if ``inductive``, which test nodes are measured: ``held_out``, in the whole graph, or ``observed``, in
            the graph of training. None: ``held_out``.
        num_classes: None: as many as the file names, or its highest label + 1.
        class_names: None: those of the file.
        input_shape: ``[F]``; None: not compared with the file.
        split_seed: seed of the split and of what is held out.
        unlabelled: ``val`` and ``test``: nodes (without those held out) to train on without their label.
        views: null, as nodes are not augmented.
        **common: arguments of :class:`~tutelage.data.module.Data`.

    Raises:
        TutelageError: the file is refused, a class has too few nodes, or an argument is out of range.
    """

    seen_through: ClassVar[tuple[str, ...]] = ("largest_component",)

    def __init__(
        self,
        *,
        path: str | Path,
        largest_component: bool = True,
        train_per_class: int = 20,
        val_per_class: int = 30,
        inductive: float = 0.0,
        tested: str | None = None,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        input_shape: Sequence[int] | None = None,
        split_seed: int = 0,
        unlabelled: Iterable[str] | None = None,
        views: None = None,
        **common: Any,
    ):
        if views is not None:
            raise TutelageError(f"data.views must be null: nodes are not augmented; found {views}")
        self.path, (graph, labels, names) = Path(path), read_graph(Path(path))
        if largest_component:
            kept = graph.largest_component()
            graph, labels = graph.subgraph(kept), labels[kept]
        if input_shape is not None and tuple(input_shape) != (graph.width,):
            raise TutelageError(
                f"data.input_shape={list(input_shape)}: the nodes of {path} have {graph.width} features"
            )
        self.graph, self.node_labels, self.input_shape = graph, labels, (graph.width,)
        if num_classes is None:
            num_classes = max(int(labels.max()) + 1, len(names or ()))
        if class_names is None and names is not None and len(names) == num_classes:
            class_names = names
        _check(train_per_class, val_per_class, inductive, tested)
        self.parts = divided(
            checked_labels(str(path), labels, num_classes, num_classes), num_classes, split_seed,
            {"train": train_per_class, "val": val_per_class},
        )  # fmt: skip
        held = torch.empty(0, dtype=torch.long)
        if inductive:
            left, taken = divide(len(self.parts["test"]), inductive, "data.inductive", split_seed, "held out")
            held, self.parts["test"] = self.parts["test"][taken], self.parts["test"][left]
        self.observed, self._number = _without(graph, held)
        self._tested = Nodes(graph, held) if inductive and tested != "observed" else self._nodes("test")
        self._test_labels = labels[held if inductive and tested != "observed" else self.parts["test"]]
        super().__init__(
            num_classes=num_classes, class_names=class_names, split_seed=split_seed, val_size=val_per_class,
            unlabelled=self._without_labels(unlabelled), **common,
        )  # fmt: skip

    def _nodes(self, *parts: str) -> Nodes:
        return Nodes(self.observed, self._number[torch.cat([self.parts[part] for part in parts])])

    def _without_labels(self, parts: Iterable[str] | None) -> list[_WithoutLabels]:
        for part in (found := list(parts or ())):
            if part not in _UNLABELLED or found.count(part) > 1:
                raise TutelageError(f"data.unlabelled must be some of {', '.join(_UNLABELLED)}, once; found {found}")
        return [_WithoutLabels(self._nodes(part)) for part in found]

    def load(self) -> tuple[Examples, Examples]:
        """Returns training nodes, then validation nodes, and the test nodes."""
        labels = self.node_labels[torch.cat([self.parts["train"], self.parts["val"]])]
        return Examples(self._nodes("train", "val"), labels), Examples(self._tested, self._test_labels)

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """Returns the keys of training and validation nodes, which :func:`divided` has drawn."""
        first = len(self.parts["train"])
        return torch.arange(first), torch.arange(first, count)

    def checked(self, part: str, examples: Examples) -> Examples:
        """Returns the examples, which were checked when the file was read."""
        return examples

    def as_set(self, examples: Examples, keys: Tensor) -> NodeSet:
        """Returns some of the nodes."""
        return NodeSet(examples, keys)


def _check(train: int, val: int, inductive: float, tested: str | None) -> None:
    for key, count in (("train_per_class", train), ("val_per_class", val)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise TutelageError(f"data.{key} must be a whole number of at least 1; found {count!r}")
    if not 0 <= inductive < 1:
        raise TutelageError(
            f"data.inductive must be a fraction of the test nodes, from 0 to below 1; found {inductive}"
        )
    if tested is not None and (not inductive or tested not in _TESTED):
        why = "" if tested in _TESTED else f", which must be {' or '.join(_TESTED)}"
        raise TutelageError(f"data.tested={tested}{why}: needs data.inductive above 0, and null otherwise")


def divided(labels: Tensor, classes: int, seed: int, counts: dict[str, int]) -> dict[str, Tensor]:
    """Draws so many nodes of each class for each part, as a function of ``seed``; the rest are for the test.

    Args:
        labels: [N] int64.
        classes: number of classes.
        seed: ``split_seed``.
        counts: part → nodes of each class.

    Returns:
        Part → nodes, ascending; ``test`` among them.

    Raises:
        TutelageError: a class has too few nodes to have one in the test; names it.
    """
    order = torch.randperm(len(labels), generator=seeding.generator(seed, "nodes"))
    found: dict[str, list[Tensor]] = {part: [] for part in (*counts, "test")}
    for c in range(classes):
        own = order[labels[order] == c]
        if len(own) <= sum(counts.values()):
            wanted = " and ".join(f"{count} ({part})" for part, count in counts.items())
            raise TutelageError(
                f"class {c} has {len(own)} nodes; {wanted} of each class must leave at least one for the test: see "
                "data.train_per_class, data.val_per_class and data.largest_component"
            )
        pieces = own.split([*counts.values(), len(own) - sum(counts.values())])
        for part, piece in zip(found, pieces, strict=True):
            found[part].append(piece)
    return {part: torch.cat(pieces).sort().values for part, pieces in found.items()}


def _without(graph: Graph, held: Tensor) -> tuple[Graph, Tensor]:
    """Returns the graph without some nodes, and the number in it of each node of ``graph``."""
    if not len(held):
        return graph, torch.arange(len(graph))
    kept = torch.ones(len(graph), dtype=torch.bool)
    kept[held] = False
    return graph.subgraph(kept.nonzero().flatten()), kept.cumsum(0) - 1
