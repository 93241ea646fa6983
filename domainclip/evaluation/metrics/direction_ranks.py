"""Metrics of one direction of retrieval, from the ranks of its right answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from domainclip.evaluation.base import Metric
from domainclip.evaluation.metrics.ranking import Ranks
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.statistics.gallery_effects import GalleryEffects, QueryParts

RankScore = Callable[[Ranks], np.ndarray]


@dataclass(frozen=True)
class DirectionRanks:
    """The queries of one direction in one language, and the ranks of their answers."""

    language: str
    ids: list[str]
    groups: list[str]
    parts: QueryParts
    captions: np.ndarray  # (m,) how often each caption occurs
    ranks: Ranks
    at_chance: Ranks  # of the commonest answer first


def rank_metric(
    name: str,
    directions: Sequence[DirectionRanks],
    score: RankScore,
    aggregate: aggregates.Aggregate = aggregates.mean,
    unit: str = "share",
) -> Metric:
    """The metric over the queries of some languages, with what its answers contribute to the variance."""
    scores = np.concatenate([score(queries.ranks) for queries in directions])
    at_chance = np.concatenate([score(queries.at_chance) for queries in directions])
    return Metric(
        name,
        [id_ for queries in directions for id_ in queries.ids],
        [group for queries in directions for group in queries.groups],
        scores,
        aggregate,
        unit == "share",
        aggregates.point_estimate(aggregate, at_chance),
        unit,
        gallery=_effects(directions, score, aggregate, scores),
    )


def _effects(
    directions: Sequence[DirectionRanks],
    score: RankScore,
    aggregate: aggregates.Aggregate,
    scores: np.ndarray,
) -> GalleryEffects | None:
    """Of the mean score; of a median rank, of the share of queries within it. None for the control."""
    if any(queries.ranks.without is None for queries in directions):
        return None
    if aggregate is aggregates.median:
        within = int(aggregates.point_estimate(aggregate, scores))
        return _effects(directions, lambda ranks: ranks.hits_at(within), aggregates.mean, scores)
    return GalleryEffects.of(
        np.concatenate([score(queries.ranks) for queries in directions]),
        np.concatenate([_without(queries, score) for queries in directions], axis=1),
        QueryParts.together([queries.parts for queries in directions]),
        np.concatenate([queries.captions for queries in directions]),
    )


def _without(queries: DirectionRanks, score: RankScore) -> np.ndarray:
    """(p, q) the scores without the answers of each part; unchanged where it has none in the language."""
    assert queries.ranks.without is not None
    scores = np.tile(score(queries.ranks), (queries.parts.right.shape[1], 1))
    fewer = score(queries.ranks.without)
    scores[: len(fewer)] = fewer
    return scores
