"""Caches teacher signals: computed once per example instead of once an epoch."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tutelage.checkpoints.weights import digest, read_state
from tutelage.config import factory
from tutelage.config.plan import replaced
from tutelage.config.source_nodes import build, networks, without_files
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.pipeline import artifacts
from tutelage.pipeline.signal_columns import columns, signals_of
from tutelage.runtime import distributed, manifest
from tutelage.runtime.identity import made_with, with_contents
from tutelage.runtime.json_files import read_json
from tutelage.sources.base import Source
from tutelage.sources.store import Store, Writer
from tutelage.types import Signals

log = logging.getLogger(__name__)

CACHED = "tutelage.sources.cached.Cached"
_MOST = 1 << 30  # bytes of logits that are cached without being asked for: those of tokens can be many times the text
_AS_IT_IS = {"folder": None, "dtype": "float32", "top": None, "views": None}


def cached(stage: DictConfig, root: Path, data: Data) -> DictConfig:
    """Returns the stage with all cacheable sources reading from disk.

    ``sources=cached`` requests a cache. Networks of which only logits are read are cached automatically if images do
    not change (no augmentation, all in memory), the result is bit-identical (``precision=32-true``; of texts whose
    batches have different widths equal to rounding) and no more than 1 GiB;
    ``sources.<name>.cache=false`` keeps them live.

    Args:
        stage: in its sources every network has its file.
        root: folder of all artifacts.
        data: the stage's, with a finite number of augmented views (:func:`check_views`).
    """
    on_disk = {}
    for name, (node, needs) in to_cache(stage, data).items():
        folder = _stored(stage, node, recipe_of_signals(stage, node, needs, data), root, data)
        on_disk[name] = {"_target_": CACHED, "source": None, "folder": str(folder)}
    if not on_disk:
        return stage
    return replaced(stage, {"sources": OmegaConf.create({**stage.sources, **on_disk})})


def to_cache(stage: DictConfig, data: Data) -> dict[str, tuple[DictConfig, list[str]]]:
    """Returns, for each source that a training reads from disk, its cache's config and the names of the signals."""
    if "turns" in stage:  # images are made while the student learns: each is seen once
        return {}
    needs, found = factory.objective(stage).needs(), {}
    for name, node in stage.sources.items():
        asked = node.get("_target_") == CACHED
        if needs.get(name) and (asked or _by_itself(stage, node, needs[name], data)):
            cache = node if asked else OmegaConf.create({**_AS_IT_IS, "source": node})
            found[str(name)] = cache, sorted(needs[name])
    return found


def bytes_of_example(stage: DictConfig, name: str, node: DictConfig, signals: list[str], data: Data) -> int:
    """Returns the size on disk of one example's signals.

    Args:
        stage: in its sources networks need no file.
        name: of the source.
        node: of :func:`to_cache`.
        signals: to be written.
        data: the stage's.
    """
    own = stage.sources[name]
    source = build(own.source if own.get("_target_") == CACHED else own)
    source.attach(signals, {})
    source.name_classes(data.class_names)
    found = columns(source.eval(), data, node.dtype, node.top, torch.device("cpu"))
    return sum(column.bytes(1) for column in found)


def check_views(stage: DictConfig, data: Data) -> None:
    """Checks before training whether the signals that ``sources=cached`` would store are finite in number.

    Raises:
        TutelageError: the augmentation has no fixed number of views, or another than the cache.
    """
    asked = [node for node in stage.sources.values() if node.get("_target_") == CACHED]
    if data.augment is not None and any(node.views is None for node in asked):
        raise TutelageError("a cache of augmented examples needs data.views=K; epoch e then uses view e mod K")
    if asked and len(data.splits["train"].keys) < len(data.splits["train"]):
        raise TutelageError(
            "sources=cached needs the key of every training example in advance, the same in each epoch; of a stream it "
            "is known if an epoch is the whole stream, of known length, in the same order each time (data.length, "
            "data.examples=null, no data.fields.key): use sources=frozen"
        )
    if data.ragged and asked:
        _check_shapes(stage, data)
    for name, node in stage.sources.items():
        if data.augment is not None and node.get("_target_") == CACHED and node.views != data.augment.views:
            raise TutelageError(
                f"sources.{name}.views={node.views}: must equal data.views={data.augment.views}, as a cache has the "
                "signals of each view"
            )


def _by_itself(stage: DictConfig, node: DictConfig, needs: set[str], data: Data) -> bool:
    return (
        any(key in node for key in ("checkpoint", "members", "generalist"))
        and any(True for _ in networks(node))
        and node.get("cache", True)
        and needs == {"logits"}
        and data.augment is None
        and not data.is_streaming
        and not (data.ragged and _of_places(data))
        and _logits_bytes(data) <= _MOST
        and str(stage.trainer.precision) == "32-true"
    )


def _logits_bytes(data: Data) -> int:
    """Returns the size of the logits of all training examples in float32."""
    labels = data.splits["train"].labels
    return 4 * data.num_outputs * (len(labels) if labels.is_floating_point() else labels.numel())


def _of_places(data: Data) -> bool:
    """Checks whether labels, and so logits, are of tokens or pixels."""
    labels = data.splits["train"].labels
    return labels.ndim > 1 and not labels.is_floating_point()


def _check_shapes(stage: DictConfig, data: Data) -> None:
    """Checks that signals have one shape, but for axes that are as long as their text.

    Raises:
        TutelageError: names a source whose signal has another.
    """
    for name, (node, signals) in to_cache(stage, data).items():
        own = stage.sources[name]
        source = build(own.source if own.get("_target_") == CACHED else own)
        if source is None:
            continue
        source.attach(signals, {})
        source.name_classes(data.class_names)
        try:
            columns(source.eval(), data, node.dtype, node.top, torch.device("cpu"))
        except TutelageError as error:
            raise TutelageError(f"sources.{name}: {error}") from error


def recipe_of_signals(stage: DictConfig, node: DictConfig, signals: list[str], data: Data) -> dict[str, Any]:
    """Returns everything that determines the signals, as JSON values."""
    keys = hashlib.sha256(data.splits["train"].keys.numpy().tobytes()).hexdigest()
    given: Any = OmegaConf.to_container(stage.data, resolve=True)
    seen: dict[str, Any] = {
        "content": data.fingerprint(),
        "keys": keys,
        **{key: given.get(key) for key in data.seen_through},
    }
    if data.augment is not None:
        seen |= {"augment": given.get("augment"), "seed": data.seed, "views": node.views}
        seen |= {"mix": given["mix"]} if given.get("mix") else {}
    files = [digest(read_state(network.checkpoint)) for network in networks(node.source)]
    taught = {"source": without_files(node.source), "weights": files} if node.source is not None else {}
    stored = {"signals": signals, "dtype": node.dtype, "top": node.top, "version": 3}
    made = made_with({"source": taught.get("source"), **seen})
    return with_contents(seen, "data") | with_contents(taught) | stored | made


def _given(folder: Path, recipe: dict[str, Any]) -> Path:
    """Returns the folder that the user names, if its signals are current; their storage format may differ.

    Raises:
        TutelageError: something that determines the signals has changed; names it.
    """
    path = folder / "recipe.json"
    if not path.is_file():
        raise TutelageError(f"sources: {folder} contains no signals: it has no recipe.json")
    written = read_json(path)
    compared = [part for part in {**written, **recipe} if part not in ("signals", "dtype", "top", "versions")]
    if "source" not in recipe:  # no teacher to compare with
        compared = [part for part in compared if part not in ("source", "weights", "code")]
    if changed := [part for part in compared if written.get(part) != recipe.get(part)]:
        raise TutelageError(f"sources: {folder} is stale: {', '.join(changed)} changed since it was written")
    return folder


def _stored(stage: DictConfig, node: DictConfig, recipe: dict[str, Any], root: Path, data: Data) -> Path:
    """Returns the folder of the signals: given, found or written."""
    if node.folder is not None:
        return _given(Path(node.folder), recipe)
    if node.source is None:
        raise TutelageError("a cache needs a source to write from, or a folder to read")

    def write(work: Path) -> None:
        if distributed.is_main():
            source = build(node.source)
            source.attach(recipe["signals"], {})
            source.name_classes(data.class_names)
            write_signals(
                source, data, work, node.dtype, node.top, recipe.get("views", 1), distributed.device(stage.trainer)
            )
            source.verify()

    folder, found = artifacts.make(root, "signals", recipe, write, artifacts.oldest(stage), verify_signals)
    log.info("%s %s: %s", "found" if found else "wrote", recipe["signals"], folder)
    return folder


def verify_signals(folder: Path) -> None:
    """Verifies the manifest; large files have checksums by block, verified when they are opened."""
    manifest.check(folder, quick=True)
    Store.read(folder)


def write_signals(
    source: Source, data: Data, folder: Path, dtype: str, top: int | None, views: int, device: torch.device
) -> None:
    """Writes the signals of ``source`` for every training example and view that is not on disk yet.

    Args:
        source: attached.
        data: loaded.
        folder: an existing one.
        dtype: of floating-point signals.
        top: number of classes whose logits are stored; None: all.
        views: number of views of an example.
        device: where the source computes them.

    Raises:
        TutelageError: a signal's shape depends on the batch, or a value is not finite.
    """
    source = source.to(device).eval()
    stored = columns(source, data, dtype, top, device)
    train = data.at_one_width() if any(column.tokens for column in stored) else data.splits["train"]

    def ask(view: int, rows: Tensor) -> tuple[Signals, Signals]:
        order = data.short_first(train, rows)
        parts = [signals_of(source, train[view, part], device, top) for part in order.split(data.eval_batch_size)]
        places = order.argsort()
        by_example = {name: torch.cat([part[0][name] for part in parts])[places] for name in parts[0][0]}
        return by_example, parts[0][1]

    writer = Writer(folder, stored, train.keys, views)
    for view, start in writer.missing():
        by_example, _ = ask(view, torch.arange(start, min(start + writer.block, len(train))))
        writer.write(view, start, by_example)
    writer.finish(ask(0, torch.arange(1))[1])
