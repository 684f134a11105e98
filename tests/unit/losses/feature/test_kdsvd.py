"""Relations of singular vectors against NumPy's SVD and loops over examples and channels."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.losses.feature.kdsvd import KDSVD


def signals(seed=0, batch=5, widths=(4, 6, 5), side=3):
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, width, side, side, generator=chance, dtype=torch.float64) for width in widths]


def vectors(student, teacher):
    own, theirs = [], []
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        first, near = (np.linalg.svd(x.reshape(len(x), -1).T)[2] for x in (t, s))
        target = first[0] * np.sign(first[0][np.abs(first[0]).argmax()])
        cosines = near[:4] @ target
        best = np.abs(cosines).argmax()
        theirs.append(target)
        own.append(near[best] * np.sign(cosines[best]))
    return own, theirs


def oracle(student, teacher):
    found = [vectors(s, t) for s, t in zip(student, teacher, strict=True)]
    total = 0.0
    for front, back in pairwise(found):
        for b in range(len(student[0])):
            for i in range(len(back[0][b])):
                for j in range(len(front[0][b])):
                    s, t = (math.exp(-((back[role][b][i] - front[role][b][j]) ** 2) / 8) for role in (0, 1))
                    total += (s - t) ** 2
    return total / len(student[0])


def test_equals_the_oracle_also_of_other_sizes_and_in_half_precision():
    student, teacher = signals(1), signals(2, side=4)
    assert KDSVD()(student, teacher).item() == pytest.approx(oracle(student, teacher), rel=1e-9)
    for dtype in (torch.bfloat16, torch.float16):
        half = [[x.to(dtype) for x in stages] for stages in (student, teacher)]
        found = KDSVD()(*half)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(oracle(*[[x.double() for x in stages] for stages in half]), rel=1e-3)


def test_gradient():
    teacher = signals(2, 3, (2, 3), 2)
    student = [x.requires_grad_() for x in signals(1, 3, (2, 3), 2)]
    assert torch.autograd.gradcheck(lambda *maps: KDSVD()(list(maps), teacher), student)


def test_equal_maps_are_the_minimum_at_any_scale_and_sign():
    teacher = signals(2)
    assert KDSVD()(teacher, teacher).item() == pytest.approx(0, abs=1e-12)
    assert KDSVD()([-3 * x for x in teacher], teacher).item() == pytest.approx(0, abs=1e-9)
    assert KDSVD()(signals(1), teacher).item() > 1e-3


def test_examples_positions_and_tokens():
    student, teacher = signals(1), signals(2)
    expected = KDSVD()(student, teacher).item()
    order, places = torch.tensor([3, 1, 4, 0, 2]), torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert KDSVD()(*[[x[order] for x in y] for y in (student, teacher)]).item() == pytest.approx(expected)
    moved = [[x.flatten(2)[:, :, places].mT for x in y] for y in (student, teacher)]
    assert KDSVD()(*moved).item() == pytest.approx(expected)


def test_dead_and_equal_maps_give_a_finite_gradient():
    student = signals(1)
    for stage in student:
        stage[0] = 0
        stage[1] = 1
        stage.requires_grad_()
    KDSVD()(student, signals(2)).backward()
    assert all(bool(stage.grad.isfinite().all()) for stage in student)
    assert all(bool(stage.grad[4].any()) for stage in student)


def test_what_does_not_fit_is_refused():
    with pytest.raises(TutelageError, match="KDSVD takes two or more stages of equal widths"):
        KDSVD()(signals(1)[:1], signals(2)[:1])
    with pytest.raises(TutelageError, match=r"found student \[4, 6, 5\], teacher \[4, 6, 7\]"):
        KDSVD()(signals(1), signals(2, widths=(4, 6, 7)))
