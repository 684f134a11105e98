"""Digests code that no file tells: what a notebook or a script defines, and what it put in the place of other code.

A function counts by its bytecode, defaults, captured values and the names of its ``__main__`` that it reads, a class by
its attributes and bases, and so do plain values, arrays, tensors, data classes and objects of a class of ``__main__``.
Other objects count by their type alone.
"""

import dataclasses
import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, singledispatchmethod
from importlib.machinery import SourceFileLoader
from types import CellType, CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

MAIN = "__main__"
_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))
# Of a class: what Python writes itself, and what says nothing of what it computes.
_UNREAD = {
    "__annotations__", "__dict__", "__doc__", "__firstlineno__", "__module__", "__static_attributes__", "__weakref__",
}  # fmt: skip


def named(name: str) -> Any:
    """Returns the object with a dotted name in a loaded module; None where there is none."""
    top, *parts = name.split(".")
    found: Any = sys.modules.get(top)
    for part in parts:
        found = getattr(found, part, None)
    return found


def replaced(modules: Iterable[str], is_foreign: Callable[[str], bool]) -> dict[str, Any]:
    """Returns the functions and classes that other code has put into loaded modules and their classes.

    Args:
        modules: names of those that are looked at.
        is_foreign: module → whether code of it is none that the modules have themselves.

    Returns:
        Dotted name → what stands there now.
    """
    found: dict[str, Any] = {}
    for module in modules:
        for name, value in [*vars(sys.modules[module]).items()] if module in sys.modules else ():
            if isinstance(value, type) and value.__module__ == module:
                found |= {
                    f"{module}.{name}.{attribute}": held
                    for attribute, held in [*vars(value).items()]
                    if any(is_foreign(owner) for owner in _owners(held))
                }
            elif any(is_foreign(owner) for owner in _owners(value)):
                found[f"{module}.{name}"] = value
    return found


def edited(module: str, source: bytes, file: str) -> str:
    """Returns a digest of a loaded module's functions if they are no longer those of its file; else an empty text.

    Modules that a loader of its own has rewritten, as a checker of types does, are taken to be as their file says.
    """
    loaded = sys.modules[module]
    if type(getattr(loaded, "__loader__", None)) is not SourceFileLoader:
        return ""
    in_memory = {_written(code) for code in _own_codes(module, os.path.basename(file))}
    try:
        whole = compile(source, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):  # in the middle of an edit
        whole = compile("", file, "exec")
    if in_memory <= {_written(code) for code in _codes(whole)}:
        return ""
    return hashlib.sha256(repr(sorted(in_memory)).encode(errors="surrogatepass")).hexdigest()[:20]


def _own_codes(module: str, file: str) -> Iterator[CodeType]:
    """Yields the code of functions and methods of a loaded module that stand in its file."""
    names = vars(sys.modules[module])
    for value in [*names.values()]:
        held = [*vars(value).values()] if isinstance(value, type) and value.__module__ == module else [value]
        for function in (part for one in held for part in _parts(one) or (one,)):
            if not isinstance(function, FunctionType) or function.__globals__ is not names:
                continue
            if os.path.basename(function.__code__.co_filename) == file:  # not what a decorator wrote
                yield function.__code__


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yields all code inside of a module's or function's."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _written(code: CodeType) -> str:
    """Returns code as text, wherever it stands in its file."""
    constants = [
        _written(one) if isinstance(one, CodeType) else sorted(map(repr, one)) if isinstance(one, frozenset) else one
        for one in code.co_consts
    ]
    return repr((code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_flags, constants))


def other_values(module: str, constants: Mapping[tuple[str | int, ...], Any]) -> dict[str, Any]:
    """Returns those constants of a loaded module that have another value now than its source says, by dotted name."""
    if module not in sys.modules:
        return {}
    now = {path: _at(sys.modules[module], path) for path in constants}
    return {
        ".".join([module, *map(str, path)]): now[path]
        for path, value in constants.items()
        if type(now[path]) in (*_PLAIN, tuple) and repr(now[path]) != repr(value)
    }


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    """Returns what stands at a path of names and of places in a tuple; ``NotImplemented`` where nothing does."""
    for part in path:
        held = value if isinstance(value, tuple | dict) else getattr(value, "__dict__", {})
        if part in ("__defaults__", "__kwdefaults__"):
            value = getattr(value, part, None)
        elif isinstance(held, tuple):
            value = held[part] if isinstance(part, int) and part < len(held) else NotImplemented
        else:
            value = held.get(part, NotImplemented)
    return value


def _owners(value: Any) -> list[str]:
    """Returns the modules in which a function, a class or the functions of a method were written."""
    if isinstance(value, FunctionType):
        return [value.__globals__.get("__name__", "")]
    if isinstance(value, type):
        return [value.__module__]
    return [owner for part in _parts(value) for owner in _owners(part)]


def _parts(value: Any) -> tuple[Any, ...]:
    """Returns the functions of a method that is written as a static one, as one of the class or as a property."""
    if isinstance(value, staticmethod | classmethod):
        return (value.__func__,)
    return (value.fget, value.fset, value.fdel) if isinstance(value, property) else ()


def digest(objects: Mapping[str, Any]) -> tuple[str, set[str]]:
    """Returns a digest of objects by their code as it is now, and the names of other modules that they use."""
    reader = _CodeReader()
    for name, value in sorted(objects.items()):
        reader.note(name)
        reader.read(value)
    return reader.hash.hexdigest()[:20], reader.modules


class _CodeReader:
    """Reads objects into a hash, each one once.

    Attributes:
        hash: of what was read.
        modules: that functions and classes come from which were met; only those of ``__main__`` are read, and those
            that were asked for.
    """

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.modules: set[str] = set()
        self._seen: dict[int, Any] = {}  # holds the objects too: an id is taken again after its object's end

    def note(self, *values: Any) -> None:
        self.hash.update(repr(values).encode(errors="surrogatepass"))

    def read(self, value: Any) -> None:
        if isinstance(value, _PLAIN):
            self.note(value)
            return
        self.note(type(value).__qualname__)
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        self._content(value)

    @singledispatchmethod
    def _content(self, value: Any) -> None:
        if dataclasses.is_dataclass(value):
            self.read({field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)})
        elif hasattr(value, "__array__"):
            self._array(value)
        else:
            self.note(getattr(value, "__module__", ""), getattr(value, "__qualname__", ""))
        self.read(type(value))
        if type(value).__module__ == MAIN or hasattr(value, "state_dict"):
            self.read(getattr(value, "__dict__", None))

    @_content.register(list | tuple)
    def _sequence(self, values: Any) -> None:
        self._all(values)

    @_content.register(dict)
    def _mapping(self, values: dict[Any, Any]) -> None:
        self._all(x for pair in values.items() for x in pair)

    @_content.register(set | frozenset)
    def _set(self, values: Any) -> None:
        self.note(sorted(map(repr, values)))

    @_content.register(staticmethod | classmethod | property)
    def _method(self, method: Any) -> None:
        self._all(_parts(method))

    @_content.register
    def _partial(self, made: partial) -> None:
        self._all((made.func, made.args, made.keywords))

    @_content.register
    def _module(self, module: ModuleType) -> None:
        self.modules.add(module.__name__)

    @_content.register
    def _namespace(self, values: SimpleNamespace) -> None:
        self.read(vars(values))

    def _all(self, values: Iterable[Any]) -> None:
        for value in values:
            self.read(value)

    def _array(self, value: Any) -> None:
        import numpy as np  # slow for what has no array

        held = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        self.note(held.shape, str(held.dtype), hashlib.sha256(np.ascontiguousarray(held).tobytes()).hexdigest())

    @_content.register
    def _function(self, function: FunctionType) -> None:
        owner = function.__globals__.get("__name__", "")
        self.note(owner, function.__qualname__)
        captured = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
        if owner != MAIN:
            self.modules.add(owner)
            self._all(value for value in captured if isinstance(value, _PLAIN))
            return
        self._code(function.__code__, function)
        self._all((captured, function.__defaults__, function.__kwdefaults__, getattr(function, "__wrapped__", None)))

    def _code(self, code: CodeType, function: FunctionType) -> None:
        self.note(code.co_code, code.co_names, code.co_varnames, code.co_flags)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._code(constant, function)
            elif constant != function.__doc__:
                self.read(constant)
        for name in code.co_names:
            if name in function.__globals__:
                self.read(function.__globals__[name])

    @_content.register
    def _class(self, found: type) -> None:
        self.note(found.__module__, found.__qualname__)
        if found.__module__ != MAIN:
            self.modules.add(found.__module__)
            return
        self._all(found.__bases__)
        for name, value in sorted(vars(found).items()):
            if name not in _UNREAD and not inspect.isgetsetdescriptor(value):
                self.note(name)
                self.read(value)
