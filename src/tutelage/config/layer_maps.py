"""Layers of two transformers that a loss compares: ``${layers:…}`` and ``${heads:…}`` in the yamls of ``loss=text/…``.

A network's numbers of layers and heads are those of its config: ``net.layers`` of ``model=text_transformer``,
``layers`` and ``config.num_hidden_layers`` of ``model=hf``. Where it names none, BERT-base's 12 count.
"""

from omegaconf import DictConfig, ListConfig, OmegaConf

from tutelage.errors import TutelageError

_BERT_BASE = 12  # layers, and heads
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
        TutelageError: another kind, or the teacher's number of layers is no multiple of the student's.
    """
    if kind not in _MAPS:
        raise TutelageError(f"${{layers:…}}: expected {', '.join(_MAPS)}; found {kind!r}")
    own, theirs = _depth(_root_.student), _depth(_root_.teacher)
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


def heads(source: str, *, _root_: DictConfig) -> int:
    """Returns the number of attention heads of a network."""
    node = _root_[source]
    found = OmegaConf.select(node, "net.heads") or OmegaConf.select(node, "config.num_attention_heads")
    return int(found or _BERT_BASE)


def _depth(node: DictConfig) -> int:
    kept = OmegaConf.select(node, "layers")
    if isinstance(kept, ListConfig):
        return len(kept)
    return int(OmegaConf.select(node, "net.layers") or OmegaConf.select(node, "config.num_hidden_layers") or _BERT_BASE)
