"""Figures that golden tests keep in a file beside them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROLES = ("teacher", "control", "student")


def losses(document: Any) -> dict[str, dict[str, float]]:
    """Of ``metrics.json``: role → split → NLL of the last weights."""
    return {role: {split: document[role]["last"][split]["nll"] for split in ("val", "test")} for role in ROLES}


def compare(
    request: pytest.FixtureRequest, path: Path, found: dict[str, Any], rel: float = 1e-3, chained: tuple[str, ...] = ()
) -> None:
    """``found``, figures by name or names of names, against the file; ``--write-golden`` writes it first.

    Names that begin with one of ``chained`` may differ by 10 %: each network of a chain amplifies the last bits, to 5 %
    between two CPUs.
    """
    if request.config.getoption("--write-golden"):
        path.write_text(json.dumps(found, indent=1) + "\n")
    mine, expected = dict(_flat(found)), dict(_flat(json.loads(path.read_text())))
    assert mine.keys() == expected.keys()
    for name, figure in expected.items():
        assert mine[name] == pytest.approx(figure, rel=0.1 if name.strip().startswith(chained) else rel), (
            name
        )  # CPUs differ in the last bits


def _flat(figures: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(figures, dict):
        for key, value in figures.items():
            yield from _flat(value, f"{name} {key}")
    else:
        yield name, figures
