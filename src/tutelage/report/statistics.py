"""Statistics of differences paired by seed: interval, tests, multiple-testing correction, number of seeds needed."""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

LEVEL = 0.95
POWER = 0.8
MOST_SEEDS = 10_000
_NO_SPREAD = 1e-12  # rounding error of equal differences
_EXACT = 13  # number of pairs up to which all 2^n signs are tried


@dataclass(frozen=True)
class Paired:
    """Statistics of n paired differences: mean, interval and tests.

    Attributes:
        n: number of differences.
        mean: their mean; None for n = 0.
        sd: their standard deviation (n − 1); None below two.
        low: lower end of the interval; like all below, None for n < 2 or if all differences are equal.
        high: upper end of the interval.
        p_t: p of the paired t-test, two-sided.
        p_wilcoxon: p of the signed-rank test, two-sided.
    """

    n: int
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None
    p_t: float | None = None
    p_wilcoxon: float | None = None

    @property
    def is_tested(self) -> bool:
        """Checks whether there is an interval and a test."""
        return self.p_t is not None

    @cached_property
    def seeds(self) -> int | None:
        """Returns the number of seeds needed to detect such a mean; None without spread or above ``MOST_SEEDS``."""
        return seeds_needed(self.mean, self.sd) if self.mean is not None and self.sd else None


def paired(differences: Sequence[float]) -> Paired:
    """Computes mean, interval mean ± t·sd/√n (n − 1 degrees of freedom), paired t-test and Wilcoxon signed-rank test.

    Args:
        differences: one per pair.
    """
    d = np.asarray(differences, dtype=float)
    n = len(d)
    if n == 0:
        return Paired(0)
    mean = float(d.mean())
    if n == 1:
        return Paired(1, mean)
    sd = float(d.std(ddof=1))
    if sd < _NO_SPREAD:
        return Paired(n, mean, 0.0)
    test = stats.ttest_1samp(d, 0.0)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return Paired(n, mean, sd, mean - half, mean + half, float(test.pvalue), wilcoxon(d))


def wilcoxon(differences: Sequence[float] | np.ndarray) -> float:
    """Returns the two-sided p of the signed-rank test, without zero differences.

    Exact, also with ties, up to 13 differences; without ties exact up to 50; else by the normal approximation.
    The smallest possible p for n differences is 2^(1 − n): 0.0625 for five seeds.
    """
    d = np.round(np.asarray(differences, dtype=float), 12)  # so that equal differences of accuracies are ties
    d = d[d != 0]
    if len(d) < 2:  # for one difference both signs are equally likely
        return 1.0
    tied = len(np.unique(np.abs(d))) < len(d)
    method = stats.PermutationMethod(n_resamples=np.inf) if len(d) <= _EXACT else "asymptotic" if tied else "auto"
    return float(stats.wilcoxon(d, method=method).pvalue)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Applies Holm's step-down correction: the k-th smallest of m is multiplied by m − k + 1 and kept monotone.

    None (no test) stays None and is not counted. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.
    """
    order = sorted((value, place) for place, value in enumerate(p) if value is not None)
    found: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, place) in enumerate(order):
        highest = max(highest, min(1.0, value * (len(order) - rank)))
        found[place] = highest
    return found


def power(n: int, mean: float, sd: float) -> float:
    """Returns the power of a two-sided paired t-test of ``n`` pairs at 5 % for a true mean difference.

    P(F > t(0.975, n − 1)²), F noncentral with 1 and n − 1 degrees of freedom and noncentrality n·(mean/sd)²: the square
    of the noncentral t, whose far tail is NaN in SciPy.
    """
    noncentrality = min(n * (mean / sd) ** 2, 1e6)  # above it the power is 1, and SciPy ends in NaN
    if not noncentrality:  # where SciPy is wrong
        return 1 - LEVEL
    return float(stats.ncf.sf(stats.f.ppf(LEVEL, 1, n - 1), 1, n - 1, noncentrality))


def seeds_needed(mean: float, sd: float) -> int | None:
    """Returns the smallest n whose :func:`power` is 80 %; None above ``MOST_SEEDS``."""
    counts = range(2, MOST_SEEDS + 1)
    place = bisect.bisect_left(counts, POWER, key=lambda n: power(n, mean, sd))
    return counts[place] if place < len(counts) else None
