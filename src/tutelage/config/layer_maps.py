"""Layers of two transformers that a loss compares: ``${layers:…}`` and ``${heads:…}`` in the yamls of ``loss=text/…``.

A network's numbers of layers and heads are those of its config: ``net.layers`` of ``model=text_transformer``,
``layers`` and ``config.num_hidden_layers`` of ``model=hf``. Where it names no number of layers, BERT-base's 12 count,
which its signals then show; numbers of heads are not guessed. A network whose taps name no layer is refused.
"""

from collections.abc import Sequence

from omegaconf import DictConfig, ListConfig, OmegaConf

from tutelage.errors import TutelageError

_TAPPED = "tutelage.models.tapped.Tapped"
_BERT_BASE = 12  # layers
# Ours, and as families of transformers name them.
_LAYERS = ("net.layers", "config.num_hidden_layers", "config.n_layers", "config.n_layer")
_HEADS = ("net.heads", "config.num_attention_heads", "config.n_heads", "config.n_head")
_MAPS = ("uniform", "inner", "last")


def layers(
    source: str, tap: str, given: ListConfig | None, kind: str, first: str = "", *, _root_: DictConfig
) -> ListConfig | str:
    """Returns the names of a network's signals by layer, ``<source>.<tap><layer>``.

    Args:
        source: ``student`` or ``teacher``.
        tap: ``layer``, ``query``, ``key`` or ``value``.
        given: indices of layers; None for those of ``kind``.
        kind: ``uniform``, every layer of the student with the teacher's (m + 1)·N/M − 1 (TinyBERT); ``inner``, the same
            without the last ones (PKD's skip); ``last``, the last layer alone, as one name rather than a list.
        first: a tap that goes before the layers, such as ``embeddings``.

    Raises:
        TutelageError: another kind, a network without layers, or the teacher's number of layers is no multiple of the
            student's.
    """
    if kind not in _MAPS:
        raise TutelageError(f"${{layers:…}}: expected {', '.join(_MAPS)}; found {kind!r}")
    own, theirs = (_depth(_root_, role, tap) for role in ("student", "teacher"))
    if kind == "last":
        number = (own if source == "student" else theirs) - 1 if given is None else int(given[0])
        return f"{source}.{tap}{number}"
    if given is None and theirs % own:
        raise TutelageError(
            f"the teacher has {theirs} layers, the student {own}: no multiple; say which are compared by "
            "loss.student_layers and loss.teacher_layers"
        )
    counts = range(own - (kind == "inner"))
    mapped = [m if source == "student" else (m + 1) * theirs // own - 1 for m in counts] if given is None else given
    return OmegaConf.create([f"{source}.{first}"] * bool(first) + [f"{source}.{tap}{number}" for number in mapped])


def heads(source: str, *, _root_: DictConfig) -> int | None:
    """Returns a network's number of attention heads; None, which losses refuse, where its config does not say it."""
    return _first(_root_[source], _HEADS)


def _depth(root: DictConfig, role: str, tap: str) -> int:
    """Returns a network's number of layers.

    Raises:
        TutelageError: its taps, which are all that it shows, name none.
    """
    node = root[role]
    kept = OmegaConf.select(node, "layers")
    if isinstance(kept, ListConfig):
        return len(kept)
    found = _first(node, _LAYERS)
    shows = node.get("taps") or {}
    if node.get("_target_") == _TAPPED and not any(str(name).startswith(tap) for name in shows):
        network = str(OmegaConf.select(node, "net._target_") or node.get("_target_")).rpartition(".")[2]
        raise TutelageError(
            f"{_comparing(root)} compares layers of two transformers, and the {role} ({network}) has no {tap}0, {tap}1 "
            f"…; it shows {', '.join(map(str, shows)) or 'none'}. Networks with layers: model@{role}=text_transformer, "
            "minilm, hf; losses without: loss=text/bilstm, soft_target and all others on logits"
        )
    return found or _BERT_BASE


def _comparing(root: DictConfig) -> str:
    """Returns what the first term that compares layers is called, for messages."""
    for name, term in (OmegaConf.select(root, "loss.terms") or {}).items():
        plain = OmegaConf.to_container(term, resolve=False)
        if isinstance(plain, dict) and "${layers:" in str(plain.get("inputs")):
            return f"loss.terms.{name} ({str(plain['loss']['_target_']).rpartition('.')[2]})"
    return "${layers:…}"


def _first(node: DictConfig, keys: Sequence[str]) -> int | None:
    found = next(filter(None, (OmegaConf.select(node, key) for key in keys)), None)
    return None if found is None else int(found)
