"""``tutelage predict``: answers images or rows with a trained network, and writes a table."""

import csv
import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn

from tutelage.config.saved import checkpoint_of, data_of, network_of, task_alone
from tutelage.config.unknown_keys import refuse_unknown_keys
from tutelage.config.validate import number
from tutelage.data.text.base import TextData
from tutelage.data.text.tokenizer import Tokenizer, load
from tutelage.errors import TutelageError
from tutelage.evaluation.predictions import eval_mode
from tutelage.exporting.int8 import Int8
from tutelage.exporting.onnx import DESCRIPTION, Onnx
from tutelage.exporting.runtimes import OnnxRuntime
from tutelage.exporting.safetensors import Safetensors
from tutelage.exporting.subject import FromPixels
from tutelage.models.tapped import run
from tutelage.pipeline.asked import PIXELS, Asked, images, numbers, texts
from tutelage.pipeline.described import TOKENIZER, description
from tutelage.pipeline.export_folder import newer_weights
from tutelage.pipeline.sweep import given
from tutelage.runtime import devices, manifest
from tutelage.runtime.files import is_missing, write_atomically
from tutelage.runtime.job import short_job
from tutelage.tasks.base import Task

log = logging.getLogger(__name__)

Table = dict[str, list[Any]]

_KEYS = (
    "checkpoint", "input", "output", "overwrite", "columns", "pixels", "text", "pair", "batch_size", "device", "trust",
    "paths.outputs",
)  # fmt: skip
_WRITTEN = (".csv", ".parquet", ".jsonl")


@dataclass(frozen=True, eq=False)
class _Asking:
    """A network that can be asked.

    Attributes:
        net: reads fields of a batch.
        about: what its file says of it (:func:`tutelage.pipeline.described.description`).
        task: turns logits into columns.
        header: of a file of weights; empty of an ONNX file.
        folder: where its files stand.
    """

    net: nn.Module
    about: Mapping[str, Any]
    task: Task
    header: Mapping[str, Any]
    folder: Path


def predict_job(cfg: DictConfig) -> None:
    """Answers ``input`` and writes ``output``; prints how many rows that are."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    with short_job(cfg, folder, given(HydraConfig.get())):
        refuse_unknown_keys(cfg, _KEYS)
        table = predict(cfg)
    print(f"{len(next(iter(table.values()))):,} rows: {cfg.output}")


def predict(cfg: DictConfig) -> Table:
    """Answers the examples of a config, and writes the table.

    Args:
        cfg: of the verb.

    Returns:
        Name of the column → its values; the first column says which example it is.

    Raises:
        TutelageError: a key, the checkpoint or the input is wrong, or the output exists; then nothing is written.
    """
    for key, text in {"checkpoint": "a file of weights or an export", "input": "a folder or a table"}.items():
        if OmegaConf.is_missing(cfg, key):
            raise TutelageError(f"{key}=… is needed: {text}")
    output = _output(cfg)
    number(cfg, "batch_size", 1, whole=True)
    devices.usable(cfg.device)
    if cfg.pixels not in PIXELS:
        raise TutelageError(f"pixels must be {' or '.join(PIXELS)}; found {cfg.pixels!r}")
    asking = _network(checkpoint_of(cfg), cfg.trust)
    if type(asking.task).columns is Task.columns:  # refuses, before an input is read in vain
        asking.task.columns(torch.empty(0), [])
    asked = _examples(cfg, asking)
    table = _answers(asking, asked, cfg)
    if output is not None:
        write_atomically(output, _written(table, output.suffix))
    return table


def _output(cfg: DictConfig) -> Path | None:
    if OmegaConf.is_missing(cfg, "output"):
        raise TutelageError(f"output=… is needed: a file that ends in {', '.join(_WRITTEN)}")
    if cfg.output is None:  # from Python
        return None
    output = Path(cfg.output)
    if output.suffix not in _WRITTEN:
        raise TutelageError(f"output={output}: expected a file that ends in {', '.join(_WRITTEN)}")
    if _are_one(Path(cfg.input), output):
        raise TutelageError(f"output={output} is the input: choose another name")
    if not is_missing(output) and not cfg.overwrite:
        raise TutelageError(f"output={output} exists: choose another name, or say overwrite=true")
    return output


def _are_one(one: Path, other: Path) -> bool:
    """Checks whether two paths are those of one file, also by a link or another spelling."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _network(path: Path, trusted: Any) -> _Asking:
    folder, file = path.parent, path
    if path.is_dir():
        folder = path
        names = (Safetensors.file, Onnx.file, Int8.file)
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise TutelageError(f"checkpoint={path}: the folder holds none of {', '.join(names)}: no export")
        file = found[0]
        if not is_missing(path / manifest.NAME):
            manifest.check_file(path, file.name)
    if (newer := newer_weights(folder)) is not None:
        log.warning("%s is an export of earlier weights: %s was written since", folder, newer)
    if file.suffix == ".pt2":
        raise TutelageError(
            f"checkpoint={file} is a program of torch.export, which PyTorch runs by itself: give a file of "
            "weights, or a folder or an ONNX file of `tutelage export`"
        )
    if file.suffix == ".onnx":
        return _of_onnx(file, folder, trusted)
    net, header = network_of(file, trusted)
    about = description(header)
    return _Asking(net, about, task_alone(about["task"], file, trusted), header, folder)


def _of_onnx(file: Path, folder: Path, trusted: Any) -> _Asking:
    net = OnnxRuntime(file)
    try:
        about = json.loads(net.metadata[DESCRIPTION])
    except (KeyError, ValueError) as error:
        raise TutelageError(f"checkpoint={file} does not describe itself: it is no export of Tutelage") from error
    if about["preprocess"] is not None:
        net.raw = FromPixels(about["preprocess"], about["mean"], about["std"]).undone
    return _Asking(net, about, task_alone(about["task"], file, trusted), {}, folder)


def _examples(cfg: DictConfig, asking: _Asking) -> Asked:
    path, about = Path(cfg.input), asking.about
    if about["max_length"] is not None:
        _check_pair(cfg.pair, about)
        return texts(path, cfg.text, cfg.pair, _tokenizer(cfg, asking), about["max_length"])
    return images(path, about) if path.is_dir() else numbers(path, cfg.columns, about, cfg.pixels)


def _check_pair(given: str | None, about: Mapping[str, Any]) -> None:
    """Refuses single texts for a network of pairs, and pairs for one of single texts."""
    named = about.get("pair")
    reads = named is not None or "segment" in (about.get("fields") or ())
    if reads and given is None:
        column = f" (in training {named!r})" if named else ""
        raise TutelageError(
            f"pair=… is needed: the network was trained on pairs of texts; the column of the second{column}"
        )
    if given is not None and not reads and "pair" in about:  # files of earlier versions do not say it
        raise TutelageError(f"pair={given}: the network was trained on single texts; leave it out")


def _tokenizer(cfg: DictConfig, asking: _Asking) -> Tokenizer:
    """Returns the tokenizer beside an export's files, or that of the data that the network was trained for."""
    if (beside := asking.folder / TOKENIZER).is_file():
        return load(str(beside))
    data = data_of(asking.header, {}, cfg.checkpoint, cfg.trust)
    if not isinstance(data, TextData):
        raise TutelageError(f"checkpoint={cfg.checkpoint}: its data make no token ids of texts")
    return data.tokenizer if data.student_encode is None else data.student_encode.tokenizer


def _answers(asking: _Asking, asked: Asked, cfg: DictConfig) -> Table:
    net = asking.net.to(cfg.device)
    table: Table = {asked.name: [*asked.keys]}
    with eval_mode(net), torch.inference_mode():
        for batch in asked.batches(cfg.batch_size):
            logits = run(net, {name: x.to(cfg.device) for name, x in batch.items()})
            for name, values in asking.task.columns(logits.float().cpu(), asking.about["class_names"]).items():
                table.setdefault(name, []).extend(values)
    return table


def _written(table: Table, suffix: str) -> bytes:
    if suffix == ".parquet":
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise TutelageError("output: writing .parquet needs pyarrow: pip install 'tutelage[parquet]'") from error
        out = io.BytesIO()
        parquet.write_table(pyarrow.table(table), out)
        return out.getvalue()
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, [*table], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
