"""Whose code a file may run.

The header of a checkpoint says what to build, and to build is to run code: a file from a stranger gets networks and
data of ours and networks of a few libraries. What stands on the user's own command line and in their yamls is theirs.
"""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.utils import get_object
from torch import nn

from tutelage.errors import TutelageError

_OURS = ("tutelage.data.", "tutelage.models.", "tutelage.sources.adapter", "tutelage.sources.tapped")
_NETWORKS = ("torch", "torchvision", "timm")


def refuse_strangers(config: Any, file: object, trusted: Iterable[str] = ()) -> None:
    """Looks at every ``_target_`` of a config that came with a file.

    Names lead elsewhere (``torch.nn.functional.torch.load`` is ``torch.load``), so what counts is where the object that
    a name leads to was defined. Packages that are not known are not even imported.

    Args:
        config: plain dicts and lists.
        file: where it came from, for the message.
        trusted: further packages whose code may run.

    Raises:
        TutelageError: a target is none of Tutelage's networks or data, no network of torch, torchvision or timm, and
            of no package that is trusted.
    """
    for target in _targets(config):
        if not _may_run(target, {*trusted}):
            package = target.partition(".")[0]
            raise TutelageError(
                f"{file} wants to run {target}, which is no network or data that Tutelage knows; if you trust who made "
                f"the file: trust=[{package}]"
            )


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def _may_run(target: str, trusted: set[str]) -> bool:
    package = target.partition(".")[0]
    if package in trusted:
        return True
    if package not in {"tutelage", *_NETWORKS}:
        return False
    try:
        found = get_object(target)
    except Exception as error:
        raise TutelageError(f"cannot find {target} ({error})") from error
    home = str(getattr(found, "__module__", ""))
    if inspect.isclass(found):
        return home.startswith(_OURS) or (issubclass(found, nn.Module) and home.partition(".")[0] in _NETWORKS)
    return inspect.isfunction(found) and home.startswith("tutelage.models.")
