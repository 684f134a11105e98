import pytest
import torch

from tutelage.losses.feature.nst import NST, _discrepancy, _patterns


@pytest.mark.parametrize("size", [(2, 2), (6, 6)], ids=["by places", "by channels"])
def test_it_does_not_see_order_sign_or_scale_of_the_channels(size: tuple[int, int]) -> None:
    student, teacher = torch.randn(3, 5, *size), torch.randn(3, 7, *size)
    value = NST()(student, teacher)
    scale = torch.tensor([1.0, -2.0, 0.1, 30.0, 5.0])[:, None, None]
    torch.testing.assert_close(NST()((student * scale)[:, [4, 0, 3, 1, 2]], teacher), value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(2, 2), (6, 6)], ids=["by places", "by channels"])
def test_the_same_patterns_cost_nothing_and_others_more(size: tuple[int, int]) -> None:
    student = torch.randn(3, 5, *size, dtype=torch.float64)
    twice = torch.cat([student, 3 * student], 1)
    assert NST()(student, twice).item() == pytest.approx(0, abs=1e-12)
    assert NST()(student, torch.randn_like(twice)) > 1e-3


@pytest.mark.parametrize("channels", [(3, 9), (9, 3), (9, 9)])
def test_both_ways_to_compute_it_agree(channels: tuple[int, int]) -> None:
    """With eight places and nine channels the loss compares places; the sums over channels say the same."""
    s, t = (_patterns(torch.randn(2, c, 2, 4, dtype=torch.float64)) for c in channels)
    by_places = _discrepancy(s, t)
    k = [(x @ y.mT).square().mean() for x, y in ((s, s), (t, t), (s, t))]
    torch.testing.assert_close(by_places, k[0] + k[1] - 2 * k[2])


def test_orthogonal_patterns_are_as_far_apart_as_can_be() -> None:
    """One channel each, at right angles: k(s, s) + k(t, t) − 2 k(s, t) = 1 + 1 − 0."""
    student, teacher = torch.zeros(2, 1, 1, 2), torch.zeros(2, 1, 1, 2)
    student[..., 0], teacher[..., 1] = 4, 7
    torch.testing.assert_close(NST()(student, teacher), torch.tensor(2.0))


def test_tokens_are_places() -> None:
    student, teacher = torch.randn(3, 4, 2, 5), torch.randn(3, 6, 2, 5)
    torch.testing.assert_close(NST()(student.flatten(2).mT, teacher.flatten(2).mT), NST()(student, teacher))


def test_stages_add_up() -> None:
    student, teacher = ([torch.randn(3, c, 4, 4) for c in widths] for widths in ((2, 20), (3, 5)))
    parts = [NST()(s, t) for s, t in zip(student, teacher, strict=True)]
    torch.testing.assert_close(NST()(student, teacher), sum(parts))
