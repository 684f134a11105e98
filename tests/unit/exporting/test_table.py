"""The table of an export in a terminal."""

import io

from rich.console import Console

from tutelage.exporting.table import table
from tutelage.tasks.classification import Classification


def test_80_columns_show_every_number_whole():
    one = {
        "bytes": 1_234_567, "figures": {"accuracy": 0.98765, "nll": 0.12345, "count": 597},
        "latency_ms": {"1": 0.01234, "64": 12.345}, "peak_bytes": 845e6,
    }  # fmt: skip
    file = {**one, "largest_difference": 3.1e-7, "difference": None}
    document = {
        "split": "test", "threads": 2, "task": Classification().figure_kinds.document(), "trained": one, "teacher": one,
        "formats": {"safetensors": file, "torch_export": file},
    }  # fmt: skip
    shown = io.StringIO()
    Console(file=shown, width=80).print(table(document))
    text = shown.getvalue()
    assert "…" not in text
    for cell, times in (("1,234.6", 4), ("98.77", 4), ("0.0123", 4), ("12.3", 4), ("845", 4), ("3.1e-07", 2)):
        assert text.count(cell) >= times, cell
    assert "torch_export" in text
    assert max(map(len, text.splitlines())) <= 80
