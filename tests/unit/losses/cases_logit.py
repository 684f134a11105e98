"""The logit losses, each with its formula and the properties that its tests may rely on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.unit.losses import oracles_language as of_language
from tests.unit.losses import oracles_logit as oracle
from torch import Tensor, nn

from tutelage.losses.language.akl import AKL
from tutelage.losses.language.mixture import JSD, SkewKL, SkewReverseKL
from tutelage.losses.language.reverse_kl import ReverseKL
from tutelage.losses.language.total_variation import TotalVariation
from tutelage.losses.logit.ctkd import CTKD
from tutelage.losses.logit.dist import DIST
from tutelage.losses.logit.dkd import DKD
from tutelage.losses.logit.dtkd import DTKD
from tutelage.losses.logit.logit_mse import LogitMSE
from tutelage.losses.logit.lskd import LSKD
from tutelage.losses.logit.mlkd import MLKD
from tutelage.losses.logit.nkd import NKD
from tutelage.losses.logit.ofa import OFA
from tutelage.losses.logit.rld import RLD
from tutelage.losses.logit.skd import SKD
from tutelage.losses.logit.soft_target import SoftTarget
from tutelage.losses.logit.tfkd import TfKDReg
from tutelage.losses.logit.ttm import TTM, WTTM
from tutelage.losses.logit.wsld import WSLD

Signals = dict[str, Tensor]

TEMPERATURE = {"temperature": (1.0, 4.0, 20.0)}


@dataclass(frozen=True)
class Case:
    make: Callable[..., nn.Module]
    formula: Callable[..., float]
    options: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # values to try of each hyperparameter
    inputs: tuple[str, ...] = ("student", "teacher")
    zero: bool = True  # 0 with a gradient of 0 where student and teacher agree
    shift: bool = True  # unchanged by a constant added to a row
    scale: float = 10.0  # the widest logits to try
    classes: int = 2  # the fewest that it takes
    drop: bool = True  # a class that is masked in both is as good as absent
    gradient: tuple[str, ...] = ("student", "teacher")  # what no detach hides from finite differences; see test_wsld.py

    def middle(self) -> dict[str, Any]:
        return {name: values[len(values) // 2] for name, values in self.options.items()}

    def value(self, signals: Signals, **options: Any) -> float:
        arrays = {name: x.numpy() if name == "label" else x.double().numpy() for name, x in signals.items()}
        return self.formula(**arrays, **options)


LABELLED = ("student", "teacher", "label")
CASES = {
    "SoftTarget": Case(SoftTarget, oracle.soft_target, TEMPERATURE),
    "LogitMSE": Case(LogitMSE, oracle.logit_mse, shift=False),
    "DKD": Case(DKD, oracle.dkd, {"alpha": (0.0, 1.0, 2.5), "beta": (0.0, 8.0, 0.5), **TEMPERATURE}, LABELLED),
    "RLD": Case(
        RLD,
        oracle.rld,
        {"alpha": (0.0, 1.0), "beta": (0.0, 8.0), "confidence_temperature": (1.0, 2.0), **TEMPERATURE},
        LABELLED,
        zero=False,
    ),
    "OFA": Case(OFA, oracle.ofa, {"eps": (0.5, 1.0, 1.5), **TEMPERATURE}, LABELLED, zero=False),
    "NKD": Case(NKD, oracle.nkd, {"gamma": (0.0, 1.5), **TEMPERATURE}, LABELLED, zero=False, gradient=("student",)),
    "DIST": Case(
        DIST,
        oracle.dist,
        {"beta": (0.0, 1.0, 2.0), "gamma": (2.0, 1.0, 0.0), **TEMPERATURE},
        scale=3.0,
        drop=False,
        classes=3,
    ),
    "DTKD": Case(DTKD, oracle.dtkd, {"alpha": (0.0, 3.0), "beta": (0.0, 1.0), **TEMPERATURE}, shift=False),
    "LSKD": Case(LSKD, oracle.lskd, TEMPERATURE, classes=3),
    "SKD": Case(SKD, oracle.skd, {"multiplier": (1.0, 2.0, 3.0), **TEMPERATURE}, classes=3),
    "CTKD": Case(CTKD, oracle.ctkd, {"start": (1.0, 2.0), "span": (0.0, 20.0)}),
    "MLKD": Case(
        MLKD,
        oracle.mlkd,
        {"temperatures": ((1.0,), (2.0, 5.0), (20.0,))}
        | dict.fromkeys(("instance", "batch", "classes"), (0.0, 1.0, 3.0)),
        drop=False,
    ),
    "TTM": Case(TTM, oracle.ttm, TEMPERATURE, zero=False),
    "WTTM": Case(WTTM, oracle.wttm, TEMPERATURE, zero=False),
    "WSLD": Case(WSLD, oracle.wsld, TEMPERATURE, LABELLED, zero=False, gradient=()),
    "TfKDReg": Case(
        TfKDReg,
        oracle.tfkd,
        {"correct": (0.3, 0.99), **TEMPERATURE},
        ("student", "label"),
        zero=False,
        drop=False,
        gradient=("student",),
    ),
    "ReverseKL": Case(ReverseKL, of_language.reverse_kl, TEMPERATURE),
    "JSD": Case(JSD, of_language.jsd, {"beta": (0.0, 0.1, 0.5, 0.9, 1.0), **TEMPERATURE}),
    "JSD, normalized": Case(
        partial(JSD, normalized=True),
        partial(of_language.jsd, normalized=True),
        {"beta": (0.0, 0.1, 0.5, 0.9, 1.0), **TEMPERATURE},
    ),
    "SkewKL": Case(SkewKL, of_language.skew_kl, {"skew": (0.0, 0.1, 0.5), **TEMPERATURE}),
    "SkewReverseKL": Case(SkewReverseKL, of_language.skew_reverse_kl, {"skew": (0.0, 0.1, 0.5), **TEMPERATURE}),
    "AKL": Case(AKL, of_language.akl, {"mu": (0.2, 0.5, 0.9), **TEMPERATURE}, gradient=()),
    "TotalVariation": Case(TotalVariation, of_language.total_variation),
}
