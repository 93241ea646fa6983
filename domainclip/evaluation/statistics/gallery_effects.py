"""The part of a retrieval metric's variance that comes from the captions and images that are searched.

Resampling patients as queries alone takes the gallery as given, though it is a sample too. A hub, a caption
that comes first for many images, then moves all of these queries at once, and so does a caption that many
patients share: equally good models are called different. Here the influence of an answer is counted beside
that of a query: what the metric would be without it as a wrong answer, from the ranks (a jackknife, whose
variance is not too small in expectation, Efron and Stein 1981, doi:10.1214/aos/1176345462), and the scores
of the queries that it is right for. The variance is clustered two ways, by queries and by answers; the chance
of single pairs of both is in either, and is taken off once (doi:10.1198/jbes.2010.07136).

Legend: n queries, p parts of the set: about a hundred, each of some patients and their captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from domainclip.evaluation.statistics.changes import Change

_MIN_CAPTIONS = 6  # as groups, for an interval
# Of equal size. With half of the queries under one caption there are nearly four, and intervals still hold.
_MIN_EFFECTIVE = 3.0
_LEAST_DF = 4.0  # where a single query changed, too, there is more than one to rest on
_NOTHING = 1e-24  # squared influences below which only rounding is left


@dataclass(frozen=True)
class QueryParts:
    """The parts of n queries, and of the answers that are right for them."""

    queries: np.ndarray  # (n,) of the query itself: of its patient, or of its text
    groups: np.ndarray  # (n,) of its group
    right: np.ndarray  # (n, p) the share of its right answers in each part

    @classmethod
    def together(cls, several: Sequence[QueryParts]) -> QueryParts:
        """Of queries of several languages."""
        return cls(
            np.concatenate([each.queries for each in several]),
            np.concatenate([each.groups for each in several]),
            np.concatenate([each.right for each in several]),
        )


@dataclass(frozen=True)
class GalleryEffects:
    """The influence of each part on a metric of retrieval, or on the difference of two models."""

    resampled: np.ndarray  # (p,) of its groups, as the bootstrap draws them
    queries: np.ndarray  # (p,) of its queries
    answers: np.ndarray  # (p,) of its answers, right and wrong
    pairs: np.ndarray  # (p, p) of its queries through the answers of each part
    captions: np.ndarray  # (m,) how often each caption occurs

    @classmethod
    def of(
        cls, scores: np.ndarray, without: np.ndarray, parts: QueryParts, captions: np.ndarray
    ) -> GalleryEffects:
        """From the scores (n,) of a mean, and those without the answers of each part (p, n).

        A query is not scored without a part that has right answers of it.
        """
        n, p = parts.right.shape
        centred = (scores - scores.mean()) / n
        own = parts.right * centred[:, None]
        wrong = np.where(parts.right > 0, 0.0, (scores - without).T / n)
        pairs = np.zeros((p, p))
        np.add.at(pairs, parts.queries, own + wrong)
        present = parts.right.sum(axis=0) > 0
        # That all answers together make a search harder is no difference between the parts.
        answers = own.sum(axis=0) + np.where(present, wrong.sum(axis=0) - wrong.sum() / present.sum(), 0.0)
        resampled, queries = (
            np.bincount(of, weights=centred, minlength=p) for of in (parts.groups, parts.queries)
        )
        return cls(resampled, queries, answers, pairs, captions)

    def minus(self, other: GalleryEffects) -> GalleryEffects:
        """Those of the difference of two models on the same items."""
        return GalleryEffects(
            self.resampled - other.resampled,
            self.queries - other.queries,
            self.answers - other.answers,
            self.pairs - other.pairs,
            self.captions,
        )

    @classmethod
    def mean(cls, effects: Sequence[GalleryEffects]) -> GalleryEffects:
        """Those of the mean over several seeds of training."""
        return cls(
            np.mean([each.resampled for each in effects], axis=0),
            np.mean([each.queries for each in effects], axis=0),
            np.mean([each.answers for each in effects], axis=0),
            np.mean([each.pairs for each in effects], axis=0),
            effects[0].captions,
        )

    @property
    def effective_captions(self) -> float:
        """The number of captions of equal frequency that concentrate as much: the inverse Simpson index."""
        shares = self.captions / self.captions.sum()
        return 1 / float((shares**2).sum())

    @property
    def too_few(self) -> str:
        """Why the captions allow no interval, in words; empty when they do."""
        shares = self.captions / self.captions.sum()
        if len(shares) < _MIN_CAPTIONS:
            return f"there are only {len(shares)} captions: at least {_MIN_CAPTIONS} are needed"
        effective = self.effective_captions
        if effective < _MIN_EFFECTIVE:
            counted = (
                f"all count as {effective:.1f} of equal frequency: at least {_MIN_EFFECTIVE:g} are needed"
            )
            return f"one caption is {shares.max():.0%} of all, and {counted}"
        return ""

    @property
    def added_variance(self) -> float:
        """What queries and answers add to the variance of the groups as the bootstrap draws them."""
        p = len(self.resampled)
        squares = [float((i**2).sum()) for i in (self.queries, self.answers, self.pairs, self.resampled)]
        return max(0.0, (squares[0] + squares[1] - squares[2] - squares[3]) * p / max(1, p - 1))

    @property
    def own_variance(self) -> float:
        """The variance of the groups by part, as of a mean."""
        p = len(self.resampled)
        return float((self.resampled**2).sum()) * p / max(1, p - 1)

    @property
    def df(self) -> float:
        """Degrees of freedom: the effective number of parts that the influence comes from.

        The inverse Simpson index of the squared influences, whose own value for equal ones is taken off: a
        single hub leaves few. At least 4, but one less than the effective number of captions at most.
        """
        most = max(1.0, self.effective_captions - 1)
        return min(most, *(_effective(influence) for influence in (self.queries, self.answers)))

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
    def spread_factor(self) -> float:
        """The factor by which the answers widen the spread of the resamples of one model."""
        own = self.own_variance
        return float(np.sqrt(1 + self.added_variance / own)) if own > _NOTHING else 1.0


def _effective(influence: np.ndarray) -> float:
    squares = influence**2
    if squares.sum() <= _NOTHING:
        return np.inf
    shares = squares / squares.sum()
    concentration = float((shares**2).sum()) - 1 / len(shares)
    return max(_LEAST_DF, 1 / concentration) if concentration > 1e-12 else np.inf
