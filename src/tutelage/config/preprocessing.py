"""Adapters from a network's own preprocessing: ``teacher.adapter=own``."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tutelage.errors import TutelageError
from tutelage.runtime import distributed

log = logging.getLogger(__name__)

OWN = "own"
_LIBRARIES = {  # what makes a network → what says what its images are
    "tutelage.models.timm.create": "tutelage.models.timm.preprocessing",
    "tutelage.models.torchvision.create": "tutelage.models.torchvision.preprocessing",
    "tutelage.models.hugging_face.tapped": "tutelage.models.hugging_face.preprocessing",
}
_TOLERANCE = 0.02  # of means and standard deviations that are the same but for rounding


def settle_adapters(cfg: DictConfig) -> None:
    """Replaces every ``adapter: own`` by the modules that convert the data's images to the network's.

    So a file of weights and an artifact's recipe have the numbers themselves. Without an adapter, one line tells of a
    pretrained network of a library whose images are others than the data's.

    Args:
        cfg: the composed config, which is changed.

    Raises:
        TutelageError: the network is of no library that says what its images are, or the library is not installed.
    """
    for path, adapter in list(_networks(OmegaConf.to_container(cfg, resolve=False), "")):
        node = OmegaConf.select(cfg, path)
        maker = node if "net" not in node else node.net
        own = _LIBRARIES.get(maker.get("_target_"))
        if adapter == OWN:
            if own is None:
                raise TutelageError(
                    f"{path}.adapter={OWN}: only networks of timm, torchvision and transformers say what their images "
                    "are; give the modules of tutelage.models.adapter that convert them"
                )
            steps, text = _steps(cfg, own, maker)
            sequence = {"_target_": "torch.nn.Sequential", "_args_": steps}
            node.adapter = sequence if len(steps) > 1 else steps[0] if steps else None
            if distributed.is_main():
                log.info("%s: images are converted to the network's own: %s", path, text or "they are the same")
        elif own is not None and maker.get("pretrained") and distributed.is_main():
            _tell(cfg, path, own, maker)


def _tell(cfg: DictConfig, path: str, own: str, maker: DictConfig) -> None:
    try:
        text = _steps(cfg, own, maker)[1]
    except (TutelageError, OmegaConfBaseException):  # nobody asked for it
        return
    if text:
        log.info("%s was trained on images of another kind; +%s.adapter=%s converts them: %s", path, path, OWN, text)


def _networks(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields path and adapter of every network that asks for its own, or is of a library and has none."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _networks(item, f"{path}[{index}]")
    if not isinstance(node, Mapping):
        return
    inner = node.get("net")
    maker = inner if isinstance(inner, Mapping) else node
    is_one = maker.get("_target_") in _LIBRARIES and (inner is not None or "auto" in maker)
    if node.get("adapter") == OWN or (is_one and node.get("adapter") is None):
        yield path, node.get("adapter")
    for key, value in node.items():
        yield from _networks(value, f"{path}.{key}" if path else str(key))


def _steps(cfg: DictConfig, own: str, maker: DictConfig) -> tuple[list[dict[str, Any]], str]:
    """Returns the nodes of the modules, and what they do as a text."""
    steps, texts = [], []

    def add(name: str, text: str, **arguments: Any) -> None:
        steps.append({"_target_": f"tutelage.models.adapter.{name}", **arguments})
        texts.append(text)

    shape = [int(x) for x in cfg.data.input_shape]
    if len(shape) != 3:
        raise TutelageError(f"adapter={OWN}: the data's input is {shape}; expected images [channels, height, width]")
    there = get_object(own)({str(key): maker[key] for key in maker if key not in ("_target_", "config", "num_classes")})
    if there.size and shape[1:] != [*there.size]:
        from_to = f"{shape[1]}×{shape[2]} to {there.size[0]}×{there.size[1]} ({there.mode})"
        add("Resize", from_to, size=[*there.size], mode=there.mode)
    channels = shape[0]
    if there.colours and channels == 1 and len(there.mean) > 1:
        channels = len(there.mean)
        add("Repeat", "grey to colour", channels=channels)
    now = {
        "mean": _by_channel(cfg.data.get("mean"), 0.0, channels),
        "std": _by_channel(cfg.data.get("std"), 1.0, channels),
    }
    own_ones = {"mean": _by_channel(there.mean, 0.0, channels), "std": _by_channel(there.std, 1.0, channels)}
    if any(abs(x - y) > _TOLERANCE for key in now for x, y in zip(now[key], own_ones[key], strict=True)):
        text = ", ".join(f"{key} {_short(now[key])} to {_short(own_ones[key])}" for key in now)
        add("Renormalise", text, **now, **{f"to_{key}": values for key, values in own_ones.items()})
    return steps, "; ".join(texts)


def _by_channel(values: Any, default: float, channels: int) -> list[float]:
    """Returns one number for each channel: their mean where they are of other channels."""
    found = [float(x) for x in values or [default]]
    return found if len(found) == channels else [sum(found) / len(found)] * channels


def _short(values: list[float]) -> str:
    return f"[{', '.join(f'{x:.4g}' for x in values)}]"
