"""Retrieval by language in both directions, each language against English, and the agreement of languages."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
from domainclip.evaluation.metrics.ranking import commonest_first, rank_answers
from domainclip.evaluation.metrics.results import MIN_ITEMS, metric, not_measured
from domainclip.evaluation.metrics.retrieval_gallery import first_captions, make_gallery
from domainclip.evaluation.metrics.text_to_image import recall_at_1, rounded_cosines
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.statistics.aggregates import column_means, mean_of_columns, ratio_of

_CELLS = 4_000_000  # cosines in memory at a time


@dataclass(frozen=True, kw_only=True)
class Multilingual(Probe):
    """R@1 by language [arXiv:2205.12522, Crossmodal-3600], and the agreement of languages.

    Text to image, every language searches all images of the set, so that languages can be compared; the means
    are over languages. Image to text, the answers are the first captions of the items in that language.
    `minus_english`: the same minus R@1 in English, by item, among the items and captions that both languages
    have. Languages with few items are left out. `agreement`: how often the first captions of an item in two
    languages rank the same image first. `spearman`: Spearman correlation of their rankings of a fixed sample
    of images. Both are means over the pairs of languages of an item.
    Legend: n items, l languages, m images ranked.
    """

    citation: ClassVar[str] = "arXiv:2205.12522"
    version: ClassVar[int] = 3

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
        recalls = _text_to_image(encoder, data, with_language, languages)
        metrics = [
            *_means(data, recalls),
            *(recalls.metric(data, language) for language in languages),
            *_image_to_text(encoder, data, with_language, languages),
            *_minus_english(encoder, data, with_language, recalls),
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


@dataclass(frozen=True)
class _Recalls:
    """Text-to-image R@1 of n items in l languages, NaN where an item has no caption in a language."""

    languages: Sequence[str]
    rows: np.ndarray  # (n,)
    scores: np.ndarray  # (n, l)
    chances: np.ndarray  # (n, l)

    def metric(self, data: EvaluationSet, language: str) -> Metric:
        """The recall in one language."""
        column = self.languages.index(language)
        has = ~np.isnan(self.scores[:, column])
        chance = float(self.chances[has, column].mean())
        return metric(
            f"text_to_image_r1/{language}",
            data.items,
            self.rows[has],
            self.scores[has, column],
            chance=chance,
        )


def _text_to_image(
    encoder: Encoder, data: EvaluationSet, with_language: Sequence[Caption], languages: Sequence[str]
) -> _Recalls:
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
    return _Recalls(languages, rows, ratio_of(sums, counts), ratio_of(chance_sums, counts))


def _means(data: EvaluationSet, recalls: _Recalls) -> list[Metric]:
    metrics = []
    for name, aggregate in (("mean_r1", mean_of_columns), ("worst_language_r1", _worst)):
        chance = aggregates.point_estimate(aggregate, recalls.chances)
        # The lowest of several estimates is biased downwards, more so with more noise: no verdict.
        biased = aggregate is _worst
        metrics.append(
            metric(name, data.items, recalls.rows, recalls.scores, aggregate, chance, biased=biased)
        )
    return metrics


def _image_to_text(
    encoder: Encoder, data: EvaluationSet, with_language: Sequence[Caption], languages: Sequence[str]
) -> list[Metric]:
    metrics = []
    for language in languages:
        rows, hits, chances = _caption_search(encoder, data, with_language, language)
        metrics.append(
            metric(f"image_to_text_r1/{language}", data.items, rows, hits, chance=float(chances.mean()))
        )
    return metrics


def _caption_search(
    encoder: Encoder,
    data: EvaluationSet,
    with_language: Sequence[Caption],
    language: str,
    among: Collection[int] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows of the items with a caption, R@1 among the first captions of all of them, and its chance.

    `among` are the rows that take part, by default all.
    """
    in_language = [
        caption
        for caption in with_language
        if caption.language == language and (among is None or caption.row in among)
    ]
    gallery = make_gallery(data, language, first_captions(in_language), pairwise=False)
    images, texts = encoder.images(data.items)[gallery.rows], caption_vectors(encoder, data, gallery.texts)
    (ranks,) = rank_answers(images, texts, [gallery.by_image])
    return gallery.rows, ranks.hits_at(1), commonest_first(gallery.by_image).hits_at(1)


def _minus_english(
    encoder: Encoder, data: EvaluationSet, with_language: Sequence[Caption], recalls: _Recalls
) -> list[Metric]:
    """R@1 of each language minus that of English, by item, in both directions; none without English.

    Descriptive: the verdicts are on the languages themselves, and a smaller distance may be a worse English.
    """
    english = next((name for name in recalls.languages if name.split("-")[0] == "en"), None)
    if english is None:
        return []
    difference = partial(metric, unit="difference", comparable=False)
    first = recalls.languages.index(english)
    metrics: dict[str, list[Metric]] = {"image_to_text": [], "text_to_image": []}
    for column, language in enumerate(recalls.languages):
        gaps, chances = (table[:, column] - table[:, first] for table in (recalls.scores, recalls.chances))
        both = ~np.isnan(gaps)
        if language == english or both.sum() < MIN_ITEMS:
            continue
        rows = recalls.rows[both]
        _, hits, at_chance = _caption_search(encoder, data, with_language, language, set(rows.tolist()))
        _, in_english, english_chance = _caption_search(
            encoder, data, with_language, english, set(rows.tolist())
        )
        sides = {
            "image_to_text": (hits - in_english, at_chance - english_chance),
            "text_to_image": (gaps[both], chances[both]),
        }
        for direction, (scores, chance) in sides.items():
            name = f"{direction}_minus_english/{language}"
            metrics[direction].append(difference(name, data.items, rows, scores, chance=float(chance.mean())))
    return [*metrics["image_to_text"], *metrics["text_to_image"]]


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
