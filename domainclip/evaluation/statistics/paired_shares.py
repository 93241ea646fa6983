"""The difference of two means of shares on the same items, where few items may differ.

Retention is a small change: of 200 images one or two are answered otherwise. Resampling such a set returns
the change that was seen or none, and an interval that is too narrow, or [0, 0] where nothing changed. Bonett
and Price add one changed pair of each sign before taking Wald's interval (doi:10.3102/1076998611411915). Here
it is one group of each sign, of average size, that changes as much as groups do: all its images by a full
share where nothing is known, fewer where the images of a group are seen to change one by one (their design
effect; Kish 1965) or by less. Whole groups alone would give intervals that hold 100 % with few patients of
several images, single images too narrow ones where a patient's images change together.

Legend: n items, g groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from domainclip.evaluation.statistics.aggregates import Aggregate, macro_mean, mean
from domainclip.evaluation.statistics.changes import Change


@dataclass(frozen=True)
class MeanWeights:
    """A metric that is a weighted mean of scores, in classes that are averaged alike."""

    weights: np.ndarray  # (n,) of sum 1
    stratum: np.ndarray  # (n,) int

    @classmethod
    def of(cls, aggregate: Aggregate, n: int) -> MeanWeights | None:
        """The weights of a mean or of a mean over classes; None for any other metric."""
        if aggregate is mean and n:
            return cls(np.full(n, 1 / n), np.zeros(n, int))
        if not isinstance(aggregate, partial) or aggregate.func is not macro_mean:
            return None
        _, stratum, counts = np.unique(aggregate.keywords["classes"], return_inverse=True, return_counts=True)
        return cls(1 / (len(counts) * counts[stratum]), stratum)


_PRIOR = 0.25  # weight of the two added groups in the design effect, by simulation: benchmarks/coverage.py


def mean_change(differences: np.ndarray, groups: Sequence[str], of: MeanWeights) -> Change:
    """The mean of differences (n,) between -1 and 1, with one added group of each sign.

    The variance is that of the sums of whole groups, around the mean of each class. Degrees of freedom are
    those of as many equal groups as have the same spread of sizes.
    """
    names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    g = len(names)
    sizes = np.bincount(member, weights=of.weights)
    # Groups of each class: with few of them, their spread around their own mean is too small.
    in_class = np.unique(np.stack([of.stratum, member]), axis=1)[0]
    few = np.bincount(in_class)[of.stratum]
    class_means = np.bincount(of.stratum, weights=differences) / np.bincount(of.stratum)
    off = (differences - class_means[of.stratum]) * np.sqrt(few / np.maximum(few - 1, 1))
    sums = np.bincount(member, weights=of.weights * off)
    value = float(np.round(of.weights @ differences, 12))  # equal sums of thirds may differ in their last bit
    unevenness = g * float((sizes**2).sum())  # 1 where all groups weigh alike
    added = 2 * unevenness * _size_of_a_change(differences, member, of.weights, sizes)
    variance = (float((sums**2).sum()) * g**2 + added) / (g + 2) ** 2
    return Change(value, value * g / (g + 2), variance, max(1.0, g / unevenness - 1))


def _size_of_a_change(
    differences: np.ndarray, member: np.ndarray, weights: np.ndarray, sizes: np.ndarray
) -> float:
    """The squared change of a group's mean when it changes: 1 if all its images change fully, together.

    The product of the mean squared change of a changed image, and of the squared share of a group's images
    that change together: their design effect over its largest value. Both count the two added groups, so that
    both are 1 where nothing changed.
    """
    changed = np.abs(differences) > 1e-12
    by_image = (float((differences**2).sum()) + 2) / (float(changed.sum()) + 2)
    group, image = float((sizes**2).mean()), float((weights**2).sum()) / len(sizes)  # of an added group
    sums = np.bincount(member, weights=weights * differences)
    together = (float((sums**2).sum()) + 2 * _PRIOR * group) / (
        float(((weights * differences) ** 2).sum()) + 2 * _PRIOR * image
    )
    return by_image * min(1.0, together / (group / image)) ** 2
