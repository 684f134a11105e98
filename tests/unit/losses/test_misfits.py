"""Signals that break one condition of a loss at a time are refused, by its name or that of the signal."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutelage import losses
from tutelage.errors import TutelageError
from tutelage.losses.data_free.batch_norm import BatchNormStatistics

Made = Callable[[], nn.Module]
ROWS, LABEL = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
MAPS = torch.zeros(2, 3, 4, 4)


def z(*shape: int) -> Tensor:
    return torch.zeros(shape)


def case(make: Made, fitting: dict[str, Any], *misfits: dict[str, Any]) -> tuple[Made, dict[str, Any], Any]:
    return make, fitting, misfits


MISFITS = {
    "BatchNormStatistics": case(
        BatchNormStatistics,
        {"features": [MAPS], "means": [z(3)], "variances": [z(3)]},
        {"features": [z(2)], "means": [z()], "variances": [z()]}, {"means": [z(2)]}, {"variances": [z(2)]},
        {"variances": [z(3), z(3)]}, {"means": [z(3), z(3)]}, {"means": [z(2)], "variances": [z(2)]},
    ),
    "BernoulliKL": case(
        losses.BernoulliKL, {"student": ROWS, "teacher": ROWS, "label": ROWS}, {"label": z(2, 1)},
        {"label": ROWS.long()}
    ),
    "BYOT": case(
        losses.BYOT, {"student": ROWS, "embedding": z(2, 4), "exits": z(2, 1, 3), "features": z(2, 1, 4)},
        {"exits": z(2, 3)}, {"features": z(2, 4)}, {"exits": z(2, 1, 5)}, {"exits": z(1, 1, 3)},
        {"features": z(2, 1, 5)}, {"features": z(1, 1, 4)}, {"exits": z(2, 2, 3)},
        {"exits": z(2, 3), "features": z(2, 4)},
    ),
    "CATKD": case(
        losses.CATKD, {"student": MAPS, "teacher": MAPS, "student_weight": z(5, 3), "teacher_weight": z(5, 3)},
        {"student_weight": z(5, 3, 1)}, {"student_weight": z(5)}, {"student_weight": z(5, 4)},
        {"student": z(2, 3, 1, 4)}, {"student": z(2, 3, 4, 1)}, {"teacher_weight": z(4, 3)},
    ),
    "Codistillation": case(
        losses.Codistillation, {"student": ROWS, "peers": z(2, 1, 3), "stale": z(2, 2, 3)},
        {"peers": ROWS}, {"peers": z(2)}, {"peers": z(2, 1, 1)}, {"peers": z(1, 1, 3)}, {"stale": z(2, 1, 3)},
    ),
    "CosineStates": case(
        losses.CosineStates, {"student": ROWS, "teacher": ROWS}, {"student": z(3), "teacher": z(3)},
        {"student": z(0, 3), "teacher": z(0, 3)}
    ),
    "CRD": case(
        lambda: losses.CRD(9, 2, 3), {"student": ROWS, "teacher": ROWS, "key": LABEL}, {"key": LABEL[:1]},
        {"key": LABEL + 9}
    ),
    "CWD": case(
        losses.CWD, {"student": MAPS, "teacher": MAPS, "mask": torch.ones(2, 4, 4, dtype=torch.bool)},
        {"mask": torch.ones(2, 4, 4)}, {"mask": torch.ones(2, 3, 4, dtype=torch.bool)}, {"teacher": z(2, 3, 2, 4)},
    ),
    "FusedLinear": case(
        lambda: losses.FusedLinear(losses.SoftTarget()),
        {"student": ROWS, "teacher": ROWS, "student_weight": z(5, 3), "teacher_weight": z(5, 3)},
        {"teacher_weight": z(4, 3)}, {"student": z(1, 3)}, {"student": z(2, 1, 3)}, {"student_weight": z(5, 3, 1)},
        {"student_bias": z(4)}, {"student": z(0, 3), "teacher": z(0, 3)},
        {"student": z(2, 3, 1), "student_weight": z(5, 3, 1)},
    ),
    "InstanceContrast": case(
        losses.InstanceContrast, {"part": [ROWS], "whole": [ROWS]},
        {"part": [], "whole": []}, {"whole": [ROWS, ROWS]}, {"whole": [z(2, 4)]},
    ),
    "KDSVD": case(
        losses.KDSVD, {"student": [MAPS, MAPS], "teacher": [MAPS, MAPS]},
        {"student": [MAPS], "teacher": [MAPS]}, {"student": [MAPS, z(2, 5, 4, 4)]},
    ),
    "LSP": case(
        losses.LSP, {"student": ROWS, "teacher": ROWS, "node": LABEL, "edges": torch.zeros(2, 4, dtype=torch.long)},
        {"node": LABEL[:, None]}, {"node": LABEL[:1]}, {"edges": LABEL}, {"edges": LABEL[:, None, None]},
        {"edges": torch.zeros(3, 4, dtype=torch.long)},
    ),
    "MHGD": case(
        lambda: losses.MHGD().eval(), {"student": [MAPS, MAPS], "teacher": [MAPS, MAPS]},
        {"student": [MAPS], "teacher": [MAPS]}, {"student": [MAPS, z(2, 5, 4, 4)]},
    ),
    "OFAStages": case(
        lambda: losses.OFAStages(3), {"student": [MAPS], "embedding": ROWS, "teacher": ROWS, "label": LABEL},
        {"student": []}, {"student": [MAPS, ROWS]},
    ),
    "PairWise": case(
        losses.PairWise, {"student": MAPS, "teacher": MAPS, "mask": torch.ones(2, 4, 4, dtype=torch.bool)},
        {"mask": torch.ones(2, 4, 4)}, {"mask": torch.ones(2, 4, dtype=torch.bool)}, {"teacher": z(2, 3, 2, 4)},
    ),
    "PKD": case(
        losses.PKD, {"student": [ROWS], "teacher": [ROWS]},
        {"student": [], "teacher": []}, {"student": [ROWS, ROWS]}, {"student": [MAPS], "teacher": [MAPS]},
        {"student": [z(3)]},
    ),
    "PSKD": case(losses.PSKD, {"student": ROWS, "label": LABEL, "key": LABEL}, {"key": LABEL - 1},
        {"key": LABEL.float()}),
    "SDD": case(
        lambda: losses.SDD(losses.SoftTarget()),
        {"student": MAPS, "teacher": MAPS, "label": LABEL, "student_weight": z(5, 3), "teacher_weight": z(5, 3)},
        {"student": z(2, 3, 1, 4)}, {"teacher": z(2, 3, 4, 1)}, {"label": LABEL[:1]},
    ),
    "TeacherBounded": case(
        losses.TeacherBounded, {"student": ROWS, "teacher": ROWS, "label": ROWS},
        {"label": z(2, 1)}, {"label": ROWS.long()}, {"teacher": z(2, 1)},
    ),
    "TinyBERTAttention": case(
        lambda: losses.TinyBERTAttention(1),
        {f"{who}_{what}": [z(2, 4, 3)] for who in ("student", "teacher") for what in ("query", "key")},
        {f"{who}_{what}": [] for who in ("student", "teacher") for what in ("query", "key")},
        {"student_key": [z(2, 4, 3)] * 2}, {"student_key": [z(2, 3, 3)]}, {"student_key": [z(2, 4)]},
    ),
    "ULD": case(
        losses.ULD, {**{who: z(2, 4, 3) for who in ("student", "teacher")},
                     **{f"{who}_mask": torch.ones(2, 4, dtype=torch.bool) for who in ("student", "teacher")}},
        {"student": z(2, 4)}, {"teacher": z(2, 4)},
        {"student": z(1, 4, 3), "student_mask": torch.ones(1, 4, dtype=torch.bool)},
        {"student_mask": torch.ones(2, 3, dtype=torch.bool)},
    ),
    "USKD": case(
        lambda: losses.USKD(3), {"student": ROWS, "middle": MAPS, "label": LABEL},
        {"middle": z(2)}, {"middle": z(2, 3, 4)}, {"label": LABEL[:1]}, {"label": LABEL.float()},
    ),
    "ViTKD": case(
        losses.ViTKD, {"student": [z(2, 4, 3)] * 2, "teacher": [z(2, 4, 3)] * 2},
        {"student": [z(2, 4, 3)], "teacher": [z(2, 4, 3)]}, {"student": [z(2, 3, 3)] * 2, "teacher": [z(2, 3, 3)] * 2},
    ),
    "WeightedCrossEntropy": case(
        lambda: losses.WeightedCrossEntropy([1.0, 2.0, 3.0]), {"input": ROWS, "target": LABEL}, {"input": z(2, 2)}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_signals_that_do_not_fit_are_refused(name: str) -> None:
    make, fitting, misfits = MISFITS[name]
    assert make()(**fitting).isfinite()
    for misfit in misfits:
        with pytest.raises(TutelageError):
            make()(**fitting | misfit)
