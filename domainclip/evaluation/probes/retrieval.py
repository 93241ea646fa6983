"""Retrieval of captions by image, of images by caption, and of images by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics.direction_ranks import DirectionRanks, RankScore, rank_metric
from domainclip.evaluation.metrics.gallery_parts import GalleryParts, divide
from domainclip.evaluation.metrics.image_to_image import image_to_image
from domainclip.evaluation.metrics.ranking import NDCG_AT, FullScores, Ranks, commonest_first, rank_answers
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.metrics.retrieval_gallery import Gallery, build_galleries
from domainclip.evaluation.metrics.truncated_encoder import TruncatedEncoder
from domainclip.evaluation.metrics.truth import describe_truth
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.statistics.gallery_effects import QueryParts

_RECALL_AT = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Retrieval(Probe):
    """Recall, ranks and mean average precision in both directions, and image to image. [arXiv:2103.00020]

    A caption of several images is one entry of the gallery and relevant for all of them; captions and images
    of one truth key (`columns.truth`) are relevant for each other. Recall at k: any relevant answer is among
    the first k. The headline is image-to-text R@1: one score per item, and the metric most often quoted.
    `pairwise` is open_clip's training-time metric: the first caption of each item, and only that one is
    relevant.
    Recall at a share of the gallery compares galleries of different sizes [arXiv:2403.08851]. `widths` also
    searches with the first dimensions of the embeddings alone, as a smaller index would [arXiv:2205.13147].
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    version: ClassVar[int] = 3

    # pairwise: only the caption and the image of the pair are right for each other.
    preset: Literal["multi", "pairwise"] = "multi"
    percent: tuple[int, ...] = (10,)  # shares of the gallery at which recall is also measured
    gallery: int | None = None  # images per gallery: fixed, so that metrics of different corpora compare
    widths: tuple[int, ...] = ()  # of truncated embeddings
    seed: int = 0  # of the sample of the gallery and of the shuffled control

    def __post_init__(self) -> None:
        if any(not 0 < share < 50 for share in self.percent):
            raise ValueError("percent: each lies between 0 and 50")
        if self.gallery is not None and self.gallery < 2:
            raise ValueError("gallery: at least 2 images")
        if any(width < 1 for width in self.widths):
            raise ValueError("widths: each is at least 1")

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Metrics over all languages, each in its own gallery; also per language when there are several."""
        searchable = self.galleries(data)
        if not searchable:
            return not_measured("retrieval", data, self.version, "two different captions")
        images = encoder.images(data.items)
        parts = divide(data, searchable)
        to_text, shuffled, to_image = self._rank_all(encoder, data, images, searchable, parts)
        metrics = []
        for direction, by_language in (("image_to_text", to_text), ("text_to_image", to_image)):
            metrics += self._metrics(direction, by_language)
            if len(by_language) > 1:
                for single in by_language:
                    metrics += self._metrics(direction, [single], f"/{single.language}")
        control = rank_metric("image_to_text_r1_shuffled", shuffled, _recall(1))
        metrics.append(replace(control, comparable=False, control=True))
        for width in self.widths:
            metrics += self._truncated_recall(encoder, data, searchable, parts, width)
        details = {
            "preset": self.preset,
            "preset_version": 1,
            "right": "the first caption of the item alone"
            if self.preset == "pairwise"
            else describe_truth(data),
            "control": "image_to_text_r1_shuffled gives every item another's captions: chance at most",
            "chance": "the commonest answer first, for every query",
            **_sizes(data, searchable, self.gallery),
            **_ranks_left_out(searchable),
        }
        same_kind = image_to_image(images, data.items, self.seed, bool(data.card.columns.truth))
        if any(direction.ranks.full is None for direction in (*to_text, *to_image)):
            details["full_ranking_left_out"] = (
                "map, R-precision and nDCG: some queries have too many relevant answers to rank each of them"
            )
        if same_kind is not None:
            chance = float(same_kind.at_chance.mean())
            of_images = metric(
                "image_to_image_map", data.items, same_kind.rows, same_kind.scores, chance=chance
            )
            metrics.append(replace(of_images, one_tower=True))
            details["image_to_image"] = {
                "right_is_the_same": same_kind.truth,
                "images": same_kind.gallery,
                "queries": len(same_kind.rows),
            }
        return ProbeResult("retrieval", data.name, metrics, "image_to_text_r1", self.version, details)

    def galleries(self, data: EvaluationSet) -> list[Gallery]:
        """The gallery of each language with two different captions or more."""
        galleries = build_galleries(data, self.preset == "pairwise", self.gallery, self.seed)
        return [gallery for gallery in galleries if len(gallery.texts) > 1]

    def _rank_all(
        self,
        encoder: Encoder,
        data: EvaluationSet,
        images: np.ndarray,
        searchable: Sequence[Gallery],
        parts: GalleryParts,
    ) -> list[tuple[DirectionRanks, ...]]:
        """By language: image to text, the same with shuffled captions, and text to image."""
        ranked = (
            self._rank(encoder, data, images, gallery, parts, of_captions)
            for gallery, of_captions in zip(searchable, parts.of_captions, strict=True)
        )
        return list(zip(*ranked, strict=True))

    def _rank(
        self,
        encoder: Encoder,
        data: EvaluationSet,
        images: np.ndarray,
        gallery: Gallery,
        parts: GalleryParts,
        of_captions: np.ndarray,
    ) -> tuple[DirectionRanks, DirectionRanks, DirectionRanks]:
        gallery_images, texts = images[gallery.rows], encoder.texts(gallery.texts)
        truths = [gallery.by_image, gallery.shuffled(self.seed)]
        to_text, shuffled = rank_answers(gallery_images, texts, truths, of_captions)
        text_at_chance, shuffled_at_chance = (commonest_first(truth) for truth in truths)
        # Equal captions are ranked once and count as often as they occur.
        occurrences = gallery.pairs[:, 1]
        (to_image,) = rank_answers(texts, gallery_images, [gallery.by_text], parts.of_items[gallery.rows])
        image_at_chance = commonest_first(
            gallery.by_text, np.bincount(occurrences, minlength=len(gallery.texts))
        )
        ids, groups = list(data.items["id"]), list(data.items["group"])

        of_images = parts.of_items[gallery.rows]
        captioned = gallery.rows[gallery.pairs[:, 0]]
        right_texts = QueryParts(of_images, of_images, parts.shares(gallery.by_image, of_captions))
        right_images = QueryParts(
            of_captions[occurrences],
            parts.of_items[captioned],
            parts.shares(gallery.by_text, of_images)[occurrences],
        )
        asked = np.bincount(occurrences)

        def of_image(ranks: Ranks, at_chance: Ranks) -> DirectionRanks:
            own = ([ids[row] for row in gallery.rows], [groups[row] for row in gallery.rows])
            return DirectionRanks(gallery.language, *own, right_texts, asked, ranks, at_chance)

        return (
            of_image(to_text, text_at_chance),
            of_image(shuffled, shuffled_at_chance),
            DirectionRanks(
                gallery.language,
                [f"{ids[row]}#{i}" for i, row in enumerate(captioned)],
                [groups[row] for row in captioned],
                right_images,
                asked,
                to_image.take(occurrences),
                image_at_chance.take(occurrences),
            ),
        )

    def _truncated_recall(
        self,
        encoder: Encoder,
        data: EvaluationSet,
        searchable: Sequence[Gallery],
        parts: GalleryParts,
        width: int,
    ) -> list[Metric]:
        """Recall at 1 with embeddings truncated to the first `width` dimensions."""
        truncated = TruncatedEncoder(encoder, width, "probes.retrieval.widths")
        images = truncated.images(data.items)
        to_text, _, to_image = self._rank_all(truncated, data, images, searchable, parts)
        sides = (("image_to_text", to_text), ("text_to_image", to_image))
        return [
            rank_metric(f"{direction}_r1_in_{width}_dimensions", ranks, _recall(1))
            for direction, ranks in sides
        ]

    def _metrics(
        self, direction: str, directions: Sequence[DirectionRanks], suffix: str = ""
    ) -> list[Metric]:
        """The metrics of one direction; those of one language have a `suffix`, and only the main ones."""
        size = min(queries.ranks.size for queries in directions)
        metrics = [
            rank_metric(f"{direction}_r{k}{suffix}", directions, _recall(k))
            for k in _RECALL_AT
            if is_figure(k, size)
        ]
        rank = partial(rank_metric, directions=directions, score=Ranks.expected_rank, unit="rank")
        metrics.append(rank(f"{direction}_median_rank{suffix}", aggregate=aggregates.median))
        if suffix:
            return metrics
        metrics.append(rank(f"{direction}_mean_rank", aggregate=aggregates.mean))
        metrics += _full_metrics(direction, directions, size)
        shares = [share for share in self.percent if share * size >= 100]
        return metrics + [
            rank_metric(f"{direction}_top_{share}_percent", directions, partial(_within, percent=share))
            for share in shares
        ]


def _recall(k: int) -> RankScore:
    return partial(Ranks.hits_at, k=k)


def _within(ranks: Ranks, percent: int) -> np.ndarray:
    return ranks.hits_at(percent * ranks.size // 100)


def is_figure(k: int, size: int) -> bool:
    """Whether the first k answers of a gallery tell models apart: half of it or more, a blind one finds."""
    return k == 1 or 2 * k < size


def _full_metrics(direction: str, directions: Sequence[DirectionRanks], size: int) -> list[Metric]:
    """The metrics that need the rank of every relevant answer; none where only the best is ranked.

    Of one relevant answer the R-precision is R@1, and is left out.
    """
    full = [(queries.ranks.full, queries.at_chance.full) for queries in directions]
    if any(ranks is None or at_chance is None for ranks, at_chance in full):
        return []
    metrics = [rank_metric(f"{direction}_map", directions, lambda ranks: _full(ranks).average_precision)]
    if any((queries.ranks.relevant > 1).any() for queries in directions):
        metrics.append(
            rank_metric(f"{direction}_r_precision", directions, lambda ranks: _full(ranks).r_precision)
        )
    if is_figure(NDCG_AT, size):
        metrics.append(
            rank_metric(f"{direction}_ndcg_{NDCG_AT}", directions, lambda ranks: _full(ranks).ndcg)
        )
    return metrics


def _full(ranks: Ranks) -> FullScores:
    assert ranks.full is not None  # called only where every relevant answer is ranked
    return ranks.full


def _ranks_left_out(searchable: Sequence[Gallery]) -> dict[str, str]:
    """The ranks at which a direction has no recall, and why."""
    sizes = {
        "captions": min(len(gallery.texts) for gallery in searchable),
        "images": min(len(gallery.rows) for gallery in searchable),
    }
    lacking = [
        f"R@{k} among {size} {answers}"
        for answers, size in sizes.items()
        for k in _RECALL_AT
        if not is_figure(k, size)
    ]
    return {"ranks_left_out": f"half of all answers or more: {', '.join(lacking)}"} if lacking else {}


def _sizes(data: EvaluationSet, searchable: Sequence[Gallery], max_images: int | None) -> dict[str, Any]:
    sizes = {
        gallery.language or "all": {"images": len(gallery.rows), "captions": len(gallery.texts)}
        for gallery in searchable
    }
    with_text = sum(any(text.strip() for text in texts) for texts in data.items["texts"])
    details = {"items_without_text": len(data.items) - with_text, "galleries": sizes}
    return details if max_images is None else details | {"images_asked_for": max_images}
