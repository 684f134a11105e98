"""Small CIFAR archives, byte by byte as the published ones are written."""

import pickle
from pathlib import Path

import numpy as np

from tutelage.data.cifar import DATASETS

RNG = np.random.default_rng(0)
CLASSES = {"CIFAR10": 10, "CIFAR100": 100}


def written_by_python_2(value):
    """Pickle protocol 2 as cPickle writes it, from the list of opcodes."""
    return b"\x80\x02" + opcodes(value) + b"."


def opcodes(value):
    match value:
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"J" + value.to_bytes(4, "little", signed=True)
        case None:
            return b"N"
        case bytes():
            return b"T" + len(value).to_bytes(4, "little") + value
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case dict():
            return b"}(" + b"".join(opcodes(x) for item in value.items() for x in item) + b"u"
        case np.ndarray():
            dtype = b"cnumpy\ndtype\n" + opcodes((value.dtype.str[1:].encode(), 0, 1)) + b"R"
            dtype += opcodes((3, b"|", None, None, None, -1, -1, 0)) + b"b"
            empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + opcodes((0,)) + opcodes(b"b") + b"tR"
            by_column = not value.flags.c_contiguous
            state = opcodes(1) + opcodes(value.shape) + dtype + opcodes(by_column) + opcodes(value.tobytes("A"))
            return empty + b"(" + state + b"tb"


def written_by_python_3(value):
    """Pickle protocol 2 as Python 3 writes it."""
    return pickle.dumps(value, 2)


def contents(dataset, count=8):
    """The content of a folder's files, small."""
    published = DATASETS[dataset]
    classes = CLASSES[dataset]
    made = {
        name: {
            b"batch_label": b"a batch",
            published.labels: RNG.integers(0, classes, count).tolist(),
            b"data": RNG.integers(0, 256, (count, 3072), np.uint8),
            b"filenames": [b"a.png"] * count,
        }
        for name in [*published.train, *published.test]
    }
    if dataset == "CIFAR100":
        for batch in made.values():
            batch[b"coarse_labels"] = [0] * count
    [meta] = published.meta
    return made | {meta: {b"num_vis": 3072, published.names: [b"class %d" % c for c in range(classes)]}}


MADE = {dataset: contents(dataset) for dataset in DATASETS}


def write(root: Path, dataset="CIFAR10", written=written_by_python_2, **other):
    """Writes the folder of a dataset; ``other`` replaces files by name."""
    folder = root / DATASETS[dataset].folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (MADE[dataset] | other).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else written(content))
    return folder
