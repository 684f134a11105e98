"""Small changes of a file of Python, one by one, for ``benchmarks/mutants.py``."""

import ast
import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CALLED = "__called__"  # of builtins: the functions that were called, as path:line
HINTS = (  # arguments that change no result
    "strict", "stacklevel", "maxsize", "frozen", "non_blocking", "preserve_rng_state", "sorted",
)  # fmt: skip
_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.MatMult: ast.Add, ast.BitAnd: ast.BitOr,
}  # fmt: skip
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Mutant:
    """A changed file.

    Attributes:
        line: of the change.
        function: the first line of the function that is changed; 0 outside of functions.
        change: before → after.
        source: the whole file, changed.
    """

    line: int
    function: int
    change: str
    source: str


def mutants(file: Path) -> list[Callable[[], Mutant]]:
    """Returns what makes each mutant of a file; docstrings, annotations and messages of errors are left alone."""
    tree = ast.parse(file.read_text())
    told = set(_told(tree))
    nodes = _nodes(tree)
    chosen = [
        i
        for i, node in enumerate(nodes)
        if hasattr(node, "lineno") and node not in told and _change(copy.deepcopy(node))
    ]
    return [functools.partial(_mutant, tree, index) for index in chosen]


def _nodes(tree: ast.Module) -> list[Any]:
    return [node for node in ast.walk(tree) if not isinstance(node, ast.expr_context)]


def _mutant(tree: ast.Module, index: int) -> Mutant:
    changed = copy.deepcopy(tree)
    node, twin = _nodes(tree)[index], _nodes(changed)[index]
    _change(twin)
    change = f"{_short(ast.unparse(node))} → {_short(ast.unparse(twin))}"
    source = ast.unparse(ast.fix_missing_locations(changed))
    return Mutant(node.lineno, _function(tree, node), change, source)


def noting(source: str, name: str) -> str:
    """Returns a file whose functions note their calls, as ``name:first line``, wherever they are imported.

    A trace function would be called for every function of torch as well, and take twice the time of the tests.
    """
    tree = ast.parse(source)
    for node in [node for node in ast.walk(tree) if isinstance(node, _FUNCTION)]:
        _insert(node, f"{CALLED}.add('{name}:{_first(node)}')")
    _insert(tree, f"{CALLED} = vars(__import__('builtins')).setdefault('{CALLED}', set())")
    return ast.unparse(tree)


def _insert(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef, line: str) -> None:
    node.body.insert(int(ast.get_docstring(node) is not None), ast.parse(line).body[0])


def _first(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min(node.lineno for node in (function, *function.decorator_list))


def _function(tree: ast.Module, node: ast.AST) -> int:
    """Returns the first line of the innermost function around a node, with its decorators; 0 outside of functions."""
    around = [f for f in ast.walk(tree) if isinstance(f, _FUNCTION) and any(child is node for child in ast.walk(f))]
    return _first(around[-1]) if around else 0


def _change(node: ast.AST) -> bool:
    """Changes ``node`` in place; False where there is nothing to change."""
    match node:
        case ast.Compare(ops=[op, *_]) if type(op) in _COMPARE:
            node.ops[0] = _COMPARE[type(op)]()
        case ast.BinOp(op=op) if type(op) in _BINARY:
            node.op = _BINARY[type(op)]()
        case ast.Constant(value=bool() as value):
            node.value = not value
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and value + 1 != value:
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
    return True


def _told(tree: ast.Module) -> Iterator[ast.AST]:
    """Yields the nodes that change nothing a job does: messages, annotations, hints and assertions that never fail."""
    for parent in ast.walk(tree):
        if isinstance(parent, ast.Compare) and "rand(" in ast.unparse(parent):
            yield parent  # < or ≤ a random number
        inside = isinstance(parent, ast.Raise | ast.JoinedStr | ast.arg)
        inside |= isinstance(parent, ast.keyword) and parent.arg in HINTS
        inside |= isinstance(parent, ast.If) and ast.unparse(parent.test) == "TYPE_CHECKING"
        if inside:
            yield from ast.walk(parent)
        if isinstance(parent, ast.AnnAssign):
            yield from ast.walk(parent.annotation)


def _short(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) <= 60 else f"{line[:57]}…"
