"""Nodes of ``sources``: builds them, and finds the networks in them.

Some of a node's keys are the pipeline's own: how a network is trained, whether logits are computed once, how many
specialists there are. They stand beside the arguments of the source (:data:`OPTIONS`), which is built without them.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from tutelage.runtime.signatures import parameters
from tutelage.sources.base import Source
from tutelage.sources.ema_teacher import EMATeacher
from tutelage.sources.ensemble import Ensemble
from tutelage.sources.frozen import Frozen
from tutelage.sources.specialists import Specialists
from tutelage.sources.stale import Stale

OPTIONS: Mapping[type, frozenset[str]] = {
    Frozen: frozenset({"cache", "seed", "train"}),
    Ensemble: frozenset({"cache"}),
    Specialists: frozenset({"cache", "count"}),
}


LOADING = {"key": None, "prefix": None, "rename": None, "strict": True}  # how a checkpoint is read: option → default


def options(target: Any) -> frozenset[str]:
    """Returns the keys of a node that the pipeline reads, by its target; a class's own arguments are not among them."""
    if not isinstance(target, type):
        return frozenset()
    found = frozenset[str]().union(*(own for kind, own in OPTIONS.items() if issubclass(target, kind)))
    return found - parameters(target)[0]


def build(node: DictConfig) -> Source:
    """Builds a source, and those in it, without the pipeline's keys."""
    own = deepcopy(node)
    OmegaConf.set_readonly(own, False)
    OmegaConf.set_struct(own, False)
    _strip(own)
    made: Source = instantiate(own)
    return made


def _strip(node: Any) -> None:
    if isinstance(node, ListConfig):
        for item in node:
            _strip(item)
    elif isinstance(node, DictConfig):
        for option in options(get_object(node._target_)) & {*node} if "_target_" in node else ():
            del node[option]
        for key in node:
            if not OmegaConf.is_missing(node, key):
                _strip(node[key])


def networks(node: Any) -> Iterator[DictConfig]:
    """Returns the nodes of ``sources`` that are networks with weights of their own: those with a ``checkpoint``."""
    if isinstance(node, DictConfig):
        if "checkpoint" in node:
            yield node
        else:
            for key in node:
                if not OmegaConf.is_missing(node, key):  # such as a file of recorded outputs that is to be said
                    yield from networks(node[key])
    elif isinstance(node, ListConfig):
        for item in node:
            yield from networks(item)


def trained_beside(sources: Mapping[Any, Any]) -> dict[str, DictConfig]:
    """Returns the configs of networks that train beside the student, by their folder in the student's."""
    return {
        f"{name!s}/{number}": network
        for name, node in sources.items()
        for number, network in enumerate(node.get("networks") or ())
    }


def copies(sources: Mapping[Any, Any]) -> Iterator[str]:
    """Returns the names of the sources whose networks are copied, and asked in each step, once for each copy."""
    for node in sources.values():
        target = get_object(node._target_)
        if isinstance(target, type) and issubclass(target, EMATeacher):
            yield "student"
        elif isinstance(target, type) and issubclass(target, Stale):
            yield from build(node).of  # type: ignore[misc]


def loading(node: DictConfig) -> dict[str, Any]:
    """Returns how the checkpoint of a network is read, the options of ``load_into``."""
    plain: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    return {option: plain[option] for option in LOADING if plain.get(option) is not None}


def without_files(sources: DictConfig) -> Any:
    """Returns plain values without the networks' files; a recipe has the digests of their weights instead."""
    plain = OmegaConf.create(OmegaConf.to_container(sources, resolve=True))
    for node in networks(plain):
        node.checkpoint = node.seed = node.cache = node.key = node.prefix = None
        for option in ("train", "rename", "strict"):
            node.pop(option, None)
    return OmegaConf.to_container(plain)
