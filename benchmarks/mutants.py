"""Changes the code in small ways and counts how many changes the tests notice: ``make mutants``.

For each chosen file a random sample of mutants is made: a comparison, an operator, a number or a boolean is changed,
a condition is negated, a statement is left out. Each mutant is a copy of the package with one change, on which the unit
tests that import the changed module are run until the first failure. The exit code is 1 if fewer than ``--least`` of
the mutants of a group are killed.

    python benchmarks/mutants.py --per-file 5                     all groups; hours on two cores
    python benchmarks/mutants.py --groups statistics --per-file 20
"""

import argparse
import ast
import copy
import importlib
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "tutelage"
GROUPS = {
    "losses": ("losses/**/*.py",),
    "objective": ("objective.py",),
    "training": ("training/**/*.py", "pipeline/fit.py", "pipeline/supervised.py"),
    "statistics": ("report/statistics.py",),
    "sources": ("sources/*.py",),
}
LIMIT = 600.0  # seconds for the tests of one mutant; one that hangs is killed
_QUIET = "ignore::pytest.PytestAssertRewriteWarning"  # plugins that were imported before the fork

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.MatMult: ast.Add, ast.BitAnd: ast.BitOr,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One changed file.

    Attributes:
        file: relative to the package.
        line: of the change.
        change: before → after.
        source: the whole file, changed.
    """

    file: Path
    line: int
    change: str
    source: str


def mutants(file: Path) -> Iterator[Mutant]:
    """Yields every mutant of a file; docstrings, annotations and messages of errors are left alone."""
    tree = ast.parse(file.read_text())
    nodes = [node for node in ast.walk(tree) if not isinstance(node, ast.expr_context)]
    for index, node in enumerate(nodes):
        changed = copy.deepcopy(tree)
        twin = [other for other in ast.walk(changed) if not isinstance(other, ast.expr_context)][index]
        if _is_text(tree, node) or not _change(twin):
            continue
        before, after = ast.unparse(node), ast.unparse(twin)
        yield Mutant(
            file.relative_to(PACKAGE), node.lineno, f"{_short(before)} → {_short(after)}", ast.unparse(changed)
        )


def _change(node: ast.AST) -> bool:
    """Changes ``node`` in place; False where there is nothing to change."""
    match node:
        case ast.Compare(ops=[op, *_]) if type(op) in _COMPARE:
            node.ops[0] = _COMPARE[type(op)]()
        case ast.BinOp(op=op) if type(op) in _BINARY:
            node.op = _BINARY[type(op)]()
        case ast.Constant(value=bool() as value):
            node.value = not value
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            node.value = value + 1
        case ast.BoolOp(op=op):
            node.op = ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.If(test=test) | ast.IfExp(test=test):
            node.test = ast.UnaryOp(ast.Not(), test)
        case ast.UnaryOp(op=ast.USub()):
            node.op = ast.UAdd()
        case ast.For(body=[_, _, *_]) | ast.With(body=[_, _, *_]):
            node.body.pop()
        case _:
            return False
    ast.fix_missing_locations(node)
    return True


def _is_text(tree: ast.AST, node: ast.AST) -> bool:
    """Checks whether a node has no line, or lies in a message, an annotation or a default that only describes."""
    if not hasattr(node, "lineno"):
        return True
    for parent in ast.walk(tree):
        inside = isinstance(parent, ast.Raise | ast.AnnAssign | ast.JoinedStr | ast.arg)
        inside |= isinstance(parent, ast.keyword) and parent.arg == "strict"  # an assertion that never fails
        inside |= isinstance(parent, ast.If) and ast.unparse(parent.test) == "TYPE_CHECKING"
        if inside and any(child is node for child in ast.walk(parent)):
            return True
    return False


def _short(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) <= 60 else f"{line[:57]}…"


def tests_of(file: Path) -> list[str]:
    """Returns the unit tests that import a module of the package or name it in a string."""
    parts = file.parent.parts if file.stem == "__init__" else file.with_suffix("").parts
    module = ".".join(["tutelage", *parts])
    package, _, name = module.rpartition(".")
    pattern = re.compile(rf"{re.escape(module)}\b|from {re.escape(package)} import [^\n]*\b{name}\b")
    found = [path for path in (ROOT / "tests" / "unit").rglob("test_*.py") if pattern.search(path.read_text())]
    return [str(path) for path in sorted(found, key=lambda path: (not path.stem.endswith(f"_{name}"), path))]


def passes(overlay: Path, tests: list[str]) -> bool | None:
    """Runs the tests on the copy of the package in ``overlay``; None if they hang.

    They run in a fork of this process, which has imported what takes seconds. Nothing of the package is imported here.
    """
    child = os.fork()
    if not child:
        os.setsid()  # so that what the tests start can be ended with them
        os.chdir(ROOT)
        os.environ["PYTHONPATH"] = str(overlay)
        sys.path.insert(0, str(overlay))
        sys.dont_write_bytecode = True
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", _QUIET, *tests]))
    end = time.monotonic() + LIMIT
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.05)


def is_killed(mutant: Mutant, overlay: Path, tests: list[str]) -> bool:
    """Checks whether a test fails on a copy of the package with the mutant in it."""
    target = overlay / "tutelage" / mutant.file
    original = target.read_text()
    target.write_text(mutant.source)
    try:
        return not passes(overlay, tests)
    finally:
        target.write_text(original)


def main() -> int:
    """Makes, runs and counts the mutants; prints the survivors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", nargs="*", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--per-file", type=int, default=5, help="mutants a file, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--least", type=float, default=0.95, help="share that must be killed")
    parser.add_argument("--tests", type=int, help="the most files of tests for a module, its own first; all by default")
    parser.add_argument("--files", nargs="*", default=[""], help="parts of the paths of the files to take")
    chosen = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("torch", "torchvision", "lightning", "torchmetrics", "omegaconf", "sklearn.datasets"):
        importlib.import_module(name)
    enough = True
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder)
        shutil.copytree(ROOT / "src", overlay, dirs_exist_ok=True)
        shutil.copytree(ROOT / "conf", overlay / "tutelage" / "conf")
        for group in chosen.groups:
            killed = total = 0
            for file in sorted(path for pattern in GROUPS[group] for path in PACKAGE.glob(pattern)):
                own = file.relative_to(PACKAGE)
                if not any(part in str(own) for part in chosen.files):
                    continue
                found, tests = list(mutants(file)), tests_of(own)[: chosen.tests]
                if found and tests and not passes(overlay, tests):
                    print(f"{own}: its tests fail without a mutant, so nothing is known: {' '.join(tests)}", flush=True)
                    enough = False
                    continue
                before = killed, total
                for mutant in random.Random(chosen.seed).sample(found, min(chosen.per_file, len(found))):
                    dead = bool(tests) and is_killed(mutant, overlay, tests)
                    killed, total = killed + dead, total + 1
                    if not dead:
                        print(f"survived: {mutant.file}:{mutant.line} {mutant.change}", flush=True)
                print(f"{own}: {killed - before[0]} of {total - before[1]}", flush=True)
            enough &= killed >= chosen.least * total
            print(f"{group}: {killed} of {total} killed", flush=True)
    return int(not enough)


if __name__ == "__main__":
    sys.exit(main())
