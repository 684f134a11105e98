"""A small graph that can be learned, in a file: three groups of nodes whose words and edges give them away."""

from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

NODES, FEATURES, CLASSES, ALONE = 120, 30, 3, 6  # the last six are a part of their own


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Returns the arrays of the file: directed edges, some of them loops, and features of 0 and 1."""
    chance = np.random.default_rng(seed)
    labels = np.arange(NODES) % CLASSES
    edges = set()
    for node in range(NODES - ALONE):
        same = [other for other in range(NODES - ALONE) if labels[other] == labels[node]]
        edges |= {(node, int(other)) for other in chance.choice(same, 3)}
        edges |= {(node, (node + 1) % (NODES - ALONE))}
    edges |= {(node, node - 1) for node in range(NODES - ALONE + 1, NODES)} | {(0, 0)}
    adjacency = np.zeros((NODES, NODES), np.float32)
    adjacency[tuple(np.array(sorted(edges)).T)] = 1
    own = np.arange(FEATURES) % CLASSES == labels[:, None]
    features = (chance.random((NODES, FEATURES)) < np.where(own, 0.25, 0.12)).astype(np.float32)
    features[5] = 0  # a node without a word
    found = {"labels": labels.astype(np.int8), "class_names": np.array(["a", "b", "c"])}
    for name, dense in (("adj", adjacency), ("attr", features)):
        matrix = csr_array(dense)
        found |= {f"{name}_{part}": getattr(matrix, part) for part in ("data", "indices", "indptr")}
        found[f"{name}_shape"] = np.array(dense.shape)
    return found


def write(path: Path, **changed: object) -> Path:
    """Writes the file, with other arrays where given; None leaves one out."""
    found = {name: value for name, value in {**arrays(), **changed}.items() if value is not None}
    np.savez(path, **found)  # type: ignore[arg-type]
    return path
