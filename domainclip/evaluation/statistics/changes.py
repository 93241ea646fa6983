"""The difference of two models as one procedure, from which its p and all of its intervals follow.

Student's t around a centre gives both. Where an exact test (McNemar's, swaps of the models) does not exclude
"no difference" at the level of an interval, the interval is extended to zero: it then is the set of values
that the two tests together do not reject. So for every level, the interval excludes zero exactly when p is at
most 1 minus that level, and a verdict can be read from either.

Of m differences that are judged together (the classes of a metric, several models), the intervals have the
level 1 - 0.05 / m and p is multiplied by m (Bonferroni; Dunn 1961, doi:10.1080/01621459.1961.10482090). They
hold all m differences at once with 95 %. Holm's step-down p values are smaller, but have no two-sided
intervals that agree with them and bound the size of a difference (doi:10.1002/sim.3338).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t

ALPHA = 0.05  # of every interval and verdict


@dataclass(frozen=True)
class Change:
    """A difference with its variance and degrees of freedom; NaN where it has too few groups."""

    value: float
    centre: float  # of the interval: the value, or shrunk towards zero
    variance: float
    df: float
    exact_p: float = 0.0  # p is not below that of an exact test, where there is one

    @property
    def p(self) -> float:
        """Two-sided p of no difference."""
        if np.isnan(self.variance):
            return float("nan")
        if self.variance > 0:
            p = float(2 * t.sf(abs(self.centre) / self.variance**0.5, self.df))
        else:
            p = float(self.centre == 0)
        return min(1.0, max(p, self.exact_p))

    def adjusted_p(self, comparisons: int = 1) -> float:
        """p of this one among several differences that are judged together."""
        return float(np.minimum(1.0, comparisons * self.p))  # NaN stays

    def interval(self, comparisons: int = 1) -> tuple[float, float]:
        """The 95 % interval, which holds the value; of several differences, all hold at once with 95 %."""
        if np.isnan(self.variance):
            return float("nan"), float("nan")
        reach = float(t.isf(ALPHA / comparisons / 2, self.df)) * self.variance**0.5
        low, high = min(self.centre - reach, self.value), max(self.centre + reach, self.value)
        if self.adjusted_p(comparisons) > ALPHA:
            return min(low, 0.0), max(high, 0.0)
        return low, high
