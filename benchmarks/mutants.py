"""Changes the code in small ways and counts how many changes the tests notice: ``make mutants``.

For each chosen file a random sample of mutants is made: a comparison, an operator, a number or a boolean is changed,
a condition is negated, a statement is left out. Each mutant is a copy of the package with one change, on which the
tests of the changed module are run until the first failure; those that call the changed function come first. The exit
code is 1 if fewer than ``--least`` of the mutants of a group are killed.

    python benchmarks/mutants.py --per-file 5                     all groups; hours on two cores
    python benchmarks/mutants.py --groups statistics --per-file 20
"""

import argparse
import builtins
import functools
import importlib
import json
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from changes import CALLED, Mutant, mutants, noting

ROOT = Path(__file__).parents[1]
PACKAGE, CONF = ROOT / "src" / "tutelage", ROOT / "conf"
GROUPS = {
    "losses": ("losses/**/*.py",),
    "objective": ("objective.py",),
    "training": ("training/**/*.py", "pipeline/fit.py", "pipeline/supervised.py"),
    "statistics": ("report/statistics.py",),
    "sources": ("sources/*.py",),
}
LIMIT = 600.0  # seconds for the tests of one mutant; one that hangs is killed
_QUIET = "ignore::pytest.PytestAssertRewriteWarning"  # plugins that were imported before the fork


def tests_of(file: Path) -> list[Path]:
    """Returns the files of tests that may notice a change of a module, its own first.

    These are the files that import it or the package that it is in, name it in a string, choose one of its yamls or
    take what the whole package offers of it, or import a helper of the tests that does; where there is none, those of
    the modules that import it.
    """
    offered = re.findall(rf'"(\w+)": "{_module(file)}"', (PACKAGE / "__init__.py").read_text())
    found = _naming(
        [
            _imported(file),
            *(rf"\b(tt|tutelage)\.{name}\b" for name in offered),
            *(_choice(yaml) for yaml, text in _texts(CONF, "*.yaml").items() if f"{_module(file)}." in text),
        ]
    )
    if not found:
        users = [
            p for p, text in _texts(PACKAGE, "*.py").items() if re.search(_imported(file), text) and p.stem[0] != "_"
        ]
        found = _naming([_imported(user.relative_to(PACKAGE)) for user in users])
    found |= _naming([rf"from tutelage import [^\n]*\b{file.parts[0]}$"])
    return sorted(found, key=lambda path: (not path.stem.endswith(f"_{file.stem}"), "unit" not in path.parts, path))


def _naming(patterns: Sequence[str]) -> set[Path]:
    helpers = [
        path.stem
        for path, text in _texts(ROOT / "tests" / "helpers", "*.py").items()
        if patterns and re.search("|".join(patterns), text, re.MULTILINE)
    ]
    pattern = re.compile("|".join([*patterns, *(rf"^(from|import) {name}\b" for name in helpers)]), re.MULTILINE)
    return {path for path, text in _texts(ROOT / "tests", "test_*.py").items() if patterns and pattern.search(text)}


def _module(file: Path) -> str:
    return ".".join(["tutelage", *(file.parent if file.stem == "__init__" else file.with_suffix("")).parts])


def _imported(file: Path) -> str:
    package, _, name = _module(file).rpartition(".")
    return rf"{re.escape(_module(file))}\b|from {re.escape(package)} import [^\n]*\b{name}\b"


def _among(parts: Sequence[str], tests: list[Path]) -> list[Path]:
    return [test for test in tests if any(part in str(test) for part in parts)] or tests


@functools.cache
def _texts(folder: Path, pattern: str) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob(pattern)}


def _choice(yaml: Path) -> str:
    group, _, name = str(yaml.relative_to(CONF).with_suffix("")).partition("/")
    return rf"\b{group}={re.escape(name)}\b"


class Seen:
    """A plugin of pytest that writes which tests call each function, and what every test takes.

    Args:
        file: that is written when the tests have ended.
    """

    def __init__(self, file: Path):
        self.file = file.absolute()
        self.calls: dict[str, list[str]] = {}
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Notes the calls of a test and of its fixtures."""
        called: set[str] = vars(builtins).setdefault(CALLED, set())
        called.clear()
        try:
            return (yield)
        finally:
            for function in called:
                self.calls.setdefault(function, []).append(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Notes what a test took, and whether it failed."""
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Writes it all."""
        self.file.write_text(json.dumps({"calls": self.calls, "seconds": self.seconds, "failed": self.failed}))


@dataclass(frozen=True)
class Only:
    """A plugin of pytest that leaves out all other tests."""

    tests: frozenset[str]

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Takes the tests."""
        items[:] = [item for item in items if item.nodeid in self.tests]


def passes(overlay: Path, arguments: Sequence[str], plugin: object, limit: float, keep: bool = False) -> bool:
    """Runs tests on the copy of the package in ``overlay``; False if one fails or they take longer than the limit.

    They run in a fork of this process, which has imported what takes seconds. Nothing of the package is imported here.
    Compiled files are kept with ``keep`` alone: that of a mutant could pass for the next one.
    """
    child = os.fork()
    if not child:
        os.setpgrp()  # so that what the tests start can be ended with them
        os.chdir(ROOT)
        os.environ["PYTHONPATH"] = str(overlay)
        sys.path.insert(0, str(overlay))
        sys.dont_write_bytecode = not keep
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        options = ["-q", "-p", "no:cacheprovider", "-W", _QUIET]
        os._exit(pytest.main([*options, *arguments], plugins=[plugin]))
    end = time.monotonic() + limit
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return False
        time.sleep(0.05)


class Tests:
    """The tests of some modules.

    Args:
        overlay: the copy of the package.
        files: module → the files of its tests.
        slow: takes the tests that are marked ``slow`` as well.
        seen: holds what an earlier run saw; written where it does not exist.
    """

    def __init__(self, overlay: Path, files: dict[Path, list[Path]], slow: bool, seen: Path):
        self.overlay, self.files = overlay, files
        self.marks = ["-m", "not long and not cluster"] if slow else []
        every = sorted({str(test) for tests in files.values() for test in tests})
        if not seen.exists():
            targets = {overlay / "tutelage" / file: str(file) for file in files}
            originals = {target: target.read_text() for target in targets}
            for target, name in targets.items():
                target.write_text(noting(originals[target], name))
            passes(overlay, [*self.marks, *every], Seen(seen), math.inf, keep=True)
            for target, original in originals.items():
                target.write_text(original)
        passes(overlay, ["--collect-only", *every], Only(frozenset()), math.inf, keep=True)  # thrice as fast then
        found = json.loads(seen.read_text())
        self.calls, self.seconds, self.failed = found["calls"], found["seconds"], set(found["failed"])

    def of(self, file: Path) -> list[str]:
        """Returns the tests of a module, in their order."""
        chosen = {str(test.relative_to(ROOT)): i for i, test in enumerate(self.files[file])}
        tests = [test for test in self.seconds if test.partition("::")[0] in chosen and test not in self.failed]
        return sorted(tests, key=lambda test: chosen[test.partition("::")[0]])

    def kill(self, file: Path, mutant: Mutant) -> bool:
        """Checks whether a test fails with the mutant: one that calls the function first, then any of the module's."""
        target = self.overlay / "tutelage" / file
        original = target.read_text()
        target.write_text(mutant.source)
        tests = self.of(file)
        calling = self.calls.get(f"{file}:{mutant.function}", [])
        first = dict.fromkeys(test for test in [*tests, *calling] if test in calling and test not in self.failed)
        try:
            return self._fail([*first]) or self._fail([test for test in tests if test not in first])
        finally:
            target.write_text(original)

    def _fail(self, tests: list[str]) -> bool:
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        limit = max(LIMIT, 20 * sum(self.seconds[test] for test in tests))
        return bool(tests) and not passes(self.overlay, ["-x", *self.marks, *files], Only(frozenset(tests)), limit)


def main() -> int:
    """Makes, runs and counts the mutants; prints the survivors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", nargs="*", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--per-file", type=int, default=5, help="mutants a file, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--least", type=float, default=0.95, help="share that must be killed")
    parser.add_argument("--among", nargs="*", default=[""], help="parts of the paths of the files of tests to take")
    parser.add_argument("--slow", action="store_true", help="also the tests that are marked slow")
    parser.add_argument("--files", nargs="*", default=[""], help="parts of the paths of the files to take")
    parser.add_argument("--seen", type=Path, help="folder of what the tests call, for more draws of the same code")
    chosen = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("torch", "torchvision", "lightning", "torchmetrics", "omegaconf", "sklearn.datasets"):
        importlib.import_module(name)
    enough = True
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder)
        (chosen.seen or overlay).mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / "src", overlay, dirs_exist_ok=True)
        shutil.copytree(CONF, overlay / "tutelage" / "conf")
        for group in chosen.groups:
            killed, total = _group(group, overlay, chosen)
            enough &= killed >= chosen.least * total
            print(f"{group}: {killed} of {total} killed", flush=True)
    return int(not enough)


def _group(group: str, overlay: Path, chosen: argparse.Namespace) -> tuple[int, int]:
    """Returns how many mutants of a group are killed, and of how many."""
    paths = sorted(path for pattern in GROUPS[group] for path in PACKAGE.glob(pattern))
    files = [path for path in paths if any(part in str(path.relative_to(PACKAGE)) for part in chosen.files)]
    found = {path.relative_to(PACKAGE): made for path in files if (made := mutants(path))}
    seen = (chosen.seen or overlay) / f"{group}.json"
    tests = Tests(overlay, {file: _among(chosen.among, tests_of(file)) for file in found}, chosen.slow, seen)
    for test in tests.failed:
        print(f"fails without a mutant, so that it is left out: {test}", flush=True)
    killed = total = 0
    for file, made in found.items():
        drawn = [make() for make in random.Random(chosen.seed).sample(made, min(chosen.per_file, len(made)))]
        dead = [tests.kill(file, mutant) for mutant in drawn]
        for mutant, is_dead in zip(drawn, dead, strict=True):
            if not is_dead:
                print(f"survived: {file}:{mutant.line} {mutant.change}", flush=True)
        killed, total = killed + sum(dead), total + len(dead)
        print(f"{file}: {sum(dead)} of {len(dead)}", flush=True)
    return killed, total


if __name__ == "__main__":
    sys.exit(main())
