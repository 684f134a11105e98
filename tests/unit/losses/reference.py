"""Fixed tensors with published values: what reference code gave for them is in the tests that read them."""

import torch
from torch import Tensor

_RAMP = torch.arange(48, dtype=torch.float64).reshape(2, 4, 6)
LABEL = torch.tensor([[1, 2, -100, -100], [0, 5, 3, -100]])
ANSWER = LABEL >= 0
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)


def logits() -> tuple[Tensor, Tensor]:
    """Returns the student's and the teacher's logits, [2, 4, 6]."""
    return 2 * torch.sin(0.7 * _RAMP + 0.3), 3 * torch.cos(1.3 * _RAMP + 0.1)


def answers() -> tuple[Tensor, Tensor]:
    """Returns the logits of the five tokens that have a label, [5, 6]."""
    student, teacher = logits()
    return student[ANSWER], teacher[ANSWER]


def states() -> dict[str, Tensor]:
    """Returns queries, keys and values of both, [2, 4, 6]."""
    return {
        "student_query": torch.sin(0.9 * _RAMP),
        "student_key": torch.sin(1.1 * _RAMP + 0.2),
        "student_value": torch.cos(0.3 * _RAMP),
        "teacher_query": 1.5 * torch.cos(0.4 * _RAMP + 1),
        "teacher_key": 1.5 * torch.cos(0.6 * _RAMP),
        "teacher_value": torch.sin(0.5 * _RAMP + 0.7),
    }
