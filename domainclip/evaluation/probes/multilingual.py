"""How well each language finds images, and whether languages agree on what they find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field
from scipy.stats import rankdata

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics.captions import Caption, caption_vectors, captions
from domainclip.evaluation.metrics.decisions import top1_shares
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.results import MIN_ITEMS, metric, not_measured
from domainclip.evaluation.metrics.text_to_image import recall_at_1, rounded_cosines
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.statistics.aggregates import column_means, mean_of_columns, ratio_of

_CELLS = 4_000_000  # cosines held at once


@dataclass(frozen=True, kw_only=True)
class Multilingual(Probe):
    """Text-to-image R@1 by language [arXiv:2205.12522, Crossmodal-3600], and the agreement of languages.

    Every language searches all images of the set, so that languages can be compared; languages of few items
    count in no figure. `agreement`: of two languages' first captions of an item, how often they put the
    same image first. `spearman`: Spearman's correlation of how they rank a fixed sample of images.
    Both are means over the pairs of languages that an item has.
    Legend: n items, l languages, m images ranked.
    """

    citation: ClassVar[str] = "arXiv:2205.12522"
    version: ClassVar[int] = 1

    max_items: Annotated[int, Field(ge=2)] = 500  # items whose languages are compared with each other
    ranked: Annotated[int, Field(ge=2)] = 200  # images that rankings are compared on

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Mean and worst language, each language, and the agreement of languages."""
        spoken = [one for one in captions(data) if one.language]
        items = {
            language: {one.row for one in spoken if one.language == language}
            for language in sorted({one.language for one in spoken})
        }
        few = {language: len(rows) for language, rows in items.items() if len(rows) < MIN_ITEMS}
        languages = [language for language in items if language not in few]
        if len(languages) < 2:
            return not_measured(
                "multilingual", data, self.version, f"two languages with {MIN_ITEMS} items or more each"
            )
        spoken = [one for one in spoken if one.language in languages]
        metrics = [*_recalls(encoder, data, spoken, languages), *self._agreement(encoder, data, spoken)]
        details: dict[str, Any] = {"items": {language: len(items[language]) for language in languages}}
        if few:
            details["languages_with_few_items"] = few
        return ProbeResult("multilingual", data.name, metrics, "mean_r1", self.version, details)

    def _agreement(self, encoder: Encoder, data: EvaluationSet, spoken: Sequence[Caption]) -> list[Metric]:
        first: dict[int, dict[str, str]] = {}
        for one in spoken:
            first.setdefault(one.row, {}).setdefault(one.language, one.text)
        both = [row for row, texts in first.items() if len(texts) > 1]
        if not both:
            return []
        rows = np.array(sample_items(data, both, self.max_items, "languages"))
        asked = [(i, text) for i, row in enumerate(rows) for _, text in sorted(first[int(row)].items())]
        vectors = caption_vectors(encoder, data, [text for _, text in asked])
        images = encoder.images(data.items)
        ranked = sample_items(data, range(len(data.items)), self.ranked, "ranked")
        owner = np.array([i for i, _ in asked])
        same, correlations = np.zeros((2, len(rows)))
        # Some items at a time: all their captions against all images would not fit.
        step = max(1, _CELLS // (len(images) * int(np.bincount(owner).max())))
        for start in range(0, len(rows), step):
            block = np.flatnonzero((owner >= start) & (owner < start + step))
            cosines = rounded_cosines(vectors[block], images)
            tops, ranks = top1_shares(cosines), _standard_ranks(cosines[:, ranked])
            for i in np.unique(owner[block]):
                pairs = list(combinations(np.flatnonzero(owner[block] == i), 2))
                same[i] = np.mean([tops[a] @ tops[b] for a, b in pairs])
                correlations[i] = np.mean([ranks[a] @ ranks[b] for a, b in pairs])
        return [
            metric("agreement", data.items, rows, same, chance=1 / len(data.items)),
            metric("spearman", data.items, rows, correlations, chance=0.0, unit="correlation"),
        ]


def _recalls(
    encoder: Encoder, data: EvaluationSet, spoken: Sequence[Caption], languages: Sequence[str]
) -> list[Metric]:
    hits, guesses = recall_at_1(
        encoder,
        data,
        [one.row for one in spoken],
        [one.text for one in spoken],
        partial(caption_vectors, encoder, data),
    )
    rows = np.array(sorted({one.row for one in spoken}))
    place = {int(row): i for i, row in enumerate(rows)}
    cells = np.array([[place[one.row], languages.index(one.language)] for one in spoken])
    sums, told, blind = np.zeros((3, len(rows), len(languages)))
    for table, values in ((sums, hits), (told, np.ones(len(spoken))), (blind, guesses)):
        np.add.at(table, (cells[:, 0], cells[:, 1]), values)
    scores, chances = ratio_of(sums, told), ratio_of(blind, told)  # an item counts once, however often told
    metrics = []
    for name, aggregate in (("mean_r1", mean_of_columns), ("worst_language_r1", _worst)):
        chance = aggregates.point_estimate(aggregate, chances)
        # The lowest of several is too low by luck, and the more so the noisier: shown, not judged.
        comparable = aggregate is not _worst
        metrics.append(metric(name, data.items, rows, scores, aggregate, chance, comparable=comparable))
    for i, language in enumerate(languages):
        own = np.flatnonzero(~np.isnan(scores[:, i]))
        chance = float(chances[own, i].mean())
        metrics.append(metric(f"r1/{language}", data.items, rows[own], scores[own, i], chance=chance))
    return metrics


def _worst(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) the lowest of the languages' means; a language that was not drawn cannot be it."""
    means = np.where(np.isnan(each := column_means(scores, weights)), np.inf, each).min(axis=1)
    return np.where(np.isinf(means), np.nan, means)


def _standard_ranks(scores: np.ndarray) -> np.ndarray:
    """(q, m) ranks, ties at their mean, centred and of unit length; all zero when everything ties."""
    ranks = rankdata(scores, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    unit: np.ndarray = ranks / np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-12)
    return unit
