import math

import pytest
import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.losses.feature.ofa import OFAStages
from tutelage.losses.logit.ofa import OFA
from tutelage.losses.logit.soft_target import SoftTarget

LABEL = torch.tensor([0])


def test_fixed_numbers() -> None:
    # q = (1/2, 1/4, 1/4), p = (1/4, 1/2, 1/4): targets (3/2)^ε − 1, (1/4)^ε, (1/4)^ε
    student, teacher = (torch.tensor([row]).log() for row in ((0.25, 0.5, 0.25), (0.5, 0.25, 0.25)))
    for eps in (1.0, 2.0):
        targets = 1.5**eps - 1, 0.25**eps, 0.25**eps
        expected = targets[0] * math.log(4) + targets[1] * math.log(2) + targets[2] * math.log(4)
        assert OFA(eps)(student, teacher, LABEL).item() == pytest.approx(expected, rel=1e-6)


def test_with_an_eps_of_one_the_gradient_is_the_soft_targets() -> None:
    chance = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 5, generator=chance, dtype=torch.float64).requires_grad_() for _ in range(2))
    label = torch.tensor([0, 1, 2, 3])
    ours, theirs = (torch.autograd.grad(loss, student)[0] for loss in
                    (OFA(1.0)(student, teacher, label), SoftTarget(1.0)(student, teacher)))  # fmt: skip
    torch.testing.assert_close(ours, theirs)


def test_a_larger_eps_gives_the_label_more() -> None:
    teacher = torch.zeros(1, 4)
    for eps, share in ((1.0, 1 / 4), (1.5, (1.25**1.5 - 1) / (1.25**1.5 - 1 + 3 * 0.25**1.5))):
        student = torch.zeros(1, 4, requires_grad=True)
        OFA(eps)(student, teacher, LABEL).backward()
        total = 1.25**eps - 1 + 3 * 0.25**eps
        torch.testing.assert_close(student.grad[0, 0], torch.tensor(total * (1 / 4 - share)), atol=1e-6, rtol=1e-5)


def stages(sizes: tuple[int, ...] = (8, 4, 2), rows: int = 4) -> dict[str, Tensor | list[Tensor]]:
    chance = torch.Generator().manual_seed(1)
    maps = [torch.randn(rows, 2 * (i + 1), n, n, generator=chance, dtype=torch.float64) for i, n in enumerate(sizes)]
    named = {"embedding": (rows, 9), "teacher": (rows, 3)}
    vectors = {n: torch.randn(shape, generator=chance, dtype=torch.float64) for n, shape in named.items()}
    return {"student": maps, "label": torch.arange(rows) % 3, **vectors}


def test_each_stage_has_an_exit_whose_losses_are_added() -> None:
    signals, loss = stages(), OFAStages(3, eps=1.2)
    total = loss(**signals)
    assert [sum(isinstance(part, nn.Conv2d) for part in head.modules()) for head in loss.heads] == [1, 4, 8]
    assert [head[-1].in_features for head in loss.heads] == [9, 9, 9]  # the teacher's embedding is the wider one
    assert loss.heads[2](signals["student"][0]).shape == (4, 3)
    apart = [OFA(1.2)(head(stage), signals["teacher"], signals["label"])
             for head, stage in zip(loss.heads, signals["student"][::-1], strict=True)]  # fmt: skip
    assert total.item() == pytest.approx(sum(part.item() for part in apart), rel=1e-6)


def test_gradients_reach_every_stage_and_head() -> None:
    signals, loss = stages(), OFAStages(3)
    for stage in signals["student"]:
        stage.requires_grad_()
    loss(**signals).backward()
    assert all(stage.grad.abs().sum() > 0 for stage in signals["student"])
    assert all(parameter.grad.isfinite().all() for parameter in loss.parameters())


def test_an_optimizer_made_before_the_first_call_trains_the_heads() -> None:
    loss = OFAStages(3)
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    loss(**stages()).backward()
    before = loss.heads[0][-1].weight.clone()
    optimizer.step()
    assert not torch.equal(before, loss.heads[0][-1].weight)


def test_tokens_are_refused() -> None:
    signals = stages() | {"student": [torch.zeros(4, 5, 3)]}
    with pytest.raises(
        TutelageError, match=r"takes maps \[B, C, H, W\] of the student's stages; found \[\[4, 5, 3\]\]"
    ):
        OFAStages(3)(**signals)
