"""Hooks are declared in a base class or a protocol, not looked up by name where they are used."""

import ast
from collections.abc import Iterator
from pathlib import Path

import tutelage
from tutelage.data.base import ImageData
from tutelage.data.module import Data
from tutelage.losses.base import Loss
from tutelage.models.tapped import ReadsSources
from tutelage.sources.base import Source

ROOT = Path(tutelage.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = {
    name for kind in (Loss, Source, ReadsSources, Data, ImageData) for name in vars(kind) if not name.startswith("_")
}
# Objects of other libraries, of which some have a method and some have not.
FOREIGN = {
    "data/chance.py": "set_random_seed", "data/datamodule.py": "setup", "data/found_labels.py": "names",
    "data/dataset.py": "vocab_size", "data/streamed.py": "vocab_size",
}  # fmt: skip
VIEW = ROOT / "losses" / "base.py"  # the one place that looks at modules without a base


def lookups(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yields every call of ``getattr``, ``hasattr`` and ``callable`` in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if named and node.func.id in ("getattr", "hasattr", "callable"):
            yield node.func.id, node


def unwrapped(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.NamedExpr) else node


def is_getattr(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr"


def looked_up_hooks(path: Path) -> list[str]:
    """Returns the places where a file looks a hook up by its name."""
    theirs, found = FOREIGN.get(path.relative_to(ROOT).as_posix()), []
    for name, call in lookups(path):
        if name == "callable":
            looked_up = unwrapped(call.args[0])
            if is_getattr(looked_up) and repr(theirs) not in ast.unparse(looked_up):
                found.append(f"{path}:{call.lineno}: callable(getattr(…))")
        elif isinstance(key := call.args[1], ast.Constant) and key.value in NAMES - {theirs}:
            found.append(f"{path}:{call.lineno}: {name}(…, {key.value!r})")
    return found


def test_no_hook_is_looked_up_by_its_name():
    assert [line for path in FILES if path != VIEW for line in looked_up_hooks(path)] == []


def test_every_hook_has_a_docstring():
    for kind in (Loss, Source, ReadsSources, Data, ImageData):
        for name, value in vars(kind).items():
            if callable(value) and not name.startswith("_"):
                assert value.__doc__, f"{kind.__name__}.{name}"
