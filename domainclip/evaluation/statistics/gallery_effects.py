"""The part of a retrieval metric's variance that comes from the answers: its gallery is a sample too.

Resampling patients as queries alone takes the gallery as given. A hub, a caption that comes first for many
images, then moves all of these queries at once, and equally good models are called different. Here a removed
part takes its queries and its answers with it: the delete-group jackknife, whose variance is not too small in
expectation for any statistic of independent units (Efron and Stein 1981, doi:10.1214/aos/1176345462). It
counts the chance of a single pair of query and answer twice, once with either, so that is taken off once, as
in variances that are clustered two ways (doi:10.1198/jbes.2010.07136).

Legend: n queries, p parts: sets of patients that share no caption with patients of another part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from domainclip.evaluation.statistics.changes import Change

MIN_UNITS = 6  # as for groups
# With half of the patients under one caption the effective number is near 4, and intervals still hold.
_MIN_EFFECTIVE = 3.0
_LEAST_DF = 4.0  # where a single query changed, too, there is more than one to rest on
_NOTHING = 1e-24  # squared influences below which only rounding is left


@dataclass(frozen=True)
class GalleryEffects:
    """How much the queries and the answers of each part contribute to a metric, or to a difference."""

    own: np.ndarray  # (p,) of its queries: sum over them of weight times score less mean
    # (p, p) of the queries of the first part: what the answers of the second add to the metric.
    pairs: np.ndarray

    @classmethod
    def of(
        cls, scores: np.ndarray, without: np.ndarray, parts: np.ndarray, weights: np.ndarray | None = None
    ) -> GalleryEffects:
        """From the scores (n,) of a mean, and those without the answers of each part (p, n).

        `parts` (n,) are those of the queries, `weights` (n,) of sum 1 their weights in the mean, by default
        equal. A query is not scored without its own part, which has its right answers.
        """
        each = np.full(len(scores), 1 / max(1, len(scores))) if weights is None else weights
        count = len(without)
        effects = each * (scores - without)
        effects[parts, np.arange(len(scores))] = 0.0
        pairs = np.zeros((count, count))
        np.add.at(pairs, parts, effects.T)
        return cls(np.bincount(parts, weights=each * (scores - each @ scores), minlength=count), pairs)

    def minus(self, other: GalleryEffects) -> GalleryEffects:
        """Those of the difference of two models on the same items."""
        return GalleryEffects(self.own - other.own, self.pairs - other.pairs)

    @classmethod
    def mean(cls, effects: Sequence[GalleryEffects]) -> GalleryEffects:
        """Those of the mean over several seeds of training."""
        return cls(
            np.mean([each.own for each in effects], axis=0), np.mean([each.pairs for each in effects], axis=0)
        )

    @property
    def added_variance(self) -> float:
        """What the answers add to the variance of the queries; 0 where they add nothing."""
        p = len(self.own)
        if p < 2:
            return 0.0
        together = float((self._influence**2).sum() - (self.own**2).sum()) * p / (p - 1)
        return max(0.0, together - float((self.pairs**2).sum()))

    @property
    def own_variance(self) -> float:
        """The variance of the queries by part, as of a mean."""
        p = len(self.own)
        return float((self.own**2).sum()) * p / (p - 1) if p > 1 else 0.0

    @property
    def df(self) -> float:
        """Degrees of freedom: the effective number of parts that the influence comes from.

        The inverse Simpson index of the squared influences, whose own value for equal ones is taken off: a
        single hub leaves few. At least 4; infinity where nothing has any influence.
        """
        squares = self._influence**2
        if squares.sum() <= _NOTHING:
            return np.inf
        shares = squares / squares.sum()
        concentration = float((shares**2).sum()) - 1 / len(shares)
        return max(_LEAST_DF, 1 / concentration) if concentration > 1e-12 else np.inf

    def widened(self, change: Change, of_mean: bool) -> Change:
        """The difference with the variance of the answers, and no more degrees of freedom than they leave.

        `of_mean`: the metric is a mean of the scores that the effects are of; else, as for a median, they
        are of a mean that its spread follows, and the variance grows by the same factor.
        """
        own, added = self.own_variance, self.added_variance
        if not of_mean:
            added = change.variance * added / own if own > _NOTHING else 0.0
        return replace(change, variance=change.variance + added, df=min(change.df, self.df))

    @property
    def _influence(self) -> np.ndarray:
        """(p,) of each part with its queries and answers; the answers' mean is the size of the gallery."""
        answers = self.pairs.sum(axis=0)
        influence: np.ndarray = self.own + answers - answers.mean()
        return influence


def too_few_units(units: Sequence[str]) -> str:
    """Why units (n,), groups that share no caption, allow no interval, in words; empty when they do."""
    counts = np.unique(np.asarray(units, dtype=str), return_counts=True)[1]
    joined = "groups that share captions count as one"
    if len(counts) < MIN_UNITS:
        return f"{joined}, which leaves {len(counts)}: at least {MIN_UNITS} are needed"
    shares = counts / counts.sum()
    if 1 / float((shares**2).sum()) < _MIN_EFFECTIVE:
        return f"{joined}, and one of them has {shares.max():.0%} of the queries: about half is the most"
    return ""
