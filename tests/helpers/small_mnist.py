"""scikit-learn's digits as files of MNIST (28×28, uint8, IDX), and an experiment on them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from runs import figures
from sklearn.datasets import load_digits

TRAIN = 1200


def write(root: Path) -> Path:
    """Writes ``<root>/MNIST/raw`` with 1,200 training and 597 test images; returns ``root``."""
    digits = load_digits()
    large = np.kron(digits.images * (255 / 16), np.ones((3, 3))).round().astype(np.uint8)
    images, labels = np.pad(large, ((0, 0), (2, 2), (2, 2))), digits.target.astype(np.uint8)
    for name, part in (("train", slice(TRAIN)), ("t10k", slice(TRAIN, None))):
        write_part(root, name, images[part], labels[part])
    return root


def write_part(root: Path, name: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes one part, ``train`` or ``t10k``: uint8 images [n, 28, 28] and labels [n]."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images", images), ("labels", labels)):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        (folder / f"{name}-{kind}-idx{array.ndim}-ubyte").write_bytes(head + array.tobytes())


def distilled(main: Callable[..., Any], root: Path, run: Path, experiment: str, *overrides: str) -> Any:
    """Runs ``experiment`` on the files of :func:`write` in the folder ``run``; its ``metrics.json``."""
    answer = main("distill", f"experiment={experiment}", f"data.root={root}", *overrides, f"hydra.run.dir={run}")
    assert answer.code == 0, answer.message
    return figures(run)
