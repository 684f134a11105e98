"""Traces the code that a config names: the modules it reaches, with a digest of each one's source.

A user's own modules count by their source, with everything of their own that they import; installed packages count by
their version, and those that Tutelage does not depend on also by the checksums of their files. Of Tutelage the source
of the parts that a config uses counts, and of what every training runs through.

Comments, docstrings and layout do not count. What code imports by a computed name, or reads from files, is not seen.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import secrets
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from tutelage.runtime import live_code
from tutelage.runtime.live_code import MAIN

_TRAINING = "tutelage.pipeline.fit"  # it imports everything that any training uses
_INSTALLED = {"site-packages", "dist-packages"}
# Distributions with another name than the package; searching for it takes half a second.
_DISTRIBUTIONS = {"hydra": "hydra-core", "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "PyYAML"}
_IMPORTERS = ("import_module", "__import__")
_SESSION = secrets.token_hex(8)  # stands for code that has no file: no later process finds what it made


@dataclass
class Traced:
    """The code that some names reach.

    Attributes:
        own: module of the user's → digest of its source.
        tutelage: module of ours → digest of its source.
        packages: installed packages that the names, or the modules that they stand in, come from.
    """

    own: dict[str, str] = field(default_factory=dict)
    tutelage: dict[str, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)


def trace(names: Iterable[str]) -> Traced:
    """Follows dotted names, such as those of ``_target_``, to their modules and to what these import."""
    found, names = Traced(), [*names]
    waiting = [name for name in names if _has_source(name, found.packages)]
    for module, path in {module: path for name in waiting for module, path in locate(name).items()}.items():
        for name in _read(module, path).imported:
            _has_source(name, found.packages)
    _follow([*waiting, _TRAINING], found)
    live = {name: live_code.named(name) for name in names if name.partition(".")[0] == MAIN}
    modules = {*found.own, *found.tutelage} - {MAIN}
    live |= live_code.replaced(sorted(modules), cache(lambda owner: owner not in modules and _is_users(owner)))
    for module in modules & _kept.keys():
        live |= live_code.other_values(module, _kept[module][1].constants)
    if live:
        digest, used = live_code.digest(live)
        _follow([name for name in used if _has_source(name, found.packages)], found)
        found.own[f"{MAIN} in memory"] = digest
    return found


def _is_users(module: str) -> bool:
    return not _is_ours(module) and _has_source(module, set())


def _follow(waiting: list[str], found: Traced) -> None:
    """Adds the modules that names are in, with all that these import."""
    seen = set(waiting)
    while waiting:
        for module, path in locate(waiting.pop()).items():
            home = found.tutelage if _is_ours(module) else found.own
            if module not in home:
                read = _read(module, path)
                home[module] = read.digest
                waiting += [name for name in read.imported - seen if _has_source(name, set())]
                seen |= read.imported


def _has_source(name: str, packages: set[str]) -> bool:
    """Checks whether a name has source that counts; an installed package is added to ``packages`` instead."""
    package = name.partition(".")[0]
    if package == "tutelage":
        return True
    if package in sys.stdlib_module_names and package != MAIN:
        return False
    modules = locate(name)
    if not modules or any(_INSTALLED.isdisjoint(path.parts) for path in modules.values()):
        return bool(modules)
    if version(package) is None:  # a file that was copied there by hand
        return True
    packages.add(package)
    return False


def locate(name: str) -> dict[str, Path]:
    """Module → file, for the longest part of a dotted name that is a module and for the packages around it.

    Nothing is imported. A module without a file (built in, a namespace package) is left out.
    """
    if (found := _located.get(name)) is None and (found := _locate(name)):
        _located[name] = found  # missing modules may appear later
    return found or {}


_located: dict[str, dict[str, Path]] = {}  # the lookup is slow, and every recipe needs a hundred


def _locate(name: str) -> dict[str, Path]:
    top, *parts = name.split(".")
    if top == MAIN:
        file = getattr(sys.modules[MAIN], "__file__", None)
        return {MAIN: Path(file) if file else Path(MAIN)}
    found: dict[str, Path] = {}
    spec, path = _spec(top), top
    while spec is not None:
        if spec.has_location and spec.origin:
            found[path] = Path(spec.origin)
        if not parts or spec.submodule_search_locations is None:
            break
        path = f"{path}.{parts.pop(0)}"
        spec = PathFinder.find_spec(path, list(spec.submodule_search_locations))
    return found


def _spec(top: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module that was put into sys.modules by hand has none
        return None


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "tutelage"


@dataclass(frozen=True)
class _Source:
    """The source of a module, as far as it is needed.

    Attributes:
        digest: of it.
        imported: the names that it imports.
        constants: those that it assigns once, to a number, a word or a tuple of them.
    """

    digest: str
    imported: frozenset[str] = frozenset()
    constants: Mapping[str, Any] = field(default_factory=dict)


_kept: dict[str, tuple[ModuleSpec, _Source]] = {}


def _read(module: str, path: Path) -> _Source:
    """Reads the source of a module.

    Of a module that is loaded the first answer stays until it is loaded again: what runs is what was there then,
    whatever an editor does to the file meanwhile.
    """
    loaded = getattr(sys.modules.get(module), "__spec__", None)
    if loaded is not None and module in _kept and _kept[module][0] is loaded:
        return _kept[module][1]
    parsed = _parse(module, path)
    if loaded is not None:
        _kept[module] = loaded, parsed
    return parsed


def _parse(module: str, path: Path) -> _Source:
    if module == MAIN and not path.is_file():
        return _Source(_SESSION)
    content = path.read_bytes()
    try:
        tree = ast.parse(content) if path.suffix == ".py" else None
    except (SyntaxError, ValueError):
        tree = None
    if tree is None:  # compiled, or for another Python
        return _Source(hashlib.sha256(content).hexdigest()[:20])
    imported, constants = frozenset(_imports(tree, module, path.name == "__init__.py")), dict(_constants(tree))
    text = ast.unparse(_without_docstrings(tree))
    return _Source(hashlib.sha256(text.encode()).hexdigest()[:20], imported, constants)


def _constants(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    stored = Counter(
        node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
            ):
                try:
                    found = ast.literal_eval(value)  # type: ignore[arg-type]
                    hash(found)
                except (ValueError, TypeError):
                    continue
                if stored[name] == 1:
                    yield name, found


def _imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """Yields the dotted names of all that a module imports, anywhere in it; not what type checkers alone read."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in _that_runs(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield from (start if name.name == "*" else f"{start}.{name.name}".lstrip(".") for name in node.names)
        elif isinstance(node, ast.Call) and _last_name(node.func) in _IMPORTERS:
            match node.args[:1]:
                case [ast.Constant(value=str() as name)]:
                    above = package[: len(package) + 1 - (len(name) - len(name.lstrip(".")))] if name[:1] == "." else []
                    yield ".".join([*above, name.lstrip(".")])


def _that_runs(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields every node of ``tree``, in no order, but none in the body of ``if TYPE_CHECKING:``."""
    left = [tree]
    while left:
        node = left.pop()
        yield node
        for_types = isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING"
        left.extend(node.orelse if for_types else ast.iter_child_nodes(node))  # type: ignore[attr-defined]


def _last_name(node: ast.expr) -> str:
    """Returns ``c`` of ``a.b.c``; empty of any other expression."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return str(name)
    return ""


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


@cache
def version(package: str) -> str | None:
    """The version of an installed package; with the checksums of its files, where Tutelage does not depend on it.

    None where it was not installed but put there.
    """
    name = _DISTRIBUTIONS.get(package, package)
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        if not (names := importlib.metadata.packages_distributions().get(package)):
            return None
        found = importlib.metadata.distribution(name := names[0])
    if name == "tutelage" or _plain(name) in _needed():
        return found.version
    lines = [line for line in (found.read_text("RECORD") or "").splitlines() if ",sha256=" in line]
    content = "\n".join(sorted(line for line in lines if ".dist-info/" not in line))
    return f"{found.version} {hashlib.sha256(content.encode()).hexdigest()[:12]}"


@cache
def _needed() -> frozenset[str]:
    """Tutelage's dependencies, those of its extras included."""
    try:
        lines = importlib.metadata.requires("tutelage") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that was not installed
        lines = []
    return frozenset(_plain(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
