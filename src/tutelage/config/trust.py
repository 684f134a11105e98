"""Checks configs found on disk before anything in them is built: headers of checkpoints, folders of runs.

Building a config runs the code that it names. Files may therefore name only networks, data and tasks of Tutelage,
metrics of torchmetrics, and networks of torch.nn, torchvision and timm; ``trust=[my_pkg]`` adds the networks and data
of another package. The user's own command line and yamls are not checked here.
"""

import importlib
import inspect
import re
import sys
import typing
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from tutelage.config.moved import current_name
from tutelage.errors import TutelageError

# Modules in which a target may be looked up → modules in which it must be defined.
_KNOWN = {
    "torch.nn": "torch.nn.modules",
    "torchvision.models": "torchvision",
    "torchvision.ops": "torchvision",
    "torchvision.transforms": "torchvision.transforms",
    "timm.models": "timm",
    "timm.layers": "timm",
    "tutelage.data": "tutelage.data",
    "tutelage.models": "tutelage.models",
    "tutelage.tasks": "tutelage.tasks",
    "torchmetrics.classification": "torchmetrics.classification",
    "torchmetrics.regression": "torchmetrics.regression",
}
_PARTS = (
    "tutelage.data.augment",
    "tutelage.data.crops",
    "tutelage.data.derived",
    "tutelage.data.each_image",
    "tutelage.data.erasing",
    "tutelage.data.mix",
    "tutelage.data.samplers",
    "tutelage.data.text.files",
    "tutelage.data.text.masking",
    "tutelage.data.text.movie_reviews",
    "tutelage.data.unlabelled",
    "tutelage.models.fewer_channels",
    "tutelage.models.quantised",
    "tutelage.models.word_vectors",
    "torchvision.transforms",
)  # of their classes any may be built
_TAPS = {"tutelage.models.timm.taps", "tutelage.models.torchvision.taps"}
# A file never downloads anything, and its own weights replace all others.
_REPLACED = {"download": False, "pretrained": False}
_DROPPED = ("mirrors", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
_DEEPEST = 40


def vetted(config: Any, file: object, trusted: Iterable[str] = ()) -> dict[str, Any]:
    """Returns a copy of a config that came with a file, safe to build.

    Only plain values pass, without interpolations, which could read the environment or create unchecked nodes. Every
    ``_target_`` is looked up and judged by its kind and by the module that defines it, since a name can lead elsewhere
    (``torch.nn.functional.torch.load`` is ``torch.load``). Unknown packages are not imported. Nothing is downloaded:
    ``download`` and ``pretrained`` become false and mirrors are dropped.

    Args:
        config: as it was read.
        file: where it came from, for messages.
        trusted: further packages, whose networks and data may be built.

    Raises:
        TutelageError: something in it may not be built, or is no plain value; or a package can't be trusted.
    """
    trusted = [trusted] if isinstance(trusted, str) else trusted
    if not isinstance(config, dict):
        raise TutelageError(f"{file}: expected a config (name → value), found {type(config).__name__}")
    return _copy(config, file, frozenset(map(_trustworthy, trusted)), 0)


def own_packages(config: Any) -> tuple[str, ...]:
    """Returns the packages of a config's ``_target_``s that a file may not name untrusted, sorted."""
    values = [*config.values()] if isinstance(config, dict) else config if isinstance(config, list) else []
    inner = {name for value in values for name in own_packages(value)}
    target = config.get("_target_") if isinstance(config, dict) else None
    own = {str(target).partition(".")[0]} if target is not None else set()
    return tuple(sorted(inner | {name for name in own if _never(name) is None}))


def _copy(node: Any, file: object, trusted: frozenset[str], depth: int) -> Any:
    if depth > _DEEPEST:
        raise TutelageError(f"{file}: its config is nested more than {_DEEPEST} levels deep")
    if isinstance(node, dict):
        if isinstance(target := node.get("_target_"), str):
            node = {**node, "_target_": current_name(target)}
        for key in node:
            _plain(key, file)
        copied = {key: _copy(value, file, trusted, depth + 1) for key, value in node.items()}
        if "_target_" in node:
            _check(node["_target_"], file, trusted)
            if node["_target_"].partition(".")[0] not in trusted:
                copied = {key: _REPLACED.get(key, value) for key, value in copied.items() if key not in _DROPPED}
        return copied
    if isinstance(node, list):
        return [_copy(value, file, trusted, depth + 1) for value in node]
    _plain(node, file)
    return node


def _plain(value: Any, file: object) -> None:
    if isinstance(value, str) and "${" in value:
        raise TutelageError(f"{file}: interpolations are not allowed in a file; found {value!r}")
    if value is not None and not isinstance(value, str | int | float):
        raise TutelageError(f"{file}: expected plain values, found {type(value).__name__}")


def _check(target: Any, file: object, trusted: frozenset[str]) -> None:
    """Raises TutelageError unless a file may build ``target``."""
    if not isinstance(target, str):
        raise TutelageError(f"{file}: _target_ must be a name, found {target!r}")
    module, _, name = target.rpartition(".")
    package = target.partition(".")[0]
    home = package if package in trusted else next((_KNOWN[at] for at in _KNOWN if _inside(module, at)), None)
    if home is None:
        raise TutelageError(f"{file} names {target}, {_REFUSED}{_advice(package)}")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # the module is anyone's code
        raise TutelageError(f"{file} names {target}, which can't be found ({error})") from error
    if not _inside(str(getattr(found, "__module__", "")), home) or not _is_network_or_data(found, package in trusted):
        raise TutelageError(f"{file} names {target}, {_REFUSED}")


_REFUSED = (
    "which is not allowed: files may name networks and data of Tutelage and networks (nn.Module) of torch.nn, "
    "torchvision and timm; and of a trusted package its subclasses of nn.Module and of Data, augmentation steps that "
    "declare `draws`, Datasets and LightningDataModules, and functions annotated to return one of these, or a Batch"
)


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _is_network_or_data(found: Any, trusted: bool) -> bool:
    home = f"{found.__module__}.{getattr(found, '__qualname__', '')}"
    from torch import nn  # imported late: it needs half a gigabyte

    from tutelage.data.module import Data
    from tutelage.tasks.base import Task

    if trusted and _is_foreign_data(found):
        return True
    if inspect.isclass(found):
        of_data = home.startswith(tuple(f"{module}." for module in _PARTS))
        step = trusted and "draws" in {**vars(found), **getattr(found, "__annotations__", {})}
        return issubclass(found, nn.Module | Data | Task) or of_data or step
    if not inspect.isfunction(found) or not (trusted or home.startswith("tutelage.")):
        return False
    return home in _TAPS or _returns_network(found)


def _is_foreign_data(found: Any) -> bool:
    """Checks for a dataset, a LightningDataModule, or a function that says that it returns one, or makes a batch."""
    from lightning import LightningDataModule
    from torch.utils.data import Dataset

    from tutelage.types import Batch

    if inspect.isclass(found):
        return issubclass(found, Dataset | LightningDataModule)
    returned = _returned(found)
    return returned == Batch or (inspect.isclass(returned) and issubclass(returned, Dataset | LightningDataModule))


def _returns_network(function: Any) -> bool:
    from torch import nn

    returned = _returned(function)
    return inspect.isclass(returned) and issubclass(returned, nn.Module)


def _returned(function: Any) -> Any:
    """Returns what a function is annotated to return, or None."""
    try:
        return typing.get_type_hints(function).get("return") if inspect.isfunction(function) else None
    except Exception:  # an annotation that names what is not there
        return None


# -- which packages a user may trust ----------------------------------------------------------------------------------


def _trustworthy(package: str) -> str:
    if not isinstance(package, str) or not package.isidentifier():
        raise TutelageError(f"trust: expected names of packages, such as trust=[my_pkg]; found {package!r}")
    if (reason := _never(package)) is not None:
        raise TutelageError(f"trust=[{package}]: {package} is {reason}, which can't be trusted as a whole")
    return package


def _never(package: str) -> str | None:
    if package in sys.stdlib_module_names:
        return "part of Python's standard library"
    return "a library that Tutelage is built on" if package in _libraries() else None


@cache
def _libraries() -> frozenset[str]:
    """Returns the modules of Tutelage and of every distribution that it requires, with its extras."""
    found, left = set[str](), ["tutelage"]
    while left:
        if (name := _canonical(left.pop())) in found:
            continue
        found.add(name)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # an extra that is not installed
            continue
        needs = [need for need in needs if "extra ==" not in need or name == "tutelage"]
        left += [match.group() for need in needs if (match := re.match(r"[\w.-]+", need))]
    modules = {name for name, owners in metadata.packages_distributions().items() if found & {*map(_canonical, owners)}}
    return frozenset({*modules, "tutelage", "hydra_plugins"})


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _advice(package: str) -> str:
    """Returns a hint how to allow a package, if it is the user's own."""
    if not package.isidentifier() or _never(package) is not None or not (package in sys.modules or find_spec(package)):
        return ""
    return f"; if you trust who made the file: trust=[{package}] (for a report: --trust {package})"
