"""Loss modules on plain tensors. Import neither networks, nor configs, nor Lightning.

Every loss class is an attribute; ``dir(tutelage.losses)`` lists them.

Examples:
    >>> import torch, tutelage as tt
    >>> student, teacher = torch.randn(4, 10, requires_grad=True), torch.randn(4, 10)
    >>> loss = tt.losses.DKD(temperature=4.0)(student, teacher, torch.tensor([1, 0, 9, 3]))
    >>> loss.backward()  # in a training loop of one's own
    >>> loss.shape, student.grad.shape
    (torch.Size([]), torch.Size([4, 10]))
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "AB": "feature.ab",
    "Activation": "data_free.dafl",
    "Adversarial": "adversarial.discriminator",
    "AgreedKL": "data_free.distances",
    "AKL": "language.akl",
    "AT": "feature.at",
    "Balance": "logit.soft_tree",
    "BernoulliKL": "logit.bernoulli_kl",
    "BinaryCrossEntropy": "hard",
    "BYOT": "online.byot",
    "CATKD": "feature.cat_kd",
    "CC": "relation.cc",
    "ClassBalance": "data_free.dafl",
    "Codistillation": "online.codistillation",
    "CosineStates": "text.distilbert",
    "CRD": "relation.crd",
    "CTKD": "logit.ctkd",
    "CWD": "dense.cwd",
    "DiffKD": "feature.diffkd",
    "DIST": "logit.dist",
    "DKD": "logit.dkd",
    "DTKD": "logit.dtkd",
    "Dustbin": "logit.dustbin",
    "ElementKL": "data_free.distances",
    "FitNet": "feature.fitnet",
    "FSP": "feature.fsp",
    "FT": "feature.ft",
    "FusedLinear": "language.fused_linear",
    "GKD": "relation.gkd",
    "InstanceContrast": "data_free.contrast",
    "IRG": "relation.irg",
    "ITRD": "relation.itrd",
    "JSD": "language.mixture",
    "KDCL": "online.kdcl",
    "KDSVD": "feature.kdsvd",
    "LeafLabels": "logit.soft_tree",
    "LeafSoftTarget": "logit.soft_tree",
    "LogitL1": "data_free.distances",
    "LogitMSE": "logit.logit_mse",
    "Loss": "base",
    "LSKD": "logit.lskd",
    "LSP": "relation.lsp",
    "MGD": "feature.mgd",
    "MHGD": "relation.mhgd",
    "MiniLM": "text.minilm",
    "MiniLMv2": "text.minilm",
    "MLKD": "logit.mlkd",
    "MutualLearning": "online.mutual",
    "NKD": "logit.nkd",
    "NormDirection": "feature.kdpp",
    "NST": "feature.nst",
    "OFA": "logit.ofa",
    "OFAStages": "feature.ofa",
    "OFD": "feature.ofd",
    "ONE": "online.one",
    "OneHot": "data_free.dafl",
    "OutputMSE": "regression.output_mse",
    "PairWise": "dense.pairwise",
    "PKD": "text.pkd",
    "PKT": "relation.pkt",
    "PSKD": "logit.pskd",
    "ReverseKL": "language.reverse_kl",
    "ReviewKD": "feature.reviewkd",
    "RKD": "relation.rkd",
    "RLD": "logit.rld",
    "SDD": "feature.sdd",
    "SemCKD": "feature.semckd",
    "SimKD": "feature.simkd",
    "SKD": "logit.skd",
    "SkewKL": "language.mixture",
    "SkewReverseKL": "language.mixture",
    "SmoothedStatistics": "data_free.batch_norm",
    "SoftTarget": "logit.soft_target",
    "SP": "relation.sp",
    "SquaredError": "hard",
    "SRD": "feature.srd",
    "SRRL": "feature.srrl",
    "TeacherBounded": "regression.teacher_bounded",
    "TfKDReg": "logit.tfkd",
    "TinyBERTAttention": "text.tinybert",
    "TinyBERTStates": "text.tinybert",
    "TotalVariation": "language.total_variation",
    "TTM": "logit.ttm",
    "ULD": "language.uld",
    "USKD": "logit.uskd",
    "VID": "feature.vid",
    "ViTKD": "feature.vitkd",
    "WeightedCrossEntropy": "hard",
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
