"""Runs that are ended in the middle of the student's training and repeated, beside an undisturbed one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from runs import figures, weights

Words = Callable[..., tuple[str, ...]]


def killed_ends_like_whole(main: Any, cli: Any, run: Words, folder: Path, step: int = 22) -> None:
    """Checks that a run that gets SIGKILL ends, repeated, in the weights and figures of a whole one.

    Args:
        main: the fixture.
        cli: the fixture.
        run: name, further words → a command line whose files are in ``folder / name``.
        folder: of both.
        step: of the student, at which it is killed.
    """
    harm = _harm("KillAt", folder, step)
    assert main(*run("whole")).code == 0
    assert cli(*run("killed", harm), check=False).returncode == -9
    assert main(*run("killed", harm)).code == 0
    assert weights(folder / "killed") == weights(folder / "whole")
    assert figures(folder / "killed/run") == figures(folder / "whole/run")


def crashed_ends_like_whole(main: Any, run: Words, folder: Path, step: int = 22) -> None:
    """Checks that a run that an exception ends has saved states, and ends, repeated, in the weights of a whole one.

    Args:
        main: the fixture.
        run: name, further words → a command line whose files are in ``folder / name``.
        folder: of both.
        step: of the student, at which it crashes.
    """
    harm = _harm("CrashAt", folder, step)
    assert main(*run("whole")).code == 0
    assert main(*run("crashed", harm)).code == 1
    assert (folder / "struck").exists()
    assert list((folder / "crashed/run/checkpoints/states").glob("*.ckpt"))
    assert main(*run("crashed", harm)).code == 0
    assert weights(folder / "crashed") == weights(folder / "whole")


def _harm(kind: str, folder: Path, step: int) -> str:
    return f"+callbacks.harm={{_target_: faults.{kind}, stage: student, step: {step}, marker: {folder / 'struck'}}}"
