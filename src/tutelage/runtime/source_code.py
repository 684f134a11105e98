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
import secrets
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from tutelage.runtime import live_code
from tutelage.runtime.live_code import MAIN
from tutelage.runtime.package_versions import version

_TRAINING = "tutelage.pipeline.fit"  # it imports everything that any training uses
_INSTALLED = {"site-packages", "dist-packages"}
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
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
    if package in sys.stdlib_module_names:
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
        constants: path → number, word or tuple of them, of what it assigns once: its own names, those of its classes
            and defaults of functions.
    """

    digest: str
    imported: frozenset[str] = frozenset()
    constants: Mapping[tuple[str | int, ...], Any] = field(default_factory=dict)


_kept: dict[str, tuple[Any, _Source]] = {}


def _read(module: str, path: Path) -> _Source:
    """Reads the source of a module.

    Of a module that is loaded the first answer stays until it is loaded again: what runs is what was there then,
    whatever an editor does to the file meanwhile. If that was done before the first answer, nobody can tell the source
    of what runs: it is that of this session alone.
    """
    loaded = sys.modules.get(module)
    version = loaded if (spec := getattr(loaded, "__spec__", None)) is None else spec  # a script has none
    if version is not None and module in _kept and _kept[module][0] is version:
        return _kept[module][1]
    source = _parse(module, path)
    if loaded is not None and path.is_file():
        if path.suffix == ".py" and (live := live_code.edited(module, path.read_bytes(), str(path))):
            source = replace(source, digest=f"{_SESSION}-{live}", constants={})
        _kept[module] = version, source
    return source


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


def _constants(tree: ast.Module) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    names += [
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    ]
    names += [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    stored = Counter(names)
    for path, value in _assigned(tree, ()):
        if stored[str(path[0])] <= 1 and stored[str(path[-1])] <= 1:
            try:
                found = ast.literal_eval(value)
                hash(found)
            except (ValueError, TypeError):
                continue
            yield path, found


def _assigned(
    node: ast.Module | ast.ClassDef, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    defined = Counter(one.name for one in node.body if isinstance(one, _DEFINITIONS))
    for one in node.body:
        if isinstance(one, _DEFINITIONS) and (defined[one.name] > 1 or one.decorator_list):
            continue  # what a decorator makes of it is not known
        match one:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
            ):
                yield (*path, name), value
            case ast.ClassDef(name=name):
                yield from _assigned(one, (*path, name))
            case ast.FunctionDef(name=name, args=arguments):
                yield from (((*path, name, "__defaults__", i), value) for i, value in enumerate(arguments.defaults))
                yield from (
                    ((*path, name, "__kwdefaults__", argument.arg), value)
                    for argument, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
                )


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
