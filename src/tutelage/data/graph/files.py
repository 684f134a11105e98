"""Reads a graph from an ``.npz`` file with two sparse matrices: adjacency and features."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tutelage.data.graph.graph import Graph, undirected
from tutelage.data.npz import read_arrays
from tutelage.errors import TutelageError
from tutelage.runtime.file_sizes import check_size

_MATRICES = {"adj": "adjacency", "attr": "features"}
_PARTS = ("data", "indices", "indptr", "shape")


class GraphFile(NamedTuple):
    """The content of such a file."""

    graph: Graph
    labels: Tensor  # [N] int64
    class_names: list[str] | None


def read_graph(path: Path) -> GraphFile:
    """Reads a file of the layout of Shchur et al. (2018): CSR matrices ``adj_…`` and ``attr_…``, and ``labels``.

    Each matrix is ``…_data``, ``…_indices``, ``…_indptr`` and ``…_shape``. Edges become undirected, weights of edges
    are not used, loops are dropped. ``class_names`` are read if they are text; ``node_names`` are not.

    Raises:
        TutelageError: the file is missing or damaged, lacks an array, or the arrays contradict each other; names the
            array, what was expected and what was found.
    """
    names = [f"{matrix}_{part}" for matrix in _MATRICES for part in _PARTS]
    arrays = read_arrays(path, [*names, "labels"], "data.path")
    labels = arrays["labels"]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise TutelageError(f"{path}, labels: expected one integer a node; found {labels.dtype} {list(labels.shape)}")
    _, starts, ends, _ = _matrix(path, "adj", arrays, (len(labels), len(labels)))
    edges = torch.stack([torch.arange(len(labels)).repeat_interleave(starts.diff()), ends])
    shape, starts, columns, values = _matrix(path, "attr", arrays, (len(labels), None))
    check_size(path, 4 * shape[0] * shape[1])  # of features, as rows of batches are made from them
    graph = Graph(undirected(edges, len(labels)), columns, starts[:-1], values, shape[1])
    return GraphFile(graph, torch.from_numpy(labels.astype(np.int64)), _class_names(path))


def _class_names(path: Path) -> list[str] | None:
    try:
        names = read_arrays(path, ["class_names"], "data.path")["class_names"]
    except TutelageError:  # there are none, or they are pickled
        return None
    return [str(name) for name in names] if names.dtype.kind == "U" and names.ndim == 1 else None


def _matrix(
    path: Path, name: str, arrays: dict[str, np.ndarray], expected: tuple[int, int | None]
) -> tuple[tuple[int, int], Tensor, Tensor, Tensor]:
    """Returns the shape, row starts [N + 1], columns [Z] and values [Z] of a matrix, checked."""
    data, indices, starts, shape = (arrays[f"{name}_{part}"] for part in _PARTS)
    where = f"{path}, {_MATRICES[name]}"
    if shape.dtype.kind not in "iu" or shape.shape != (2,):
        raise TutelageError(f"{where}: {name}_shape must be two integers; found {shape.dtype} {list(shape.shape)}")
    rows, columns = map(int, shape)
    if rows != expected[0] or columns < 1 or expected[1] not in (None, columns):
        wanted = f"{expected[0]} × {expected[1] or 'any number'}"
        raise TutelageError(f"{where}: {name}_shape is {rows} × {columns}; {expected[0]} labels need {wanted}")
    for part, found in (("indices", indices), ("indptr", starts)):
        if found.dtype.kind not in "iu" or found.ndim != 1:
            raise TutelageError(
                f"{where}: {name}_{part} must be a row of integers; found {found.dtype} {list(found.shape)}"
            )
    if data.dtype.kind not in "biuf" or data.shape != indices.shape:
        raise TutelageError(
            f"{where}: {name}_data must be a number for each of the {len(indices)} indices; "
            f"found {data.dtype} {list(data.shape)}"
        )
    if len(starts) != rows + 1 or starts[0] != 0 or starts[-1] != len(indices) or (np.diff(starts) < 0).any():
        raise TutelageError(
            f"{where}: {name}_indptr must rise from 0 to {len(indices)} in {rows + 1} numbers; found {len(starts)} "
            f"numbers from {starts[:1].tolist()} to {starts[-1:].tolist()}"
        )
    if len(indices) and not (indices.min() >= 0 and indices.max() < columns):
        raise TutelageError(
            f"{where}: {name}_indices must be 0 to {columns - 1}; found {indices.min()} to {indices.max()}"
        )
    values = torch.from_numpy(data.astype(np.float32))
    if len(bad := (~values.isfinite()).nonzero()):
        raise TutelageError(f"{where}: number {int(bad[0])} of {name}_data is {float(values[bad[0]])}")
    wide, narrow = (torch.from_numpy(found.astype(np.int64)) for found in (starts, indices))
    return (rows, columns), wide, narrow, values
