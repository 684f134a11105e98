"""Maps names of the previous release: updates `_target_`s of users' yamls and of checkpoints' headers.

To be removed with the next release.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)

_LOSSES = {
    "logit": "soft_target logit_mse dkd nkd dist dtkd lskd ctkd mlkd ttm wsld tfkd pskd soft_tree dustbin",
    "feature": "fitnet at vid nst fsp ab ofd ft reviewkd srrl mgd simkd cat_kd adapt",
    "relation": "rkd sp pkt cc crd",
}
# Old name below `tutelage.` → new one; of a module, or of a class where that was renamed too.
_MOVED = {
    **{f"losses.{name}": f"losses.{kind}.{name}" for kind, names in _LOSSES.items() for name in names.split()},
    "callbacks": "training.callbacks",
    "callbacks.pulls.Pulls": "training.callbacks.gradient_norms.GradientNorms",
    "schedules": "losses.schedules",
    "sharding": "training.fsdp",
    "sources.adapter": "models.adapter",
    "sources.asked.Asked": "sources.black_box.BlackBoxTeacher",
    "sources.momentum.Momentum": "sources.ema_teacher.EMATeacher",
    "sources.tapped": "models.tapped",
}

_CHOICES = {"sources=asked": "sources=black_box", "sources=momentum": "sources=ema_teacher"}


def warn_of_choices(overrides: Iterable[str]) -> None:
    """Warns of choices by their old names; those yamls only forward to the present ones."""
    for override in overrides:
        if new := _CHOICES.get(override.lstrip("+")):
            log.warning("%s is now %s; the old name works in this release only", override.lstrip("+"), new)


def current_name(target: str) -> str:
    """Returns the present name of a class or function of the previous release; most are unchanged."""
    package, *parts = target.split(".")
    for count in range(len(parts), 0, -1):
        if package == "tutelage" and (new := _MOVED.get(".".join(parts[:count]))):
            renamed = ".".join([package, new, *parts[count:]])
            log.warning("%s is now %s; the old name works in this release only", target, renamed)
            return renamed
    return target


def update_targets(cfg: DictConfig) -> None:
    """Replaces old names in every ``_target_`` of ``cfg`` by the present ones, with a warning for each."""
    for path, target in _targets(OmegaConf.to_container(cfg, resolve=False), ()):
        if (new := current_name(target)) != target:
            node: Any = cfg
            for key in path:
                node = node[key]
            node["_target_"] = new


def _targets(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yields the path and the ``_target_`` of every node that has one."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if key == "_target_" and isinstance(value, str):
            yield path, value
        yield from _targets(value, (*path, key))
