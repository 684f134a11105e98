"""Checks whether networks take all token ids and lengths of data that are texts, before anything is trained."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tutelage.data.module import Data
from tutelage.errors import TutelageError
from tutelage.models.tapped import arguments
from tutelage.models.token_ids import TokenIds
from tutelage.objective import Term
from tutelage.training.module import SupervisedModule
from tutelage.types import Batch


def check_ids(role: str, net: nn.Module, data: Data) -> None:
    """Runs a network once on the highest token id, at the greatest length that the data have.

    Args:
        role: the network, for messages.
        net: a tapped network in eval mode, on the CPU.
        data: loaded.

    Raises:
        TutelageError: it has fewer embeddings than there are ids, fewer positions than tokens, or one kind of segment
            for pairs. A network that fails on every text is left to whoever runs it next.
    """
    batch = data.sample(1)
    if data.vocab_size is None or batch["input"].ndim != 2:
        return
    width = data.input_shape[0]
    for whose, size in (("", data.vocab_size), ("student_", data.student_vocab_size)):
        if size is not None:
            _check_highest(role, net, batch, width, whose, size)
            _check_segments(role, net, _probe(batch, width, whose, 0), f"{whose}segment")
    _check_tokens(role, net, data, batch)


def _check_highest(role: str, net: nn.Module, batch: Batch, width: int, whose: str, size: int) -> None:
    if (why := _refused(net, _probe(batch, width, whose, size - 1))) is None:
        return
    # two low ids, as a network may not count the positions of its padding
    if all(_refused(net, _probe(batch, width, whose, low)) is None for low in (0, 1)):
        raise TutelageError(
            f"the {role} has fewer embeddings than the data have token ids, {size} (data.{whose}vocab_size): use the "
            f"tokenizer that it was made for (data.{whose}tokenizer), or raise its own vocab_size ({why})"
        )
    if _refused(net, batch) is None:
        raise TutelageError(f"the {role} can't read {width} tokens (data.max_length, of a corpus data.block): {why}")


def _check_segments(role: str, net: nn.Module, probe: Batch, name: str) -> None:
    if name not in probe:
        return
    why = _refused(net, probe | {name: torch.ones_like(probe[name])})
    if why is not None and _refused(net, probe) is None:
        raise TutelageError(
            f"the {role} has one kind of segment, and the data are pairs of texts, whose second has segment 1: raise "
            f"{role}.net.segments, of model=hf {role}.config.type_vocab_size, to 2, or leave segment out of its reads "
            f"({why})"
        )


def _check_tokens(role: str, net: nn.Module, data: Data, batch: Batch) -> None:
    """Refuses weights that were made for other ids than the data have: a token has one id in both or is in one."""
    _, fields = arguments(getattr(net, "net", net), batch)
    of_student = any(field is batch.get("student_input") for field in fields.values())
    if data.student_vocab_size is not None and role == "student" and not of_student:
        raise TutelageError(
            "data.student_tokenizer: the student reads `input`, the teacher's ids, and not `student_input`: choose "
            "model@student=bilstm_words or text_cnn_words, or set student.reads"
        )
    owner: Any = data
    tokenizer: Any = owner.student_encode.tokenizer if of_student else getattr(owner, "tokenizer", None)
    found = (getattr(part, "token_ids", None) for part in net.modules())
    own = dict.fromkeys(one for one in found if isinstance(one, TokenIds))
    for made_for in own if tokenizer is not None else ():
        ids, key = tokenizer.inner.get_vocab(), "data.student_tokenizer" if of_student else "data.tokenizer"
        for token, theirs in made_for.read().items():
            if ids.get(token, theirs) != theirs:
                raise TutelageError(
                    f"the {role}'s weights are for the ids of {made_for.source} ({made_for.key}), in which {token!r} "
                    f"is {theirs}; that of {key} has {ids[token]} for it: use the same tokenizer"
                )


def check_tokens_correspond(module: SupervisedModule, data: Data) -> None:
    """Refuses terms that compare a student with a tokenizer of its own token by token.

    A signal is of tokens if its shape follows the length of the student's text.

    Args:
        module: of the student.
        data: loaded.

    Raises:
        TutelageError: names the term and the signal.
    """
    if data.student_vocab_size is None:
        return
    batch = data.sample(2)
    longer = {name: functional.pad(x, (0, 1)) if name.startswith("student_") else x for name, x in batch.items()}
    module.eval()
    with torch.no_grad():
        short, long = module.student(batch), module.student(longer)
    module.train()
    of_tokens = {f"student.{name}" for name in short if short[name].shape != long[name].shape}
    for name, term in module.objective.terms.items():
        assert isinstance(term, Term)
        found = [path for path in term.paths() if path in of_tokens]
        if found and any(not path.startswith("student.") for path in term.paths()):
            raise TutelageError(
                f"loss.terms.{name} compares {found[0]} token by token, and the student has a tokenizer of its own "
                "(data.student_tokenizer): its tokens do not correspond to the teacher's; use a loss on logits of texts"
            )


def _probe(batch: Batch, width: int, whose: str, number: int) -> Batch:
    """Returns one example that is ``width`` tokens long, all of them ``number``."""
    own = batch[f"{whose}input"].shape[1]

    def widened(name: str, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != own or x.is_floating_point() or not name.startswith(whose):
            return x
        value = number if name == f"{whose}input" else int(name == f"{whose}mask")
        return torch.full((1, width), value, dtype=x.dtype)

    return {name: widened(name, x) for name, x in batch.items()}


def _refused(net: nn.Module, batch: Batch) -> str | None:
    """Returns why a network fails on a batch; None if it does not."""
    try:
        with torch.no_grad():
            net(batch)
    except (IndexError, RuntimeError, ValueError) as error:
        return (str(error) or type(error).__name__).strip().splitlines()[0]
    return None
