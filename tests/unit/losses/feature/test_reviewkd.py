import numpy as np
import pytest
import torch
from tests.unit.losses import oracles_feature as oracle

from tutelage.errors import TutelageError
from tutelage.losses.feature.reviewkd import ReviewKD, _resize, context_loss


def pyramid(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


SHAPES = (4, 5, 9, 9), (4, 6, 5, 5), (4, 7, 2, 2), (4, 8)
TEACHER = (4, 3, 10, 10), (4, 4, 4, 4), (4, 5, 4, 4), (4, 6)


def test_a_whole_pyramid_with_a_pooled_feature_is_the_oracle_s() -> None:
    student, teacher = pyramid(*SHAPES), pyramid(*TEACHER)
    loss = ReviewKD()
    value = loss(student, teacher)
    state = {k: v.double().numpy() for k, v in loss.state_dict().items()}
    expected = oracle.reviewkd(state, [x.numpy() for x in student], [x.numpy() for x in teacher])
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_widths_and_which_stage_attends() -> None:
    loss = ReviewKD()
    loss(pyramid(*SHAPES), pyramid(*TEACHER))
    assert [f.enter[0].weight.shape[:2] for f in loss.fusions] == [(8, 5), (8, 6), (8, 7), (8, 8)]
    assert [f.leave[0].weight.shape[:2] for f in loss.fusions] == [(3, 8), (4, 8), (5, 8), (6, 8)]
    assert [f.attend is not None for f in loss.fusions] == [True, True, True, False]


def test_the_middle_has_at_most_512_channels() -> None:
    loss = ReviewKD()
    loss(pyramid((2, 3), (2, 600)), pyramid((2, 3), (2, 4)))
    assert loss.fusions[0].enter[0].weight.shape[:2] == (512, 3)


def test_deeper_student_stages_tell_of_shallower_teacher_stages_but_not_the_other_way() -> None:
    student, teacher = pyramid(*SHAPES), pyramid(*TEACHER)
    for x in student:
        x.requires_grad_()
    loss = ReviewKD()
    loss(student, teacher)
    guess, deeper = {}, None
    for i in reversed(range(3)):
        guess[i], deeper = loss.fusions[i](student[i], deeper, teacher[i].shape[-2:])
    shallow = torch.autograd.grad(guess[0].square().sum(), student[:3], retain_graph=True)
    deep = torch.autograd.grad(guess[2].square().sum(), student[:3], allow_unused=True)
    assert all(g.abs().sum() > 0 for g in shallow)
    assert [g is None for g in deep] == [True, True, False]


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 8])
def test_the_context_loss_of_any_size(side: int) -> None:
    s, t = pyramid((3, 2, side, side), (3, 2, side, side))
    assert context_loss(s, t).item() == pytest.approx(oracle.hcl(s.numpy(), t.numpy()), rel=1e-12)


def test_the_context_loss_by_hand() -> None:
    """A constant gap of 1 is 1 at every level, so it is 1 over all; one that averages out is seen at the top alone."""
    zero = torch.zeros(2, 1, 8, 8)
    torch.testing.assert_close(context_loss(zero + 1, zero), torch.tensor(1.0))
    chess = torch.from_numpy(np.indices((8, 8)).sum(0) % 2 * 2.0 - 1).float().expand(2, 1, 8, 8)
    torch.testing.assert_close(context_loss(chess, zero), torch.tensor(1 / (1 + 1 / 2 + 1 / 4 + 1 / 8)))
    assert context_loss(chess, chess).item() == 0


def test_a_tensor_is_no_list_of_stages() -> None:
    with pytest.raises(TutelageError, match="ReviewKD takes lists of stages"):
        ReviewKD()(torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4))


@pytest.mark.parametrize("sides", [(1, 1), (1, 2), (2, 1), (2, 4)])
def test_a_smaller_map_is_repeated(sides: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *sides)
    repeated = x.repeat_interleave(2 // sides[0], 2).repeat_interleave(4 // sides[1], 3)
    assert torch.equal(_resize(x, torch.Size([2, 4])), repeated)
