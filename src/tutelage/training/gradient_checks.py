"""Checks, before the first step, that something can learn from every term of an objective."""

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from tutelage.errors import TutelageError
from tutelage.objective import Objective, Term
from tutelage.types import Signals


def check_gradients(
    objective: Objective, parts: Mapping[str, Tensor], signals: Mapping[str, Signals], student: nn.Module
) -> None:
    """Checks that each term has a gradient, and that one of them reaches the student.

    A term may train an adapter alone, and a constant 0 is what a loss returns where it finds nothing in a few examples
    or begins after a warm-up of its own.

    Args:
        objective: has the terms.
        parts: term → its loss, a scalar with its graph.
        signals: source → signals, from which the losses were computed.
        student: what is to learn.

    Raises:
        TutelageError: names the term.
    """
    for name, part in parts.items():
        if not part.requires_grad and bool(part != 0):
            term: Term = objective.terms[name]  # type: ignore[assignment]
            raise TutelageError(
                f"term {name!r}: nothing would learn from it, because the value of {type(term.loss).__name__} has no "
                f"gradient: {_why(term, signals)}"
            )
    if not reaches(parts.values(), [parameter for parameter in student.parameters() if parameter.requires_grad]):
        raise TutelageError(
            f"the student would learn nothing: no gradient of {' or '.join(map(repr, parts))} reaches its weights; "
            "detach(), argmax, .item(), NumPy and torch.no_grad() in a network or a loss end gradients"
        )


def _why(term: Term, signals: Mapping[str, Signals]) -> str:
    inputs = {path: signals[path.split(".", 1)[0]].get(path.split(".", 1)[1]) for path in term.paths(term.inputs)}
    learning = [path for path, signal in inputs.items() if isinstance(signal, Tensor) and signal.requires_grad]
    if learning:
        return f"it loses that of {', '.join(learning)}, by detach(), argmax, .item(), NumPy or torch.no_grad()"
    if taught := [path for path in term.paths(term.targets) if path.startswith("student.")]:
        return f"{', '.join(taught)} belongs to its inputs, as targets are detached"
    return f"its inputs ({', '.join(inputs) or 'there are none'}) have none"


def reaches(values: Iterable[Tensor], parameters: Iterable[nn.Parameter]) -> bool:
    """Checks whether the gradient of one of ``values`` reaches one of ``parameters``.

    The graph is followed, not run. Functions with a backward of their own (reentrant checkpoints, compiled networks)
    may have parameters that the graph does not show; they are taken to reach.
    """
    wanted = set(map(id, parameters))
    nodes = [value.grad_fn for value in values if value.grad_fn is not None]
    if any(id(value) in wanted for value in values):
        return True
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if isinstance(node, BackwardCFunction) or id(getattr(node, "variable", None)) in wanted:
            return True
        following = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= following
        nodes += following
    return False


def leaves(loss: Tensor) -> list[Tensor]:
    """Returns the tensors that ``loss.backward()`` would give a gradient."""
    found: list[Tensor] = []
    seen, waiting = set(), [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (leaf := getattr(node, "variable", None)) is not None:
            found.append(leaf)
        waiting.extend(before for before, _ in node.next_functions)
    return found
