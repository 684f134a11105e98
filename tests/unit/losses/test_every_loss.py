"""What every loss says of itself, keeps in a state, and does without arguments."""

import inspect
import math
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from tutelage import losses
from tutelage.config.paths import conf_dir
from tutelage.errors import TutelageError
from tutelage.losses.base import Loss

CLASSES: dict[str, type[nn.Module]] = {name: getattr(losses, name) for name in losses.__all__}

FACTS = {
    ("least_rows", 2): {
        "CC", "DiffKD", "GKD", "ITRD", "LSP", "MHGD", "NormDirection", "OFAStages", "PKT", "ReviewKD", "SemCKD", "SP",
        "SRD", "SRRL",
    },
    ("least_rows", 3): {"IRG", "RKD"},
    ("takes_unlabelled", True): {"BernoulliKL", "BinaryCrossEntropy", "CRD", "SquaredError", "WeightedCrossEntropy"},
    ("counts_over_ranks", True): {
        "BernoulliKL", "BinaryCrossEntropy", "SquaredError", "TinyBERTAttention", "TinyBERTStates",
        "WeightedCrossEntropy",
    },
    ("same_on_ranks", True): {"Balance", "CRD", "CTKD", "KDCL", "PSKD"},
    ("fixed_graph", True): {"CTKD", "KDCL", "PSKD"},
    ("over_classes", True): {
        "AgreedKL", "AKL", "Balance", "BYOT", "ClassBalance", "Codistillation", "CTKD", "DIST", "DKD", "DTKD",
        "Dustbin", "ElementKL", "JSD", "KDCL", "LeafLabels", "LeafSoftTarget", "LSKD", "MLKD", "MutualLearning", "NKD",
        "OFA", "OFAStages", "ONE", "OneHot", "PSKD", "ReverseKL", "RLD", "SDD", "SkewKL", "SkewReverseKL", "SKD",
        "SoftTarget", "TfKDReg", "TotalVariation", "TTM", "ULD", "USKD", "WSLD", "WTTM",
    },
}  # fmt: skip


@pytest.mark.parametrize(("fact", "value"), FACTS)
def test_what_losses_say_of_themselves(fact: str, value: Any):
    plain = getattr(Loss, fact)
    assert plain != value
    assert {name for name, kind in CLASSES.items() if getattr(kind, fact, plain) == value} == FACTS[fact, value]
    assert {getattr(kind, fact, plain) for kind in CLASSES.values()} == {
        plain,
        *(known for own, known in FACTS if own == fact),
    }


NEEDED: dict[str, dict[str, Any]] = {
    "Dustbin": {"classes": [0, 1]},
    "FusedLinear": {"loss": losses.SoftTarget()},
    "MiniLM": {"heads": 2},
    "NormDirection": {"num_classes": 5},
    "OFAStages": {"num_classes": 5},
    "SDD": {"loss": losses.SoftTarget()},
    "SemCKD": {"batch": 4},
    "TinyBERTAttention": {"heads": 2},
    "USKD": {"num_classes": 5},
    "WeightedCrossEntropy": {"class_weights": [1.0, 2.0]},
}


@pytest.mark.parametrize("name", CLASSES)
def test_no_argument_is_in_a_state(name: str):
    """So that a sweep over it can go on from the same state, and a state of an older default changes nothing."""
    kind = CLASSES[name]
    made = kind(**NEEDED.get(name, {}))
    assert not {key.rpartition(".")[2] for key in made.state_dict()} & set(inspect.signature(kind).parameters)


FINITE = (0.0, 1e6), (-1e-6, math.inf, math.nan)
COUNT = (1, 3), (0, -1)
PROBABILITY = (0.0, 1.0), (-1e-6, 1.000001, math.nan)
RANGES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {  # argument of any loss, or of one: taken, refused
    **dict.fromkeys(("temperature", "confidence_temperature", "CTKD.start", "SKD.multiplier"), (
        (1e-3, 1e6), (9.9e-4, math.inf, math.nan)
    )),
    **dict.fromkeys((
        "strength", "soft", "feature", "alpha", "beta", "gamma", "mu", "span", "diffusion", "reconstruction", "eps",
        "correlation", "mutual", "instance", "batch", "classes", "query", "key", "value", "distance_weight",
        "angle_weight", "logit", "low", "high", "TeacherBounded.margin",
    ), FINITE),
    **dict.fromkeys((
        "stages", "hidden", "resolution", "dim", "order", "negatives", "ramp", "epochs", "chunk", "power", "peers",
        "heads", "num_classes",
    ), COUNT),
    **dict.fromkeys(("label_smoothing", "mixing", "pool", "skew", "AKL.mu", "JSD.beta"), PROBABILITY),
    **dict.fromkeys(("AB.margin", "FT.lr", "ITRD.alpha", "LSP.scale", "MHGD.lr", "SRD.power"), (
        (1e-6, 1e6), (0.0, -1.0, math.inf, math.nan)
    )),
    "InstanceContrast.size": COUNT,
    "SmoothedStatistics.first": FINITE,
    "SmoothedStatistics.momentum": ((0.0, 0.999), (-1e-6, 1.0)),
    "Balance.window": ((1.0, 1e6), (0.999, math.inf)),
    "CC.gamma": ((1e-6, 1e6), (9e-7, math.inf)),
    "ClassBalance.base": ((1.001, 1e6), (1.0, math.inf)),
    "CRD.momentum": ((0.0, 0.999), (-1e-6, 0.9991)),
    "DiffKD.steps": ((1, 2, 5), (0, 3)),
    "Dustbin.share": ((1e-6, 1 - 1e-6), (0.0, 1.0)),
    "FT.rate": ((1e-6, 1.0), (0.0, 1.001)),
    "MGD.ratio": ((0.0, 0.999), (-1e-6, 1.0)),
    "SemCKD.batch": ((2, 3), (1, 0)),
    "TfKDReg.correct": ((1e-6, 1.0), (0.0, 1.001)),
    "USKD.num_classes": ((2, 3), (1, 0)),
    "VID.variance": ((1.1e-5, 1e6), (1e-5, math.inf)),
    "ViTKD.ratio": ((1e-6, 0.999), (0.0, 1.0)),
}  # fmt: skip
NUMBERS = {
    f"{name}.{argument}"
    for name, kind in CLASSES.items()
    for argument, parameter in inspect.signature(kind).parameters.items()
    if type(NEEDED.get(name, {}).get(argument, parameter.default)) in (int, float)
} - {"TinyBERTStates.layers"}  # read with another projection


@pytest.mark.parametrize("number", sorted(NUMBERS))
def test_a_number_is_taken_up_to_the_ends_of_its_range(number: str):
    name, _, argument = number.partition(".")
    taken, refused = RANGES.get(number) or RANGES[argument]
    for value in taken:
        CLASSES[name](**{**NEEDED.get(name, {}), argument: value})
    for value in refused:
        with pytest.raises(TutelageError):
            CLASSES[name](**{**NEEDED.get(name, {}), argument: value})


SQUARED: dict[str, dict[str, Any]] = {  # losses with T² before all of their terms, and their other arguments
    "AKL": {}, "BernoulliKL": {}, "BYOT": {"feature": 0.0}, "CWD": {}, "DIST": {}, "DKD": {}, "JSD": {},
    "KDCL": {"rule": "mean"}, "MutualLearning": {}, "ONE": {}, "ReverseKL": {}, "RLD": {"confidence_temperature": 3.0},
    "SkewKL": {}, "SkewReverseKL": {}, "SoftTarget": {},
}  # fmt: skip


@pytest.mark.parametrize("name", SQUARED)
def test_a_temperature_divides_the_logits_and_its_square_stands_before_the_loss(name: str):
    chance, names = torch.Generator().manual_seed(0), inspect.signature(CLASSES[name].forward).parameters
    z, t, other = torch.randn(3, 5, 4, generator=chance, dtype=torch.float64)
    signals: dict[str, Any] = {
        "student": z, "teacher": t, "peers": t[:, None], "others": t[:, None], "ensemble": other, "exits": t[:, None],
        "label": torch.arange(5) % 4, "embedding": z, "features": t[:, None],
    }  # fmt: skip
    signals |= {"BernoulliKL": {"label": None}, "CWD": {"student": z[:, None, None], "teacher": t[:, None, None]}}.get(
        name, {}
    )
    signals = {key: value for key, value in signals.items() if key in names}
    thrice = {key: 3 * x if torch.is_tensor(x) and x.is_floating_point() else x for key, x in signals.items()}
    ones = {key: 1.0 for key in SQUARED[name] if key.endswith("temperature")}
    plain = CLASSES[name](**SQUARED[name] | ones, temperature=1.0).double()(**signals)
    assert plain.item() > 1e-3
    found = CLASSES[name](**SQUARED[name], temperature=3.0).double()(**thrice)
    assert found.item() == pytest.approx(9 * plain.item(), rel=1e-9)


def test_half_precision_in_lists_is_computed_in_single():
    maps = [torch.randn(2, 3, 4, 4).bfloat16() for _ in range(2)]
    assert losses.AT()(maps, maps[::-1]).dtype == torch.float32


def test_an_unknown_loss_is_no_attribute():
    with pytest.raises(AttributeError, match=r"module .tutelage.losses. has no attribute 'SoftTargets'"):
        losses.SoftTargets  # noqa: B018
    assert {"SoftTarget", "WTTM", "__doc__"} <= set(dir(losses))


# -- defaults ---------------------------------------------------------------------------------------------------------

OTHER = {  # argument of a loss whose yaml has another value: it is that of a method or a kind of data
    "cc.CC.dim", "data_free/dfq.ClassBalance.base", "fitnet.FitNet.rectify", "mgd.MGD.channels", "mgd.MGD.ratio",
    "sdd.SDD.labelled", "segmentation/cwd.CWD.channels_last", "wttm.WTTM.temperature",
}  # fmt: skip
SETTING = re.compile(r"\$\{setting:\$\{loss\.setting\},cifar,([^,}]+),imagenet,([^,}]+)\}")


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yields the losses of a config."""
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(value)
    if isinstance(node, dict) and str(node.get("_target_")).startswith("tutelage.losses."):
        yield node


def given(value: Any, config: dict[str, Any]) -> list[Any]:
    """Returns the values that an argument of a yaml has by itself; none where they come from elsewhere."""
    text = str(value)
    if own := re.fullmatch(r"\$\{loss\.(\w+)\}", text):
        return given(config[own[1]], config) if own[1] in config else []
    if found := SETTING.fullmatch(text):
        return [float(one) for one in found.groups()]
    if re.fullmatch(r"\d+e-?\d+", text):  # a number for OmegaConf, a text for YAML
        return [float(text)]
    return [] if "${" in text else [tuple(value) if isinstance(value, list) else value]


def same(one: Any, other: Any) -> bool:
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (one, other))
    return math.isclose(one, other, rel_tol=1e-6) if numbers else one == other


DEFAULTS = {
    f"{name}.{argument}": parameter.default
    for name, kind in CLASSES.items()
    for argument, parameter in inspect.signature(kind).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}
BY_ITSELF = {  # what no yaml gives
    **dict.fromkeys(("AB.stages", "Adversarial.stages", "OFD.stages", "ReviewKD.stages", "VID.stages"), 5),
    **dict.fromkeys(("OFAStages.stages", "SemCKD.stages", "ViTKD.stages"), 8),
    **dict.fromkeys(
        ("Dustbin.label_smoothing", "LeafLabels.label_smoothing", "WeightedCrossEntropy.label_smoothing"), 0.0
    ),
    **dict.fromkeys(("MiniLMv2.query", "MiniLMv2.key", "MiniLMv2.value"), 1.0),
    "AB.margin": 1.0, "CC.gamma": 0.4, "CC.order": 2, "CRD.examples": None, "DiffKD.diffusion": 1.0,
    "DiffKD.reconstruction": 1.0, "Dustbin.share": 0.5, "FusedLinear.chunk": 1024, "KDCL.peers": 1,
    "RKD.distance_weight": 25.0, "RKD.angle_weight": 50.0, "RLD.confidence_temperature": 1.0, "SRD.power": 4.0,
    "TinyBERTStates.layers": 13, "VID.variance": 5.0, "ViTKD.low": 3e-5, "ViTKD.high": 3e-6, "ViTKD.ratio": 0.5,
}  # fmt: skip


def test_defaults_are_the_values_of_the_yamls():
    """A loss made in Python is that of the command line, of one of its settings."""
    differ, compared = set(), set()
    for file in sorted(Path(conf_dir(), "loss").rglob("*.yaml")):
        whole = yaml.load(file.read_text(), yaml.CSafeLoader)
        config = whole.get("loss", whole)  # of a yaml for the whole config
        for node in nodes(whole):
            module, _, name = node["_target_"].rpartition(".")
            if name == "SoftTarget" and file.stem != "soft_target":  # a part of many methods, each at its own
                continue
            parameters = inspect.signature(getattr(import_module(module), name)).parameters
            for argument, value in node.items():
                if argument.startswith("_") or not (values := given(value, config)):
                    continue
                if (default := parameters[argument].default) is inspect.Parameter.empty:
                    continue
                compared.add(f"{name}.{argument}")
                if not any(same(one, default) for one in values):
                    choice = file.relative_to(Path(conf_dir(), "loss")).with_suffix("")
                    differ.add(f"{choice}.{name}.{argument}")
    assert differ == OTHER
    given_nowhere = {number: default for number, default in DEFAULTS.items() if number not in compared}
    assert given_nowhere == BY_ITSELF
