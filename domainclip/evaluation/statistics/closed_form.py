"""Intervals and tests in closed form."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom, norm


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share; `successes` may be fractional, since ties count in part."""
    z = float(norm.ppf((1 + level) / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p value from the items that only one of two models gets right (McNemar 1947)."""
    changed = gained + lost
    return float(min(1.0, 2 * binom.cdf(min(gained, lost), changed, 0.5))) if changed else 1.0
