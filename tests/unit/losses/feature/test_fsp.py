import pytest
import torch

from tutelage.errors import TutelageError
from tutelage.losses.feature.fsp import FSP


def stages(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    return [torch.randn(shape) for shape in shapes]


def test_equal_flows_cost_nothing_though_the_sizes_differ() -> None:
    student = stages((2, 3, 4, 4), (2, 5, 2, 2))
    teacher = [x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in student]  # the same means over places
    torch.testing.assert_close(FSP()(student, teacher), torch.tensor(0.0), rtol=0, atol=1e-12)


def test_it_does_not_see_the_order_of_places() -> None:
    student, teacher = (stages((2, 3, 4, 4), (2, 5, 4, 4)) for _ in range(2))
    order = torch.randperm(16)
    shuffled = [x.flatten(2)[:, :, order].unflatten(2, (4, 4)) for x in student]
    torch.testing.assert_close(FSP()(shuffled, teacher), FSP()(student, teacher))


def test_a_matrix_of_ones_against_zeros() -> None:
    ones, zeros = [torch.ones(2, 3, 4, 4)] * 3, [torch.zeros(2, 3, 4, 4)] * 3
    torch.testing.assert_close(FSP()(ones, zeros), torch.tensor(2.0))  # two matrices, each 1 off everywhere


def test_other_widths_are_refused() -> None:
    student, teacher = stages((2, 3, 4, 4), (2, 5, 2, 2)), stages((2, 3, 4, 4), (2, 6, 2, 2))
    with pytest.raises(TutelageError, match=r"student \[2, 3, 5\] and teacher \[2, 3, 6\]"):
        FSP()(student, teacher)


def test_a_single_stage_is_refused() -> None:
    one = stages((2, 3, 4, 4))
    for signals in (one, one[0]):
        with pytest.raises(
            TutelageError, match=r"two or more stages of the same batch size; found student \[\[2, 3, 4, 4\]\]"
        ):
            FSP()(signals, signals)


def test_stages_of_other_batches_are_refused() -> None:
    mixed = stages((2, 3, 4, 4), (3, 3, 4, 4))
    with pytest.raises(TutelageError, match=r"same batch size; found student \[\[2, 3, 4, 4\], \[3, 3, 4, 4\]\]"):
        FSP()(mixed, mixed)
