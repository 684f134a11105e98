"""Filters libraries' messages on the terminal: nothing that a user can't fix, and nothing twice."""

import logging
import warnings
from typing import Any, TextIO

ONCE = {"once": True}  # extra of a warning that each stage of a job would repeat
_seen: set[tuple[type[Warning], str]] = set()
_show = warnings.showwarning


def quiet() -> None:
    """Drops repeated notes on absent GPUs and warnings that a user can't fix; shows each other warning once.

    A job builds a network several times, to try it out and to train it, and its constructor may warn each time.
    Python's own "once" is reset whenever a library changes the filters.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", message=".*(LeafSpec|does not have many workers|in eval mode at the start|srun).*"
    )
    warnings.showwarning = _show_once
    for handler in logging.getLogger().handlers:  # once per job
        if not any(isinstance(one, OfLibrariesOnce) for one in handler.filters):
            handler.addFilter(OfLibrariesOnce())


def _show_once(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any, **more: TextIO | str | None
) -> None:
    key = category, str(message)
    if key not in _seen:
        _seen.add(key)
        _show(message, category, filename, lineno, *rest, **more)  # type: ignore[arg-type]


class OfLibrariesOnce(logging.Filter):
    """Lets each warning of a library pass once; of Tutelage's own those that say so (``extra=ONCE``)."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: set[tuple[str, str]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Checks whether the record is shown."""
        may_repeat = record.name.partition(".")[0] == "tutelage" or record.levelno < logging.WARNING
        if may_repeat and not getattr(record, "once", False):
            return True
        key = record.name, record.getMessage()
        if key in self._shown:
            return False
        self._shown.add(key)
        return True
