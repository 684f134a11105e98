"""Groups of an optimizer's parameters by rule: no weight decay, learning rates by depth, settings by pattern.

Names of parameters begin with whose they are: ``student.stage1.0.weight`` of the network that learns,
``loss.<term>.<name>`` of a loss, ``<source>.<name>`` of another source. A pattern (``*``, ``?``, ``[…]``) stands for
every name that it matches, or that begins with it up to a dot: ``student.stage1``, ``*.bias``, ``loss``.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from tutelage.checkpoints.weights import is_shard
from tutelage.errors import TutelageError, nearest

log = logging.getLogger(__name__)

OPTIONS = ("no_decay", "layer_decay", "layers", "groups")  # of the section `optimizer`, beside its arguments
NORM_AND_BIAS = "norm_and_bias"
_STUDENT, _LOSS = "student", "loss"
_WILD = set("*?[")


@dataclass(frozen=True)
class GroupRules:
    """Rules that give parameters settings of their own. Every parameter is in exactly one group.

    Attributes:
        no_decay: patterns of those with ``weight_decay`` 0; ``norm_and_bias`` stands for all with at most one dimension
            (normalisation, biases) and all that are called ``bias``.
        layer_decay: what the learning rate is multiplied by for every layer that lies above a parameter of the network.
        layers: patterns of the network's layers, from the first to the last, ``student.encoder.layer.{}`` for every
            child; a parameter is in the first that it matches. By default :func:`layers_of` finds them.
        groups: pattern → settings, such as ``{lr: 0.01}``; where several match, later ones go over earlier ones. They
            go over ``layer_decay``, and ``no_decay`` over them. None: none, for a stage that is to lack the pattern.
    """

    no_decay: Sequence[str] = ()
    layer_decay: float | None = None
    layers: Sequence[str] = ()
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def varies_rates(self) -> bool:
        """Checks whether some parameters may have another learning rate than others."""
        return self.layer_decay is not None or any("lr" in settings for settings in self.groups.values())

    def grouped(
        self,
        named: Mapping[str, nn.Parameter],
        net: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        elsewhere: Collection[str] | None = (),
    ) -> list[dict[str, Any]]:
        """Returns an optimizer's groups; the first is that of most parameters' learning rate.

        Args:
            named: every parameter that learns, by its name.
            net: the network that learns, whose parameters are ``student.…``.
            optimizer: parameters → optimizer, which says the settings that are not changed.
            elsewhere: first parts of names that may be absent here, as other stages have them; None: all but
                ``student``.

        Raises:
            TutelageError: a pattern that matches nothing, a setting that the optimizer has not, or a parameter that is
                in no layer.
        """
        defaults = optimizer([nn.Parameter(torch.zeros(2, 2))]).defaults
        settings: dict[str, dict[str, Any]] = {name: {} for name in named}
        if self.layer_decay is not None:
            for name, scale in self._scales(named, net):
                settings[name] |= {"lr": defaults["lr"] * scale} if scale != 1.0 else {}
        for pattern, own in self.groups.items():
            _check_settings(own, f"optimizer.groups.{pattern}", defaults, optimizer)
            for name in _matching(pattern, named, "groups", elsewhere):
                settings[name] |= own
        if self.no_decay and "weight_decay" not in defaults:
            raise TutelageError(f"optimizer.no_decay: {_name(optimizer)} has no weight_decay")
        for pattern in self.no_decay:
            for name in _undecayed(pattern, named, elsewhere):
                settings[name]["weight_decay"] = 0.0
        return _collected(named, settings)

    def _scales(self, named: Mapping[str, nn.Parameter], net: nn.Module) -> Iterator[tuple[str, float]]:
        assert self.layer_decay is not None
        own = {name: parameter for name, parameter in named.items() if name.startswith(f"{_STUDENT}.")}
        layers = self._layers_by_pattern(own, net) if self.layers else layers_of(net, own)
        log.info("optimizer.layer_decay: %d layers, %s", len(layers), ", ".join(_common(names) for names in layers))
        for depth, names in enumerate(layers):
            for name in names:
                yield name, self.layer_decay ** (len(layers) - 1 - depth)

    def _layers_by_pattern(self, named: Mapping[str, nn.Parameter], net: nn.Module) -> list[list[str]]:
        left, layers = dict(named), []
        for pattern in [one for each in self.layers for one in _children(each, net)]:
            found = list(_matching(pattern, named, "layers"))
            if names := [name for name in found if left.pop(name, None) is not None]:
                layers.append(names)
        if left:
            raise TutelageError(
                f"optimizer.layers: {next(iter(left))} belongs to none of {[*self.layers]}; end with '*' for all others"
            )
        return layers


def rules_of(options: Mapping[str, Any]) -> GroupRules | None:
    """Returns the rules among the plain values of a section ``optimizer``; None where there are none.

    Raises:
        TutelageError: a value of another kind; names the key.
    """
    no_decay, layers = (_patterns(options.get(name), name) for name in ("no_decay", "layers"))
    decay, groups = options.get("layer_decay"), options.get("groups") or {}
    if decay is not None and not (isinstance(decay, int | float) and not isinstance(decay, bool) and 0 < decay <= 1):
        raise TutelageError(f"optimizer.layer_decay must be a number above 0 and up to 1, or null; found {decay!r}")
    if layers and decay is None:
        raise TutelageError("optimizer.layers says where layers are, for optimizer.layer_decay, which is null")
    if not isinstance(groups, Mapping) or not all(one is None or isinstance(one, Mapping) for one in groups.values()):
        raise TutelageError(f"optimizer.groups must be {{pattern: {{lr: 0.01}}}}; found {groups!r}")
    given = {str(pattern): dict(one) for pattern, one in groups.items() if one}
    return GroupRules(no_decay, decay, layers, given) if no_decay or decay is not None or given else None


def public_name(name: str) -> str:
    """Returns a parameter's name in patterns, for its name in a LightningModule of ours."""
    if name.startswith("student.net.net."):
        return f"{_STUDENT}.{name.removeprefix('student.net.net.')}"
    if name.startswith("objective.terms."):
        term, _, rest = name.removeprefix("objective.terms.").partition(".")
        return f"{_LOSS}.{term}.{rest.removeprefix('loss.')}"
    return name.removeprefix("teaching.")


def layers_of(net: nn.Module, named: Mapping[str, nn.Parameter]) -> list[list[str]]:
    """Returns the names of a network's parameters layer by layer, in the order of its children.

    A child is one layer. A ``Sequential`` stands for its children instead; so does a ``ModuleList``, each of whose
    elements is a layer, and a child that has one anywhere within. Parameters that belong to no child go to the first
    layer beside them; what has no weight of two or more dimensions (a normalisation) goes to the layer before it.

    Args:
        net: the network.
        named: its parameters that learn, by ``student.<name>``.
    """
    layers: list[list[str]] = []
    for names in ([name for name in names if name in named] for names in _walk(net, f"{_STUDENT}.")):
        if layers and (not _has_weight(names, named) or not _has_weight(layers[-1], named)):
            layers[-1] += names
        elif names:
            layers.append(names)
    return layers


def _has_weight(names: Sequence[str], named: Mapping[str, nn.Parameter]) -> bool:
    return any(named[name].dim() > 1 for name in names)


def _walk(module: nn.Module, prefix: str) -> list[list[str]]:
    first = [f"{prefix}{name}" for name, _ in module.named_parameters(recurse=False)]
    layers: list[list[str]] = []
    for name, child in module.named_children():
        path = f"{prefix}{name}."
        if _is_split(child, module):
            layers += _walk(child, path)
        else:
            layers.append([f"{path}{one}" for one, _ in child.named_parameters()])
    if first:
        layers = [[*first, *layers[0]], *layers[1:]] if layers else [first]
    return layers


def _is_split(child: nn.Module, parent: nn.Module) -> bool:
    if isinstance(parent, nn.ModuleList):  # its elements are layers, whatever they consist of
        return False
    lists = nn.ModuleList if not isinstance(parent, nn.Sequential) else ()
    return isinstance(child, nn.Sequential) or any(isinstance(one, lists) for one in child.modules())


def _patterns(given: Any, name: str) -> list[str]:
    patterns = [given] if isinstance(given, str) else list(given or ())
    if wrong := [one for one in patterns if not isinstance(one, str)]:
        raise TutelageError(f"optimizer.{name} must be a list of patterns of names; found {wrong[0]!r}")
    return patterns


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _matching(
    pattern: str, named: Mapping[str, nn.Parameter], option: str, elsewhere: Collection[str] | None = ()
) -> list[str]:
    found = [name for name in named if _matches(name, pattern)]
    root = pattern.partition(".")[0]
    known = root != _STUDENT and not _WILD & set(root) if elsewhere is None else root in elsewhere
    if not found and not (known and not any(name.startswith(f"{root}.") for name in named)):
        roots = {name.partition(".")[0] for name in named}
        parts = {".".join(name.split(".")[:count]) for name in named for count in range(1, name.count(".") + 2)}
        raise TutelageError(
            f"optimizer.{option}: no parameter that learns is called {pattern!r}; {nearest(pattern, parts)} "
            f"(names begin with {' or '.join(sorted(roots))})"
        )
    return found


def _undecayed(pattern: str, named: Mapping[str, nn.Parameter], elsewhere: Collection[str] | None) -> list[str]:
    if pattern == NORM_AND_BIAS:
        return [name for name, one in named.items() if one.dim() <= 1 or name.rpartition(".")[2] == "bias"]
    return _matching(pattern, named, "no_decay", elsewhere)


def _children(pattern: str, net: nn.Module) -> list[str]:
    """Returns a pattern, or for ``student.blocks.{}`` one for each child, in their order."""
    if "{}" not in pattern:
        return [pattern]
    before = pattern.partition("{}")[0].rstrip(".")
    path = before.removeprefix(_STUDENT).removeprefix(".")
    try:
        names = [name for name, _ in net.get_submodule(path).named_children()]
    except AttributeError:
        known = [f"{_STUDENT}.{name}" for name, _ in net.named_modules() if name]
        raise TutelageError(
            f"optimizer.layers: {type(net).__name__} has no {before!r}; {nearest(before, known)}"
        ) from None
    return [pattern.replace("{}", name) for name in names]


def _check_settings(
    own: Mapping[str, Any], key: str, defaults: Mapping[str, Any], optimizer: Callable[..., torch.optim.Optimizer]
) -> None:
    for name in own:
        if name not in defaults:
            raise TutelageError(f"{key}.{name}: {_name(optimizer)} has no such setting; {nearest(name, defaults)}")
    try:
        optimizer([nn.Parameter(torch.zeros(2, 2))], **own)
    except (TypeError, ValueError) as error:
        raise TutelageError(f"{key}: {error}") from error


def _collected(named: Mapping[str, nn.Parameter], settings: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = []
    for name, parameter in named.items():
        key = (settings[name], is_shard(parameter))  # whole tensors and shards can't be in one group
        same = next((one for one in groups if one["key"] == key), None)
        if same is None:
            groups.append(same := {"key": key, "params": []})
        same["params"].append(parameter)
    groups.sort(key=lambda group: ("lr" in group["key"][0], len(group["key"][0])))
    return [{"params": group["params"], **group["key"][0]} for group in groups]


def _common(names: Sequence[str]) -> str:
    """Returns what a layer is called in a log: the name of its first weight's module."""
    return names[0].removeprefix(f"{_STUDENT}.").rpartition(".")[0] or names[0]


def _name(optimizer: Callable[..., Any]) -> str:
    made = getattr(optimizer, "func", optimizer)
    return str(getattr(made, "__name__", made))
