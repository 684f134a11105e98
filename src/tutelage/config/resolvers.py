"""Resolvers for the yamls: ``${…:…}`` that compute a value.

``${one_minus:a}``, ``${product:a,b}`` and ``${minimum:a,b}``; ``${positive:a}`` is 1 for a > 0, else 0;
``${whole:a}`` is the nearest integer;
``${share:a}`` is min(1, 2a), for methods published as CE + w·X: with ``share(1 − alpha)`` and ``w·share(alpha)``
alpha = ½ is the paper, 0 the control, 1 uses no label;
``${stages:…}`` and ``${tap:…}`` are what a loss reads of a network (:func:`_stages`, :func:`_tap`);
``${layers:…}`` and ``${heads:…}`` of transformers are in :mod:`tutelage.config.layer_maps`;
``${setting:a,a,1,b,2}`` is 1, the value of setting a;
``${copies:n,${net},seed}`` are n frozen networks that differ by seed, ``${repeat:n,a,b}`` n times a, or b;
``${unique:}`` and ``${folder_name:…}`` name folders; ``${run_folder:}`` is the job's, or null outside of a job;
``${found:num_classes}`` is what data of one's own say (:mod:`tutelage.config.found`), ``${num_outputs:}`` and
``${vocab_size:}`` what networks need of it;
``${count_classes:root}`` counts the classes of a folder of images; ``${hf_config:folder}`` is a network's own config.
"""

import hashlib
import re
import secrets
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from tutelage.config import layer_maps
from tutelage.config.found import found
from tutelage.data.folder_scan import class_folders
from tutelage.errors import TutelageError
from tutelage.runtime import masking


def register() -> None:
    """Registers the resolvers with OmegaConf; may be called repeatedly."""
    OmegaConf.register_new_resolver("oc.env", masking.environment, replace=True)
    OmegaConf.register_new_resolver("one_minus", lambda x: 1.0 - float(x), replace=True)
    OmegaConf.register_new_resolver("share", lambda x: min(1.0, 2.0 * float(x)), replace=True)
    OmegaConf.register_new_resolver("minimum", min, replace=True)
    OmegaConf.register_new_resolver("whole", lambda x: round(float(x)), replace=True)
    OmegaConf.register_new_resolver("stages", _stages, replace=True)
    OmegaConf.register_new_resolver("tap", _tap, replace=True)
    OmegaConf.register_new_resolver("setting", _setting, replace=True)
    OmegaConf.register_new_resolver("copies", _copies, replace=True)
    OmegaConf.register_new_resolver("repeat", _repeat, replace=True)
    OmegaConf.register_new_resolver("product", _product, replace=True)
    OmegaConf.register_new_resolver("positive", lambda x: float(float(x) > 0), replace=True)
    OmegaConf.register_new_resolver("found", found, replace=True)
    OmegaConf.register_new_resolver("num_outputs", _num_outputs, replace=True)
    OmegaConf.register_new_resolver("vocab_size", _vocab_size, replace=True)
    OmegaConf.register_new_resolver("layers", layer_maps.layers, replace=True)
    OmegaConf.register_new_resolver("heads", layer_maps.heads, replace=True)
    OmegaConf.register_new_resolver("count_classes", _count_classes, replace=True)
    OmegaConf.register_new_resolver("hf_config", _hf_config, replace=True)
    OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), replace=True, use_cache=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)


def _stages(
    source: str, given: ListConfig | None, ending: str = "", also: str = "", *, _root_: DictConfig
) -> ListConfig:
    """Returns the names of the signals that a loss over stages reads of a network, ``<source>.<tap><ending>`` each.

    Args:
        source: ``student`` or ``teacher``.
        given: taps; None for the network's own ``maps``, of both networks the last n, n being the smaller number.
        ending: what the taps' names end in, such as ``_preact``; not that of ``embedding``.
        also: what goes with the networks' own maps: ``stem`` before them, if both have it, or ``embedding`` after.
    """
    taps = list(_maps(source, _root_) if given is None else given)
    if given is None and also == "stem" and _both_have("stem", _root_):
        taps.insert(0, also)
    if given is None and also == "embedding":
        taps.append(also)
    return OmegaConf.create([f"{source}.{tap}{'' if tap == 'embedding' else ending}" for tap in taps])


def _num_outputs(*, _root_: DictConfig) -> int | None:
    """Returns the width of the last axis of logits: ``data.num_outputs``, else ``data.num_classes``."""
    wide = _root_.data.get("num_outputs")
    return _root_.data.num_classes if wide is None else wide


def _vocab_size(whose: str = "", *, _root_: DictConfig) -> int | None:
    """Returns the number of token ids, ``data.vocab_size``; None for data that are no text, which networks refuse.

    Args:
        whose: ``student`` for those of ``data.student_tokenizer``.
    """
    return _root_.data.get(f"{whose}_vocab_size" if whose else "vocab_size")


def _tap(source: str, given: str | None, place: int | str, *, _root_: DictConfig) -> str:
    """Returns the name of the signal that a loss reads of a network, ``<source>.<tap>``.

    Args:
        source: ``student`` or ``teacher``.
        given: a tap; None for the one at ``place``.
        place: of the network's maps; or a tap. Where not both networks have it: ``embedding``.
    """
    if given is None and isinstance(place, str):
        given = place if _both_have(place, _root_) else "embedding"
    elif given is None:
        maps = _maps(source, _root_) if all(_root_[name].get("maps") for name in _NETWORKS) else ["embedding"]
        given = maps[max(min(int(place), len(maps) - 1), -len(maps))]
    return f"{source}.{given}"


_NETWORKS = ("student", "teacher")


def _maps(source: str, root: DictConfig) -> list[str]:
    """Returns a network's stage taps, as many as both networks have; three where its config names none."""
    maps = {name: list(root[name].get("maps") or ["stage1", "stage2", "stage3"]) for name in _NETWORKS}
    return maps[source][-min(map(len, maps.values())) :]


def _both_have(tap: str, root: DictConfig) -> bool:
    return all(tap in (root[name].get("taps") or ()) for name in _NETWORKS)


def _setting(chosen: str, *values: float | str) -> float | str:
    """Returns the value of ``chosen`` from ``values``, which are a name and its value in turn."""
    table = dict(zip(map(str, values[::2]), values[1::2], strict=True))
    if chosen not in table:
        raise TutelageError(f"loss.setting: expected {' or '.join(table)}, found {chosen!r}")
    return table[chosen]


def _copies(size: int, net: DictConfig, seed: int) -> ListConfig:
    """Returns configs of ``size`` frozen networks like ``net`` with the seeds from ``seed`` on."""
    content = OmegaConf.to_container(net, resolve=True)
    frozen = {"_target_": "tutelage.sources.frozen.Frozen", "net": content, "checkpoint": None}
    return OmegaConf.create([{**frozen, "seed": seed + number} for number in range(size)])


def _repeat(count: int, *nets: DictConfig | None) -> ListConfig:
    """Returns the first network's config that is not null, ``count`` times."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise TutelageError(f"a number of networks (peers.count, loss.branches) must be 1, 2, 3 …; found {count!r}")
    return OmegaConf.create([OmegaConf.to_container(next(filter(None, nets)), resolve=True)] * count)


def _hf_config(*arguments: Any) -> Any:
    """Imported where it is asked for: it needs torch, which takes seconds."""
    from tutelage.models.hugging_face import config_of

    found = config_of(*arguments)
    return None if found is None else OmegaConf.create(found)  # a plain dict is no value of a node


def _count_classes(root: str) -> int:
    """Returns the number of classes of the image folder ``root``."""
    return len(class_folders(Path(root).absolute()))


def _product(*factors: float) -> float:
    result = 1.0
    for factor in factors:
        result *= float(factor)
    return result


def _run_folder() -> str | None:
    if not HydraConfig.initialized() or OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):
        return None  # a config that is only printed
    return str(HydraConfig.get().runtime.output_dir)


def folder_name(name: str, number: object = "") -> str:
    """Returns a readable name for a job's folder, without path separators.

    That is ``name``, or ``number`` if it is empty. Different names never share a folder: a name
    with other characters, more than 120 (cut) or a secret (left out) ends in a digest of the whole name.
    """
    plain = re.sub(r"[^\w.,=+@-]+", "_", masking.hide(name))
    if plain == name and len(plain) <= 120:
        return plain or str(number)
    return f"{plain[:107]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
