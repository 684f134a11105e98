import math
from itertools import product

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from tutelage.report.statistics import MOST_SEEDS, holm, paired, power, seeds_needed, wilcoxon


def test_paired_is_scipy_s_test_and_interval():
    student, control = np.array([0.91, 0.93, 0.90, 0.95, 0.92]), np.array([0.90, 0.90, 0.91, 0.92, 0.90])
    found = paired(student - control)
    test = stats.ttest_rel(student, control)
    interval = test.confidence_interval(0.95)
    assert (found.n, found.is_tested) == (5, True)
    assert found.mean == pytest.approx(0.016)
    assert found.p_t == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.sd == pytest.approx(math.sqrt(((student - control - 0.016) ** 2).sum() / 4))
    assert found.p_wilcoxon == wilcoxon(student - control)
    assert found.seeds == seeds_needed(found.mean, found.sd)


def test_what_can_not_be_tested_is_not():
    assert (paired([]).n, paired([]).mean) == (0, None)
    one = paired([0.02])
    assert (one.n, one.mean, one.sd, one.low, one.p_t, one.seeds) == (1, 0.02, None, None, None, None)
    equal = paired([0.3 - 0.1, 0.2, 0.2])  # equal but for rounding
    assert (equal.n, equal.mean, equal.sd, equal.seeds) == (3, pytest.approx(0.2), 0.0, None)
    assert not equal.is_tested


def test_wilcoxon_by_hand():
    assert wilcoxon([1, 2, 3, 4, 5]) == pytest.approx(2 / 32)  # the most extreme of 2^5 signs, two-sided
    assert wilcoxon([1, 2, 3, 4, -5]) == pytest.approx(2 * 10 / 32)  # W⁻ = 5: as extreme are 10 sums of ranks 1…5
    assert wilcoxon([0, 1, 2, 3, 4, 5]) == pytest.approx(2 / 32)
    assert wilcoxon([0.0, 0.0]) == wilcoxon([0.0, 0.3]) == 1.0
    assert wilcoxon([0.1 + 0.2, 0.3, 0.3]) == pytest.approx(2 / 8)  # ties, equal but for rounding
    assert wilcoxon([0.5, -0.5 + 3e-13, 0.5]) == 1.0  # nor does 3e-13 decide
    assert wilcoxon([0.5, -0.5 + 3e-12, 0.5]) == 0.5
    assert wilcoxon([1, 2]) == pytest.approx(2 / 4)


def test_wilcoxon_with_ties_is_exact_up_to_13_differences():
    d = np.array([1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, -3, -4.0])
    ranks = stats.rankdata(abs(d))
    sums = np.array([ranks[list(signs)].sum() for signs in np.array(list(product([False, True], repeat=13)))])
    far = abs(ranks[d > 0].sum() - ranks.sum() / 2)
    assert wilcoxon(d) == pytest.approx((abs(sums - ranks.sum() / 2) >= far - 1e-9).mean(), abs=1e-12)


def test_wilcoxon_of_more_with_ties_is_the_normal_approximation():
    d = np.array([1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, -3, -4.0, 5])
    assert wilcoxon(d) == pytest.approx(stats.wilcoxon(d, method="asymptotic").pvalue, abs=1e-12)


def test_wilcoxon_of_many_is_scipy_s():
    d = np.random.default_rng(0).normal(0.3, 1, 20)
    assert wilcoxon(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, abs=1e-9)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]
    assert holm([None]) == [None]
    assert holm([0.04]) == [0.04]


def test_power_is_that_of_a_simulation():
    n, mean, sd = 8, 1.0, 1.2
    d = np.random.default_rng(1).normal(mean, sd, (20_000, n))
    seen = (stats.ttest_1samp(d, 0, axis=1).pvalue < 0.05).mean()
    assert power(n, mean, sd) == pytest.approx(seen, abs=0.01)


@pytest.mark.parametrize(
    ("n", "ratio"), [(2, 0.3), (2, 8.0), (3, 1.0), (4, 8.0), (10, 0.5), (50, 0.4), (10_000, 0.028)]
)
def test_power_is_the_integral_over_the_spread(n, ratio):
    """Over s² ~ σ²·χ²/(n − 1), the chance that a normal mean lies further than t·s/√n from 0."""
    critical, shift = stats.t.ppf(0.975, n - 1), math.sqrt(n) * ratio

    def outside(u):
        limit = critical * math.sqrt(stats.chi2.ppf(u, n - 1) / (n - 1))
        return stats.norm.sf(limit - shift) + stats.norm.cdf(-limit - shift)

    assert power(n, -ratio, 1.0) == pytest.approx(integrate.quad(outside, 0, 1)[0], abs=1e-6)


@pytest.mark.parametrize("ratio", [4.0, 8.0, 40.0, 1e4, 1e12])
def test_the_power_of_large_differences_is_a_number_that_grows(ratio):
    found = [power(n, ratio, 1.0) for n in (2, 3, 4, 5, 10, 100, MOST_SEEDS)]
    assert found == sorted(found)
    assert (found[0] > 0.3, found[-1]) == (True, 1.0)


@pytest.mark.parametrize(
    ("mean", "sd", "n"),
    [(1.0, 1.0, 10), (0.5, 1.0, 34), (-0.5, 1.0, 34), (0.2, 1.0, 199), (8.0, 1.0, 3), (3.5, 1.0, 3)],
)
def test_seeds_needed_is_the_textbook_s(mean, sd, n):
    """Paired t-test, 80 % power, two-sided 5 %: as G*Power has it."""
    assert seeds_needed(mean, sd) == n
    assert power(n, mean, sd) >= 0.8 > power(n - 1, mean, sd)


@pytest.mark.parametrize("n", [2, 5, 50])
def test_power_without_a_difference_is_the_level_of_both_sides(n):
    assert power(n, 0.0, 1.0) == pytest.approx(0.05, abs=1e-12)
    assert power(n, 1e-6, 1.0) == pytest.approx(0.05, abs=1e-6)


def test_seeds_needed_where_there_is_nothing_to_see():
    assert MOST_SEEDS == 10_000
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(0.001, 1.0) is None
    assert seeds_needed(100.0, 1.0) == 2
    assert seeds_needed(2.81 / math.sqrt(MOST_SEEDS), 1.0) in range(MOST_SEEDS - 100, MOST_SEEDS + 1)


def test_the_most_seeds_are_still_found():
    def missing(mean):
        return power(MOST_SEEDS, mean, 1.0) - 0.8

    least = optimize.brentq(missing, 0.02, 0.04, xtol=1e-12)  # the mean that needs MOST_SEEDS
    assert seeds_needed(least * (1 + 1e-6), 1.0) == MOST_SEEDS
    assert seeds_needed(least * (1 - 1e-6), 1.0) is None


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    found = [paired(rng.normal(0.3, 1.0, 5)) for _ in range(500)]
    covered = np.mean([one.low <= 0.3 <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=0.03)
