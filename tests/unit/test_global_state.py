"""State of the process has an owner: no function assigns a module's name, and what a module keeps is listed here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import tutelage

ROOT = Path(tutelage.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
# Nothing depends on these but time, and whether a message is repeated.
KEPT = {
    "config/found.py": {"_found"},
    "data/folder_scan.py": {"_told"},
    "evaluation/cost.py": {"_uncounted"},
    "runtime/files.py": {"_digests"},
    "runtime/messages.py": {"_seen"},
    "runtime/rendezvous.py": {"_stores"},
    "runtime/source_code.py": {"_located", "_kept"},
    "sources/store.py": {"_verified"},
}


def empty(value: ast.expr | None) -> bool:
    """Checks for a value that is there to be filled or replaced: {}, [], set(), dict(), None."""
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in ("set", "dict", "list") and not value.args
    if isinstance(value, ast.Dict | ast.List):
        return not ast.unparse(value).strip("{}[]")
    return isinstance(value, ast.Constant) and value.value is None


def kept(path: Path) -> Iterator[str]:
    """Yields the names of a module that are bound to such a value."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and empty(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_no_function_assigns_a_name_of_its_module():
    assert [
        (str(path), node.names)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Global)
    ] == []


def test_what_a_module_fills_as_it_runs_is_known():
    found = {path.relative_to(ROOT).as_posix(): set(kept(path)) for path in FILES}
    assert {path: names - KEPT.get(path, set()) for path, names in found.items() if names - KEPT.get(path, set())} == {}


def test_an_empty_container_of_a_module_is_seen(tmp_path):
    (tmp_path / "one.py").write_text(
        "_a: dict[str, int] = {}\n_b = set()\n_c = {1: 2}\nD = None\ndef f():\n    e = []\n"
    )
    assert list(kept(tmp_path / "one.py")) == ["_a", "_b", "D"]
