"""The table of an export: every file, and what it measures."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tutelage.tasks.figure_kinds import FigureKind, TaskFigures

_MEGABYTE = 1e6
_NAMES = {"trained": "as trained (PyTorch)", "teacher": "teacher (PyTorch)"}
_NONE = "–"


def entries(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns what was measured, by name: the network, its teacher, the files."""
    found = {name: document[key] for key, name in _NAMES.items() if key in document}
    return found | dict(document["formats"])


def heads(document: Mapping[str, Any]) -> list[str]:
    """Returns the heads of the table's columns."""
    kinds = _shown(TaskFigures.of(document))
    titles = [f"{kind.title}, %" if kind.percent else kind.title for kind in kinds.values()]
    return ["", "kB", *titles, "largest Δ logit", "ms, batch 1", "ms, batch 64", "peak MB"]


def rows(document: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yields the table's rows as text."""
    kinds = _shown(TaskFigures.of(document))
    for name, one in entries(document).items():
        figures = [kind.text(one["figures"][key]) if key in one["figures"] else _NONE for key, kind in kinds.items()]
        moved = one.get("largest_difference")
        peak = one["peak_bytes"]
        yield [
            name, f"{one['bytes'] / 1000:,.1f}", *figures, _NONE if moved is None else f"{moved:.2g}",
            *(f"{value:.3g}" for value in one["latency_ms"].values()),
            _NONE if peak is None else f"{peak / _MEGABYTE:,.0f}",
        ]  # fmt: skip


def _shown(figures: TaskFigures) -> dict[str, FigureKind]:
    names = dict.fromkeys((figures.headline, "nll"))
    return {name: figures.kinds[name] for name in names if name in figures.kinds}


def legend(document: Mapping[str, Any]) -> str:
    """Returns what the table shows, in sentences."""
    sentences = [
        f"{document['split'].capitalize()} examples: {document['trained']['figures']['count']:,}. Latency: median, "
        f"{document['threads']} thread{'s' * (document['threads'] > 1)}, on the CPU. Peak: most memory of a process "
        "that loads and runs the file, libraries included."
    ]
    kind = TaskFigures.of(document).main
    for name, one in document["formats"].items():
        if (found := one["difference"]) and any(found.values()):
            value, low, high = (kind.difference(found[key]) for key in ("value", "low", "high"))
            sentences.append(
                f"{name} − trained: {value} {kind.unit or kind.title} ({low} to {high}, 95 % over examples)."
            )
    return " ".join(sentences)


def table(document: Mapping[str, Any]) -> Table:
    """Returns the table for a terminal."""
    made = Table(
        box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), caption=legend(document), caption_justify="left"
    )
    found = list(rows(document))
    for place, (head, cells) in enumerate(zip(heads(document), zip(*found, strict=True), strict=True)):
        # in 80 columns heads and names of networks take several lines; no number, word or name of a format does
        words = [*cells, *head.split()] if place else [word for cell in cells for word in cell.split()]
        made.add_column(head, justify="right" if place else "left", width=max(map(len, words)), overflow="fold")
    for row in found:
        made.add_row(*row)
    return made
