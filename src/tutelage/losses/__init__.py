"""Loss modules on plain tensors. Import neither networks, nor configs, nor Lightning.

Every loss class is an attribute: ``tutelage.losses.DKD(temperature=4.0)``; ``dir(tutelage.losses)`` lists them.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "AB": "feature.ab",
    "AT": "feature.at",
    "Balance": "logit.soft_tree",
    "CATKD": "feature.cat_kd",
    "CC": "relation.cc",
    "CRD": "relation.crd",
    "CTKD": "logit.ctkd",
    "DIST": "logit.dist",
    "DKD": "logit.dkd",
    "DTKD": "logit.dtkd",
    "Dustbin": "logit.dustbin",
    "FitNet": "feature.fitnet",
    "FSP": "feature.fsp",
    "FT": "feature.ft",
    "LeafLabels": "logit.soft_tree",
    "LeafSoftTarget": "logit.soft_tree",
    "LogitMSE": "logit.logit_mse",
    "Loss": "base",
    "LSKD": "logit.lskd",
    "MGD": "feature.mgd",
    "MLKD": "logit.mlkd",
    "NKD": "logit.nkd",
    "NST": "feature.nst",
    "OFD": "feature.ofd",
    "PKT": "relation.pkt",
    "PSKD": "logit.pskd",
    "ReviewKD": "feature.reviewkd",
    "RKD": "relation.rkd",
    "SimKD": "feature.simkd",
    "SoftTarget": "logit.soft_target",
    "SP": "relation.sp",
    "SRRL": "feature.srrl",
    "TfKDReg": "logit.tfkd",
    "TTM": "logit.ttm",
    "VID": "feature.vid",
    "WSLD": "logit.wsld",
    "WTTM": "logit.ttm",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tutelage.losses' has no attribute {name!r}")
    return getattr(import_module(f"tutelage.losses.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
