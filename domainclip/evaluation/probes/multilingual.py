"""Text-to-image retrieval by language, and the agreement of languages."""

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

_CELLS = 4_000_000  # cosines in memory at a time


@dataclass(frozen=True, kw_only=True)
class Multilingual(Probe):
    """Text-to-image R@1 by language [arXiv:2205.12522, Crossmodal-3600], and the agreement of languages.

    Every language searches all images of the set, so that languages can be compared; languages with few items
    are left out. `agreement`: how often the first captions of an item in two languages rank the same image
    first. `spearman`: Spearman correlation of their rankings of a fixed sample of images.
    Both are means over the pairs of languages of an item.
    Legend: n items, l languages, m images ranked.
    """

    citation: ClassVar[str] = "arXiv:2205.12522"
    version: ClassVar[int] = 2

    max_items: Annotated[int, Field(ge=2)] = 500  # items for the comparison of languages
    ranked: Annotated[int, Field(ge=2)] = 200  # images in the compared rankings

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Mean and worst language, each language, and the agreement of languages."""
        with_language = [caption for caption in captions(data) if caption.language]
        items = {
            language: {caption.row for caption in with_language if caption.language == language}
            for language in sorted({caption.language for caption in with_language})
        }
        rare = {language: len(rows) for language, rows in items.items() if len(rows) < MIN_ITEMS}
        languages = [language for language in items if language not in rare]
        if len(languages) < 2:
            return not_measured(
                "multilingual", data, self.version, f"two languages with {MIN_ITEMS} items or more each"
            )
        with_language = [caption for caption in with_language if caption.language in languages]
        metrics = [
            *_recalls(encoder, data, with_language, languages),
            *self._agreement(encoder, data, with_language),
        ]
        details: dict[str, Any] = {"items": {language: len(items[language]) for language in languages}}
        if rare:
            details["languages_with_few_items"] = rare
        return ProbeResult("multilingual", data.name, metrics, "mean_r1", self.version, details)

    def _agreement(
        self, encoder: Encoder, data: EvaluationSet, with_language: Sequence[Caption]
    ) -> list[Metric]:
        first: dict[int, dict[str, str]] = {}
        for caption in with_language:
            first.setdefault(caption.row, {}).setdefault(caption.language, caption.text)
        several_languages = [row for row, texts in first.items() if len(texts) > 1]
        if not several_languages:
            return []
        rows = np.array(sample_items(data, several_languages, self.max_items, "languages"))
        queries = [(i, text) for i, row in enumerate(rows) for _, text in sorted(first[int(row)].items())]
        vectors = caption_vectors(encoder, data, [text for _, text in queries])
        images = encoder.images(data.items)
        ranked = sample_items(data, range(len(data.items)), self.ranked, "ranked")
        item_of = np.array([i for i, _ in queries])
        agreement, correlations = np.zeros((2, len(rows)))
        # A block of items at a time: cosines of all captions with all images would not fit.
        step = max(1, _CELLS // (len(images) * int(np.bincount(item_of).max())))
        for start in range(0, len(rows), step):
            block = np.flatnonzero((item_of >= start) & (item_of < start + step))
            cosines = rounded_cosines(vectors[block], images)
            tops, ranks = top1_shares(cosines), _standard_ranks(cosines[:, ranked])
            for i in np.unique(item_of[block]):
                pairs = list(combinations(np.flatnonzero(item_of[block] == i), 2))
                agreement[i] = np.mean([tops[a] @ tops[b] for a, b in pairs])
                correlations[i] = np.mean([ranks[a] @ ranks[b] for a, b in pairs])
        return [
            metric("agreement", data.items, rows, agreement, chance=1 / len(data.items)),
            metric("spearman", data.items, rows, correlations, chance=0.0, unit="correlation"),
        ]


def _recalls(
    encoder: Encoder, data: EvaluationSet, with_language: Sequence[Caption], languages: Sequence[str]
) -> list[Metric]:
    hits, chances_of_queries = recall_at_1(
        encoder,
        data,
        [caption.row for caption in with_language],
        [caption.text for caption in with_language],
        partial(caption_vectors, encoder, data),
    )
    rows = np.array(sorted({caption.row for caption in with_language}))
    row_index = {int(row): i for i, row in enumerate(rows)}
    cells = np.array(
        [[row_index[caption.row], languages.index(caption.language)] for caption in with_language]
    )
    sums, counts, chance_sums = np.zeros((3, len(rows), len(languages)))
    for table, values in (
        (sums, hits),
        (counts, np.ones(len(with_language))),
        (chance_sums, chances_of_queries),
    ):
        np.add.at(table, (cells[:, 0], cells[:, 1]), values)
    # An item counts once, whatever its number of captions.
    scores, chances = ratio_of(sums, counts), ratio_of(chance_sums, counts)
    metrics = []
    for name, aggregate in (("mean_r1", mean_of_columns), ("worst_language_r1", _worst)):
        chance = aggregates.point_estimate(aggregate, chances)
        # The lowest of several estimates is biased downwards, more so with more noise: no verdict.
        comparable = aggregate is not _worst
        metrics.append(metric(name, data.items, rows, scores, aggregate, chance, comparable=comparable))
    for i, language in enumerate(languages):
        rows_of_language = np.flatnonzero(~np.isnan(scores[:, i]))
        chance = float(chances[rows_of_language, i].mean())
        metrics.append(
            metric(
                f"r1/{language}",
                data.items,
                rows[rows_of_language],
                scores[rows_of_language, i],
                chance=chance,
            )
        )
    return metrics


def _worst(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(r,) the lowest mean of the languages that were drawn."""
    means = np.where(np.isnan(each := column_means(scores, weights)), np.inf, each).min(axis=1)
    return np.where(np.isinf(means), np.nan, means)


def _standard_ranks(scores: np.ndarray) -> np.ndarray:
    """(q, m) ranks, ties at their mean, centred and of unit length; all 0 when all scores tie."""
    ranks = rankdata(scores, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    unit: np.ndarray = ranks / np.maximum(np.linalg.norm(ranks, axis=1, keepdims=True), 1e-12)
    return unit
