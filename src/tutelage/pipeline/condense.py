"""``tutelage condense``: few images for a whole training set, as an artifact that ``data.made`` trains on."""

import functools
import logging
import os
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.text import Text

from tutelage.checkpoints.weights import serialise
from tutelage.condense.images import STATE, Condensed, FromExperts, Method, TrainingSet
from tutelage.config import factory
from tutelage.config.unknown_keys import refuse_unknown_keys
from tutelage.data.base import ImageData
from tutelage.data.labels import has_label, is_class
from tutelage.data.made import FILE, contents
from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.pipeline import artifacts
from tutelage.pipeline.sweep import given
from tutelage.runtime.files import write_atomically
from tutelage.runtime.identity import made_with, with_contents
from tutelage.runtime.job import job
from tutelage.runtime.json_files import read_json, write_json

log = logging.getLogger(__name__)

FIGURES = "figures.json"
_KEYS = ("condense", "name", "data", "seed", "reuse", "task", "trainer", "stages", "paths")


def condense_job(cfg: DictConfig) -> None:
    """Condenses the training set; prints accuracies and the artifact's folder, and writes ``metrics.json``."""
    choices = HydraConfig.get().runtime.choices
    if choices.get("task") is not None:
        raise TutelageError(
            f"condense needs images with one class each, such as data=mnist; data={choices['data']} is of "
            f"task={choices['task']}"
        )
    refuse_unknown_keys(cfg, _KEYS)
    if cfg.get("condense") is None:
        raise TutelageError(
            "condense=… is needed: kip, label_solve, dm, dc, dsa, mtt, deep_inversion, adaptive_deep_inversion or real"
        )
    if missing := sorted(OmegaConf.missing_keys(cfg.condense)):
        raise TutelageError(
            f"{missing[0]}=… is needed: a file of weights that `tutelage distill` wrote, such as "
            "…/checkpoints/last.safetensors"
        )
    folder = Path(HydraConfig.get().runtime.output_dir)
    with job(cfg, folder, given(HydraConfig.get())):
        place, figures = condense(cfg, str(choices["condense"]))
        write_json(folder / "metrics.json", {"schema": 1, "images": str(place), "figures": figures})
    Console(soft_wrap=True).print(Text(f"{sentence(figures)}\n{place}"))


def sentence(figures: dict[str, Any]) -> str:
    """Returns the figures as a line."""
    if figures["condensed"] is None:
        rate = f", learned with a rate of {figures['rate']:.4g} for SGD" if "rate" in figures else ""
        return f"{figures['images']} images{rate}"
    return (
        f"{figures['images']} images, kernel regression on test: {100 * figures['real']:.2f} % from real ones, "
        f"{100 * figures['condensed']:.2f} % from condensed ones"
    )


def condense(cfg: DictConfig, choice: str) -> tuple[Path, dict[str, Any]]:
    """Finds or makes the artifact of a config; returns its folder under its name, and its figures.

    Args:
        cfg: the config.
        choice: name of the method, for that of the artifact.
    """
    root = Path(cfg.paths.artifacts)
    if cfg.name is not None:
        _check_name(root / "images", str(cfg.name))
    data = factory.data(cfg)
    plain: Any = OmegaConf.to_container(cfg.condense, resolve=True)
    name = cfg.name or f"{data.name}-{choice}-{plain['per_class']}".lower()
    train, test = (_set(data, split) for split in ("train", "test"))
    method: Method = instantiate(cfg.condense)
    method.start(train, cfg.seed)  # refuses before anything is made
    seen = {key: cfg.data[key] for key in ("mean", "std")}
    shared = {
        "data": data.fingerprint(), "split": [cfg.data.val_size, data.split_seed],
        "seen": OmegaConf.to_container(OmegaConf.create(seen), resolve=True),
    }  # fmt: skip
    recipe = {"condense": with_contents(plain), "seed": cfg.seed, **shared, **made_with(plain)}

    def build(work: Path) -> None:
        ready = method
        if isinstance(method, FromExperts):
            experts = {"experts": plain["experts"], **shared, **made_with(plain["experts"])}
            train_all = functools.partial(method.experts.train, train)
            ready = method.after(artifacts.make(root, "trajectories", experts, train_all, artifacts.oldest(cfg))[0])
        found = ready.condense(train, cfg.seed, work)
        accuracies = [method.accuracy(one, test) for one in (method.start(train, cfg.seed), found)]
        real, condensed = (None if one != one else one for one in accuracies)
        learned = {} if found.rate is None else {"rate": found.rate}
        write_json(work / FIGURES, {"images": len(found.images), "real": real, "condensed": condensed, **learned})
        write_atomically(work / FILE, serialise(dict(_file(data, found))))
        (work / STATE).unlink(missing_ok=True)

    place, _ = artifacts.make(root, "images", recipe, build, artifacts.oldest(cfg))
    return _linked(place, str(name)), read_json(place / FIGURES)


def _file(data: Data, found: Condensed) -> Any:
    """Returns the tensors of the artifact, the images in units of pixels."""
    assert isinstance(data, ImageData)
    images = found.images.float() * data.normalise.std + data.normalise.mean
    return contents(images, found.targets.argmax(1), found.targets)


def _set(data: Data, split: str) -> TrainingSet:
    """Returns the labelled images of a split, normalised."""
    if not isinstance(data, ImageData) or data.num_classes is None or not is_class(data.splits[split].labels):
        raise TutelageError("condense needs images with one class each, such as data=mnist")
    batches = list(data.whole(split))
    images, labels = (torch.cat([batch[name] for batch in batches]) for name in ("input", "label"))
    known = has_label(labels)
    black, white = ((pixel - data.normalise.mean) / data.normalise.std for pixel in (0, 1))
    return TrainingSet(images[known], labels[known], data.num_classes, black, white)


def _check_name(folder: Path, name: str) -> None:
    link = folder / name
    if "/" in name or name.startswith(".") or not name or (link.exists() and not link.is_symlink()):
        raise TutelageError(f"name={name}: expected a name for a link in {folder}, not one of a folder there")


def _linked(place: Path, name: str) -> Path:
    """Makes ``images/<name>`` a link to an artifact, in place of one that was there; returns the link."""
    link, fresh = place.with_name(name), place.with_name(f".{name}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(place.name)
    os.replace(fresh, link)
    return link
