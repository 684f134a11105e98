"""Docstrings of what users make and call: arguments, shapes and errors are written down where there are any."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import tutelage

ROOT = Path(tutelage.__file__).parent
PACKAGES = ("losses", "sources", "models")
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
Definition = ast.ClassDef | ast.FunctionDef


def public(path: Path) -> Iterator[Definition]:
    """Yields the public classes and functions of a file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node


def methods(kind: Definition) -> dict[str, ast.FunctionDef]:
    """Returns the methods of a class by name."""
    return {one.name: one for one in kind.body if isinstance(one, ast.FunctionDef)}


def doc(*nodes: ast.AST) -> str:
    """Returns the docstrings of several definitions, the ones of absent methods left out."""
    return "\n".join(ast.get_docstring(node) or "" for node in nodes)


def undescribed(kind: ast.ClassDef) -> list[str]:
    """Returns the arguments of a class that its docstring has no line for; what goes to a parent is the parent's."""
    if (init := methods(kind).get("__init__")) is None:
        return []
    names = [one.arg for one in init.args.args[1:] + init.args.kwonlyargs]
    return [name for name in names if not re.search(rf"^ {{4}}{name}(, \w+)*( \([^)]*\))?:", doc(kind), re.M)]


def refuses(function: ast.FunctionDef) -> bool:
    """Checks whether a function raises TutelageError itself."""
    raised = (ast.unparse(node.exc) for node in ast.walk(function) if isinstance(node, ast.Raise) and node.exc)
    return any(text.startswith("TutelageError") for text in raised)


def unsaid_errors(node: Definition) -> list[str]:
    """Returns the functions that raise TutelageError and stand under no docstring that says when."""
    if isinstance(node, ast.FunctionDef):
        return [node.name] if refuses(node) and "Raises:" not in doc(node) else []
    own = {name: one for name, one in methods(node).items() if not name.startswith("_") or name == "__init__"}
    return [f"{node.name}.{name}" for name, one in own.items() if refuses(one) and "Raises:" not in doc(node, one)]


def test_every_argument_of_a_class_is_described():
    found = {
        f"{path.relative_to(ROOT)} {kind.name}": undescribed(kind)
        for path in FILES
        for kind in public(path)
        if isinstance(kind, ast.ClassDef)
    }
    assert {name: missing for name, missing in found.items() if missing} == {}


def test_every_error_of_a_user_is_announced():
    assert [(str(path), name) for path in FILES for node in public(path) for name in unsaid_errors(node)] == []


def test_what_computes_states_its_shapes():
    assert [
        f"{path.relative_to(ROOT)} {kind.name}"
        for path in FILES
        if "sources" not in path.parts
        for kind in public(path)
        if isinstance(kind, ast.ClassDef)
        if (forward := methods(kind).get("forward")) and not re.search(r"\[[A-Z]", doc(kind, forward))
    ] == []


def test_a_docstring_says_what_a_thing_does():
    question = re.compile(r'^\s*r?"""(What|Who|Whether|How|Where|Which)\b', re.M)
    assert [str(path) for path in sorted(ROOT.rglob("*.py")) if question.search(path.read_text())] == []


def test_a_missing_line_is_seen():
    source = '''
class One:
    """Does it.

    Args:
        a: first.
    """

    def __init__(self, a, b):
        raise TutelageError("no")
'''
    kind = ast.parse(source).body[0]
    assert isinstance(kind, ast.ClassDef)
    assert undescribed(kind) == ["b"]
    assert unsaid_errors(kind) == ["One.__init__"]
