"""The description in an exported file, and the files that stand beside it: a tokenizer, or what images become."""

import json
from collections.abc import Mapping
from typing import Any

from tutelage.data.module import Data
from tutelage.data.text.base import TextData
from tutelage.data.text.glue import LAYOUTS
from tutelage.runtime.provenance import version
from tutelage.tasks.classification import Classification

TOKENIZER = "tokenizer.json"
STUDENTS = "student_input"  # the field of a student with a tokenizer of its own


def description(header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is needed to ask a network, by the header of its file of weights.

    Args:
        header: of the file.

    Returns:
        ``network`` and ``task``, their configs; ``class_names``, one for each output; ``input_shape``, ``mean`` and
        ``std`` of images, null of others, and ``resize``, their short side before the centre is taken; ``max_length``
        of texts, and ``pair``, the column of their second ones, null of single texts; ``input_names`` of the columns of
        a table of numbers, null where the data do not name them.
    """
    data: Mapping[str, Any] = header.get("data") or {}
    outputs = data.get("num_outputs") or data.get("num_classes") or 0
    names = header.get("class_names") or data.get("class_names") or [str(number) for number in range(outputs)]
    task = f"{Classification.__module__}.{Classification.__name__}"
    layout = LAYOUTS.get(str(data.get("task")))
    return {
        "tutelage": version("tutelage"), "network": header.get("network"),
        "task": header.get("task") or {"_target_": task}, "class_names": [*names],
        **{key: data.get(key) for key in ("input_shape", "resize", "mean", "std", "max_length")},
        "input_names": header.get("input_names"), "pair": data.get("pair") or (layout.columns.pair if layout else None),
    }  # fmt: skip


def files_beside(header: Mapping[str, Any], data: Data, fields: list[str]) -> dict[str, str]:
    """Returns the files that stand beside a network's, by name, with the names that Hugging Face's libraries read.

    Args:
        header: of the file of weights.
        data: that it was trained for.
        fields: of a batch that it reads.
    """
    if isinstance(data, TextData):
        return _of_texts(data, fields)
    found: Mapping[str, Any] = header.get("data") or {}
    shape = [*(found.get("input_shape") or ())]
    if len(shape) != 3 or not found.get("mean"):
        return {}
    size = {"height": shape[1], "width": shape[2]}
    processor = {
        "do_resize": True, "size": size, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": found["mean"], "image_std": found["std"],
    }  # fmt: skip
    square = shape[1] if shape[1] == shape[2] else None  # a short side of this length covers it, as in training
    if short := found.get("resize") or square:
        processor |= {"size": {"shortest_edge": short}, "do_center_crop": True, "crop_size": size}
    return {"preprocessor_config.json": _text(processor)}


def _of_texts(data: TextData, fields: list[str]) -> dict[str, str]:
    tokenizer = data.student_encode.tokenizer if STUDENTS in fields and data.student_encode else data.tokenizer
    inner = tokenizer.inner
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": data.input_shape[0],
    }  # fmt: skip
    if any(field.endswith("segment") for field in fields):  # AutoTokenizer gives no segments by itself
        config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    if (pad := inner.id_to_token(tokenizer.pad)) is not None:
        config["pad_token"] = pad
    return {TOKENIZER: inner.to_str(), "tokenizer_config.json": _text(config)}


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1) + "\n"
