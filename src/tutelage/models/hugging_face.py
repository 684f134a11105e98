"""Any network of Hugging Face's transformers: by a folder, an installed package, a name of the hub, or a config.

transformers is imported when it is used: it comes with ``pip install 'tutelage[text]'``. Weights are read from
safetensors alone, and code that comes with a model is never run.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from tutelage.errors import TutelageError, nearest
from tutelage.models.adapter import Preprocessing
from tutelage.models.first_layers import layers_path
from tutelage.models.tapped import Outputs, Tapped
from tutelage.models.token_ids import TokenIds

_FIELDS = {"attention_mask": "mask?", "token_type_ids": "segment?"}  # argument → field, where a batch has it
_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # PIL's numbers → modes of an adapter
_NOT_OF_THE_NETWORK = (
    "architectures", "id2label", "label2id", "num_labels", "transformers_version", "_name_or_path",
    "torch_dtype", "dtype",
)  # fmt: skip


def tapped(
    auto: str = "AutoModelForSequenceClassification",
    pretrained: str | bool | None = None,
    config: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    layers: Sequence[int] | None = None,
    local_files_only: bool = False,
    taps: Mapping[str, str] | None = None,
    maps: Sequence[str] | None = None,
    adapter: nn.Module | None = None,
    reads: Mapping[str, str] | None = None,
    outputs: Outputs | None = "logits",
    classes: int | Sequence[int | Sequence[int]] | None = None,
    init: Mapping[str, Any] | None = None,
    revision: str | None = None,
) -> Tapped:
    """A network of transformers with taps ``layer0``, ``layer1``, … for its layers.

    Args:
        auto: the class of transformers that makes it, such as ``AutoModelForMaskedLM``.
        pretrained: where its weights are: a folder with ``config.json`` and ``model.safetensors``, an installed package
            with one such folder, or a name of the hub. Without it they are random.
        config: the network's own, with ``model_type``; by default that of ``pretrained``.
        num_classes: number of logits of a classifier. Weights of another number load without their classifier.
        layers: which of its layers stay, with their weights, as a student is cut from its teacher: [0, 2, 4].
        local_files_only: whether a name of the hub is looked for among the files on this machine only.
        taps: further ones, as of :class:`Tapped`.
        maps: the taps that losses over stages read.
        adapter: as of :class:`Tapped`, for images.
        reads: argument → field of the batch; by default the network's first argument is ``input``, and
            ``attention_mask`` and ``token_type_ids`` are ``mask`` and ``segment`` where the batch has them (a network
            with one kind of segment, as RoBERTa, is not given any).
        outputs: as of :class:`Tapped`.
        classes: as of :class:`Tapped`.
        init: as of :class:`Tapped`.
        revision: branch, tag or commit of a repository on the hub; its main branch by default.

    Raises:
        TutelageError: transformers is not installed, or has no such class; the network is not there, or has no
            such layers.
    """
    kind = _kind(auto)
    hub = {"local_files_only": local_files_only, "revision": revision or "main"}
    net = _from(kind, auto, pretrained or None, config, num_classes, hub)
    net.config.use_cache = False
    net.token_ids = _token_ids(pretrained)
    net.register_forward_pre_hook(_check_length, with_kwargs=True)
    if layers is not None:
        _cut(net, list(layers))
    if reads is None and net.main_input_name == "input_ids":
        reads = {"input_ids": "input"} | {name: field for name, field in _FIELDS.items() if takes(net, name)}
    found = {"layer{}": f"{path}.{{}}"} if (path := layers_path(net)) else {}
    return Tapped(net, {**found, **(taps or {})}, adapter, maps or (), reads, outputs, classes, init=init)


def takes(net: Any, name: str) -> bool:
    """Returns whether a network of transformers takes a field; segments only if it tells two of them apart."""
    known = name in signature(net.forward).parameters
    return known and (name != "token_type_ids" or getattr(net.config, "type_vocab_size", 2) > 1)


def _check_length(net: Any, inputs: tuple[Any, ...], given: dict[str, Any]) -> None:
    """Refuses more tokens than positions, as a stateless hook, so that copied and pickled networks keep it."""
    longest, ids = getattr(net.config, "max_position_embeddings", None), given.get("input_ids")
    if longest is not None and ids is not None and ids.shape[-1] > longest:
        raise TutelageError(
            f"{type(net).__name__} takes up to {longest} tokens; found {ids.shape[-1]}: set data.max_length, of a "
            "corpus data.block, to no more"
        )


def config_of(
    pretrained: str | bool | None, local_files_only: bool = False, revision: str | None = None
) -> dict[str, Any] | None:
    """Returns the config of a network as plain values, so that a file of weights says how its network is built.

    Args:
        pretrained: as of :func:`tapped`; None without one.
        local_files_only: as of :func:`tapped`.
        revision: as of :func:`tapped`.

    Raises:
        TutelageError: transformers is not installed, or the network is not there.
    """
    if not pretrained:
        return None
    try:
        found = _transformers().AutoConfig.from_pretrained(
            _place(str(pretrained)), local_files_only=local_files_only, revision=revision or "main"
        )
    except (OSError, ValueError) as error:
        raise _absent(str(pretrained), error) from error
    plain = {key: value for key, value in found.to_diff_dict().items() if key not in _NOT_OF_THE_NETWORK}
    return plain | {"model_type": found.model_type}


def preprocessing(net: Mapping[str, Any]) -> Preprocessing:
    """Returns the images that a network's own image processor makes, by ``preprocessor_config.json``.

    Args:
        net: arguments of :func:`tapped`.

    Raises:
        TutelageError: transformers is not installed, or there is no image processor at ``pretrained``.
    """
    if not (pretrained := net.get("pretrained")):
        raise TutelageError("adapter=own: model=hf without pretrained has no image processor of its own")
    _transformers()
    from transformers import ImageProcessingMixin

    try:
        found, _ = ImageProcessingMixin.get_image_processor_dict(
            _place(str(pretrained)), local_files_only=bool(net.get("local_files_only")),
            revision=net.get("revision") or "main",
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise TutelageError(f"adapter=own: {pretrained} has no preprocessor_config.json: {_line(error)}") from error
    normal, resized = found.get("do_normalize", True), found.get("do_resize", True)
    mean, std = (tuple(found.get(key) or ()) if normal else () for key in ("image_mean", "image_std"))
    mode = _RESAMPLING.get(found.get("resample", 2), "bilinear")
    return Preprocessing(mean, std, _size(found) if resized else (), mode, colours=True)


def _size(processor: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns [height, width] of the images, those of a crop where there is one."""
    cropped = processor.get("do_center_crop") and processor.get("crop_size")
    size = cropped or processor.get("size") or ()
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        side = size.get("shortest_edge")
        return (side, side) if side else tuple(size[key] for key in ("height", "width") if key in size)
    return tuple(size)


def _from(
    kind: Any,
    auto: str,
    pretrained: str | bool | None,
    config: Any,
    num_classes: int | None,
    hub: Mapping[str, Any],
) -> Any:
    labels = {} if num_classes is None else {"num_labels": num_classes}
    given = _plain(config or {})
    if not given and pretrained is None:
        raise TutelageError(
            "model=hf: say pretrained (a folder, a package or a name of the hub) or config ({model_type: bert, …})"
        )
    try:
        if given:
            made = _transformers().AutoConfig.for_model(given.pop("model_type", ""), **given, **labels)
        else:
            made = _transformers().AutoConfig.from_pretrained(_place(str(pretrained)), **hub, **labels)
        if pretrained is None:
            return kind.from_config(made)
        place = _place(str(pretrained))
        with _without_bars() if Path(place).is_dir() else nullcontext():
            return kind.from_pretrained(
                place, config=made, use_safetensors=True, **hub, dtype="float32",
                ignore_mismatched_sizes=num_classes is not None,
            )  # fmt: skip
    except (OSError, ValueError, TypeError) as error:
        if pretrained is None:
            raise TutelageError(f"model=hf: {auto} can't be built from this config: {_line(error)}") from error
        raise _absent(str(pretrained), error) from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """Context manager in which transformers draws no progress bars: a job loads a network from disk several times."""
    logging = _transformers().utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _plain(value: Any) -> Any:
    """Returns dicts and lists in place of a config's own mappings and sequences, which transformers refuses."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, Sequence) and not isinstance(value, str) else value


def _kind(auto: str) -> Any:
    found = getattr(_transformers(), auto, None) if auto.startswith("AutoModel") else None
    if found is None:
        names = [name for name in dir(_transformers()) if name.startswith("AutoModel")]  # half a second
        raise TutelageError(f"model=hf: transformers has no {auto!r}; {nearest(auto, names)}")
    return found


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise TutelageError("model=hf needs the text extra: pip install 'tutelage[text]'") from None
    return transformers


def _place(pretrained: str) -> str:
    """Returns the folder itself, or the only one with a network in an installed package, or the name of the hub."""
    if Path(pretrained).is_dir() or not pretrained.isidentifier() or (spec := find_spec(pretrained)) is None:
        return pretrained
    roots = spec.submodule_search_locations or []
    folders = sorted(file.parent for root in roots for file in Path(root).rglob("config.json"))
    whole = [folder for folder in folders if any(folder.glob("*.safetensors"))]
    if len(whole) != 1:
        raise TutelageError(
            f"pretrained: package {pretrained!r} should hold one folder with config.json and safetensors; found "
            f"{[folder.name for folder in whole] or 'none'}"
        )
    return str(whole[0])


def _token_ids(pretrained: str | bool | None) -> TokenIds | None:
    """Returns the ids of the tokenizer that lies beside the weights; None where there is none on this machine."""
    file = Path(_place(str(pretrained))) / "tokenizer.json" if pretrained else None
    return TokenIds(str(file), "pretrained") if file is not None and file.is_file() else None


def _absent(pretrained: str, error: Exception) -> TutelageError:
    return TutelageError(
        f"model=hf: pretrained={pretrained} is no folder with config.json and safetensors, no installed package that "
        f"has one, and can't be had from the hub: {_line(error)}"
    )


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def _cut(net: Any, kept: list[int]) -> None:
    path = layers_path(net)
    count = len(net.get_submodule(path)) if path else 0
    if not kept or len(set(kept)) < len(kept) or min(kept) < 0 or max(kept) >= count:
        raise TutelageError(f"layers must be indices from 0 to {count - 1}, each once; found {kept}")
    whole = net.get_submodule(path)
    net.set_submodule(path, nn.ModuleList([whole[index] for index in kept]))
    for number, layer in enumerate(net.get_submodule(path)):
        for part in layer.modules():
            if isinstance(getattr(part, "layer_idx", None), int):  # its place in a cache of keys and values
                part.layer_idx = number
    net.config.num_hidden_layers = len(kept)
    if types := getattr(net.config, "layer_types", None):
        net.config.layer_types = [types[index] for index in kept]
