"""Identifies the result of a config: relevant values, the code that they name, files by content, versions.

Recipes of artifacts and records of runs consist of it, so that nothing made with other code, weights or data is reused
or resumed.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tutelage.errors import TutelageError
from tutelage.runtime import manifest
from tutelage.runtime.file_lists import WEIGHTS, hub_files, listed, listing_digest, package_files
from tutelage.runtime.files import file_digest, recipe_digest
from tutelage.runtime.json_files import read_json, write_json
from tutelage.runtime.masking import WRITERS
from tutelage.runtime.package_versions import version
from tutelage.runtime.source_code import trace

NAME = "identity.json"  # in a run's folder

# Keys that change how a job runs or is shown, but not its outcome. No digest includes them; those of callbacks, data
# and trainer are left out below ``stages.<name>``, too.
COSMETIC = (
    "paths", "reuse", "logger", "stages.teacher.workers",
    "callbacks.progress", "callbacks.recovery",
    "data.cache", "data.class_names", "data.download", "data.eval_batch_size", "data.mirrors", "data.num_workers",
    "data.root", "data.test_root", "data.val_root", "data.verify",
    "trainer.enable_model_summary", "trainer.log_every_n_steps",
)  # fmt: skip
_NAMES = {"fields", "unlabelled"}  # keys of data below which a single word names no folder
_STAGE = re.compile(r"stages\.\w+\.(?=(callbacks|data|trainer)\.)")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def is_cosmetic(key: str) -> bool:
    """Checks whether a dotted key of a config is one of :data:`COSMETIC`, or below one."""
    parts = _STAGE.sub("", key).split(".")
    return any(".".join(parts[:count]) in COSMETIC for count in range(1, len(parts) + 1))


def essential(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a job's or a stage's config without the keys that are :data:`COSMETIC`."""
    return _essential(config, "")


def _essential(node: Mapping[str, Any], path: str) -> dict[str, Any]:
    kept = {}
    for key, value in node.items():
        name = f"{path}{key}"
        if not is_cosmetic(name):
            kept[key] = _essential(value, f"{name}.") if isinstance(value, Mapping) else value
    return kept


def with_contents(node: Any, *keys: str) -> Any:
    """Returns plain values in which what names files is replaced by the SHA-256s of their content.

    That is the path of a file or of a network's folder, the installed package or (in the local cache) the hub's
    repository of ``pretrained``, and of a user's data (:func:`_names_files`) a folder or pattern (``shards/*.tar``),
    whose files count by path, size and time.

    Args:
        node: of a config, as plain values.
        keys: of the node, from the outermost on.
    """
    if isinstance(node, Mapping):
        return {key: value if key in WRITERS else with_contents(value, *keys, key) for key, value in node.items()}
    if isinstance(node, list):
        return [with_contents(value, *keys) for value in node]
    found = [f"sha256:{digest}" for digest in _contents(keys, node).values()]
    return node if not found else found[0] if len(found) == 1 else found


def files(node: Any) -> dict[str, str]:
    """Returns the SHA-256 of the files that a config names, by its keys; see :func:`with_contents`."""
    found: dict[str, str] = {}
    for key, value in _leaves(node):
        if not {*WRITERS} & {*(keys := re.sub(r"\[\d+\]", "", key).split("."))}:
            found |= {f"{key}{name}": digest for name, digest in _contents(keys, value).items()}
    return found


def _contents(keys: Sequence[str], value: Any) -> dict[str, str]:
    """Returns name below the key → SHA-256, of each file or folder that a value names."""
    if (path := _path(value)) is None:
        return {}
    if path.is_file():
        return {"": file_digest(path)}
    if (path / "config.json").is_file():  # a network as transformers writes it
        return {
            f"/{file.name}": file_digest(file) for file in (path / "config.json", *sorted(path.glob("*.safetensors")))
        }
    if keys and keys[-1] == "pretrained" and not path.exists():
        held = package_files(value, WEIGHTS) or hub_files(value, (*WEIGHTS, ".json"))
        return {f"/{file.name}": file_digest(file) for file in held}
    return {"": listing_digest(found)} if _names_files(keys, value) and (found := listed(path)) else {}


def _names_files(keys: Sequence[str], value: str) -> bool:
    """Checks whether a folder or pattern is one of a user's data: ``data.path``, or an argument of a dataset there.

    What our own data read, below their root, is part of their fingerprint.
    """
    below = [*keys][keys.index("data") + 1 :] if "data" in keys else []
    return below == ["path"] or (len(below) > 1 and (os.sep in value or not _NAMES & {*below}))


def made_with(node: Any) -> dict[str, Any]:
    """Returns the code that a config names, and versions, as JSON values for a recipe."""
    import torch  # slow, and what reads runs needs the names of this module only

    names = {value for _, value in _leaves(node) if isinstance(value, str) and _DOTTED.fullmatch(value)}
    traced = trace(names)
    ours = f"{version('tutelage') or 'checkout'} {recipe_digest(traced.tutelage)}"
    others = {package: version(package) for package in sorted(traced.packages - {"torch"})}
    return {"code": traced.own, "versions": {"tutelage": ours, "torch": torch.__version__, **others}}


def of_run(cfg: DictConfig, data: str, teachers: Mapping[str, str] | None = None) -> dict[str, dict[str, str]]:
    """Returns the identity of all that a run depends on beside the values of its config.

    Args:
        cfg: the whole config.
        data: the data's fingerprint.
        teachers: source → digest of the weights that teach; None before they are known.
    """
    plain = essential(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    known = {"data": {"": data}, "file": files(plain), **made_with(plain)}
    return known if teachers is None else known | {"weights of": dict(teachers)}


def hold(folder: Path, found: Mapping[str, Mapping[str, str]]) -> None:
    """Records in a run's folder what it depends on, before its student is trained.

    Raises:
        TutelageError: its training was started with other contents; names what changed.
    """
    path, begun = folder / NAME, folder / "checkpoints"
    if path.exists() and begun.is_dir() and any(begun.iterdir()):
        try:
            changed = changes(folder, found)
        except TutelageError as error:
            manifest.set_aside(begun, f"{error}: it is unknown what the student was trained with")
            changed = []
        if changed:
            raise TutelageError(
                f"{folder}: its student was trained with other contents of {', '.join(changed)}; delete {begun} to "
                "train it again, or choose another hydra.run.dir"
            )
    write_json(path, found)


def changes(folder: Path, found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Returns the names of what has changed since a run's folder was made, among the parts in ``found``.

    Raises:
        TutelageError: the folder does not say.
    """
    noted = read_json(folder / NAME)
    if not isinstance(noted, dict) or not all(isinstance(part, dict) for part in noted.values()):
        raise TutelageError(f"{folder / NAME} is damaged: expected names and digests")
    names = [(part, name) for part in found for name in {**noted.get(part, {}), **found[part]}]
    differ = [(part, name) for part, name in names if noted.get(part, {}).get(name) != found[part].get(name)]
    return [f"{part} {name}".strip() for part, name in differ]


def _path(value: Any) -> Path | None:
    """Returns a text as a path that the file system can be asked about; None if it can be none."""
    if not isinstance(value, str) or not value or "\n" in value:
        return None
    try:
        path = Path(value).expanduser()
        path.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, no such user, a zero byte
        return None
    return path


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _leaves(value, f"{path}[{i}]")
    else:
        yield path, node
