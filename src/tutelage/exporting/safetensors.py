"""Folders in the layout of Hugging Face: ``model.safetensors`` and ``config.json``."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.checkpoints.weights import save_network
from tutelage.errors import TutelageError
from tutelage.exporting.base import Format
from tutelage.exporting.subject import Subject
from tutelage.runtime.json_files import read_json, write_json
from tutelage.types import Batch


class Safetensors(Format):
    """``model.safetensors`` with the network's names, and a ``config.json`` that says how the network is built.

    Networks of timm get timm's ``config.json``, which ``timm.create_model("local-dir:<folder>", pretrained=True)``
    loads, and networks of transformers theirs, for ``from_pretrained``. What Tutelage knows is under the key
    ``tutelage`` of any; and ``tutelage.load`` reads the file of weights.
    """

    name = "safetensors"
    file = "model.safetensors"

    def write(self, subject: Subject, folder: Path, calibration: Callable[[], list[Batch]]) -> None:
        """Writes both files.

        Raises:
            TutelageError: ``preprocess`` was asked for: weights have no place for it.
        """
        if subject.pixels is not None:
            raise TutelageError(
                "format=safetensors holds weights, which can't take raw pixels: leave out preprocess, or this format"
            )
        save_network(subject.net, folder / self.file, subject.header, format="pt")
        config = _LAYOUTS.get(library_target(subject.header), _plain)(subject, folder)
        write_json(folder / "config.json", {**config, "tutelage": subject.about})

    def runtime(self, subject: Subject, folder: Path) -> nn.Module:
        """Returns the network with the weights of the file."""
        return subject.reload(folder / self.file).eval()


def maker(header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the node that makes the plain network, by the header of a file of weights."""
    node = header.get("network") or {}
    inner = node.get("net")
    return inner if isinstance(inner, dict) else node


def library_target(header: Mapping[str, Any]) -> str:
    """Returns the target that makes the plain network; empty where its library can't, as it has fewer channels."""
    return "" if (header.get("network") or {}).get("channels") else str(maker(header).get("_target_"))


def own_images(header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns mean, std and shape of the images that the plain network takes, after an adapter of the data's."""
    data = header.get("data") or {}
    found = {key: data.get(key) for key in ("mean", "std")}
    shape = [*(data.get("input_shape") or ())]
    for step in _steps((header.get("network") or {}).get("adapter")):
        if "to_mean" in step:
            found |= {"mean": step["to_mean"], "std": step["to_std"]}
        if "size" in step:
            size = step["size"]
            shape[1:] = [size, size] if isinstance(size, int) else [*size]
        if "channels" in step:
            shape[0] = step["channels"]
    return found | {"input_size": shape}


def _steps(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for one in node.get("_args_") or ():
            yield from _steps(one)


def _plain(subject: Subject, folder: Path) -> dict[str, Any]:
    return {"architectures": [type(subject.net).__name__], "library_name": "tutelage"}


def _of_timm(subject: Subject, folder: Path) -> dict[str, Any]:
    from timm.models import save_for_hf

    images = own_images(subject.header)
    shown = subject.header.get("data") or {}
    share = min(shown["input_shape"][1:]) / shown["resize"] if shown.get("resize") else 1.0
    names = {"label_names": subject.about["class_names"]} if subject.about["class_names"] else {}
    scratch = folder / ".timm"
    save_for_hf(
        subject.net, str(scratch), names, safe_serialization=False,  # what it writes of weights is not kept
        data_config={key: tuple(value) for key, value in images.items() if value} | {"crop_pct": share},
    )  # fmt: skip
    config: dict[str, Any] = json.loads((scratch / "config.json").read_text())
    for path in scratch.iterdir():
        path.unlink()
    scratch.rmdir()
    return config


def _of_transformers(subject: Subject, folder: Path) -> dict[str, Any]:
    config: Any = subject.net.config
    config.architectures = [type(subject.net).__name__]
    if (names := subject.about["class_names"]) and len(names) == config.num_labels:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: number for number, name in enumerate(names)}
    config.save_pretrained(folder)
    found: dict[str, Any] = read_json(folder / "config.json")
    return found


_LAYOUTS = {
    "tutelage.models.timm.create": _of_timm,
    "tutelage.models.hugging_face.tapped": _of_transformers,
}
