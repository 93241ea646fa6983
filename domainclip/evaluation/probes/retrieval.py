"""Finding the right caption for an image, and the right image for a caption."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics.image_neighbours import alike
from domainclip.evaluation.metrics.ranking import Standing, search
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.metrics.retrieval_sets import Gallery, galleries
from domainclip.evaluation.metrics.truncated_encoder import Narrow
from domainclip.evaluation.statistics import aggregates

_CUTS = (1, 5, 10)
Score = Callable[[Standing], np.ndarray]


@dataclass(frozen=True)
class Found:
    """One direction in one language: whose the queries are, and where the answers stand."""

    language: str
    ids: list[str]
    groups: list[str]
    standing: Standing


@dataclass(frozen=True, kw_only=True)
class Retrieval(Probe):
    """Recall, ranks and mean precision, in both directions, and image to image. [arXiv:2103.00020]

    A caption that stands under several images is one entry of the gallery and right for all of them;
    captions and images of one group are right for each other. Recall means that any right answer is among
    the first k. The headline is image to text at 1: one score an item, and the figure most often quoted.
    `pairwise` is open_clip's training-time figure: the first caption of each item, and only that is right.
    Recall at a share of the gallery compares galleries of different sizes [arXiv:2403.08851]. `widths` also
    searches in the first dimensions of the embeddings alone, as a smaller index would [arXiv:2205.13147].
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    version: ClassVar[int] = 2

    preset: Literal["multi", "pairwise"] = "multi"
    group_truth: bool = True  # images of one object or patient accept each other's captions
    percent: tuple[int, ...] = (10,)  # shares of the gallery at which recall is taken as well
    gallery: int | None = None  # images a gallery: fixed, so that figures of other corpora compare
    widths: tuple[int, ...] = ()  # of embeddings that are cut short
    seed: int = 0  # of the gallery's draw and of the shuffled control

    def __post_init__(self) -> None:
        if any(not 0 < share < 100 for share in self.percent):
            raise ValueError("percent: each lies between 0 and 100")
        if self.gallery is not None and self.gallery < 2:
            raise ValueError("gallery: at least 2 images")
        if any(width < 1 for width in self.widths):
            raise ValueError("widths: each is at least 1")

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """All languages together, each in its own gallery; also each alone when there are several."""
        made = galleries(data, self.group_truth, self.preset == "pairwise", self.gallery, self.seed)
        used = [gallery for gallery in made if len(gallery.texts) > 1]
        if not used:
            return not_measured("retrieval", data, self.version, "two different captions")
        images = encoder.images(data.items)
        to_text, shuffled, to_image = zip(
            *(self._found(encoder, data, images, one) for one in used), strict=True
        )
        metrics = []
        for direction, found in (("image_to_text", to_text), ("text_to_image", to_image)):
            metrics += self._metrics(direction, found)
            if len(found) > 1:
                for one in found:
                    metrics += self._metrics(direction, [one], f"/{one.language}")
        metrics.append(_metric("image_to_text_r1_shuffled", shuffled, _recall(1)))
        metrics += [one for width in self.widths for one in self._cut_short(encoder, data, used, width)]
        details = {
            "preset": self.preset,
            "preset_version": 1,
            "group_truth": self.group_truth,
            "control": "image_to_text_r1_shuffled gives every item another's captions: it stands at chance",
            **_sizes(data, used, self.gallery),
        }
        kinds = alike(images, data.items, self.seed)
        if any(one.standing.precision is None for one in (*to_text, *to_image)):
            details["map_left_out"] = (
                "some queries have so many right answers that ranking each costs too much"
            )
        if kinds is not None:
            chance = float(kinds.blind.mean())
            metrics.append(
                metric("image_to_image_map", data.items, kinds.rows, kinds.scores, aggregates.mean, chance)
            )
            details["image_to_image"] = {
                "right_is_the_same": kinds.truth,
                "images": kinds.gallery,
                "queries": len(kinds.rows),
            }
        return ProbeResult("retrieval", data.name, metrics, "image_to_text_r1", self.version, details)

    def _found(
        self, encoder: Encoder, data: EvaluationSet, images: np.ndarray, gallery: Gallery
    ) -> tuple[Found, Found, Found]:
        """Image to text, the same with shuffled captions, and text to image."""
        pictures, texts = images[gallery.rows], encoder.texts(gallery.texts)
        said, shuffled = search(pictures, texts, [gallery.by_image, gallery.shuffled(self.seed)])
        # Equal captions are looked up once and count as often as they stand.
        (seen,) = search(texts, pictures, [gallery.by_text])
        ids, groups = _of(data, gallery, np.arange(len(gallery.rows)))
        text_ids, text_groups = _of(data, gallery, gallery.pairs[:, 0])
        numbered = [f"{name}#{i}" for i, name in enumerate(text_ids)]
        return (
            Found(gallery.language, ids, groups, said),
            Found(gallery.language, ids, groups, shuffled),
            Found(gallery.language, numbered, text_groups, seen.pick(gallery.pairs[:, 1])),
        )

    def _cut_short(
        self, encoder: Encoder, data: EvaluationSet, used: Sequence[Gallery], width: int
    ) -> list[Metric]:
        """Recall at 1 in the first dimensions alone."""
        narrow = Narrow(encoder, width, "probes.retrieval.widths")
        images = narrow.images(data.items)
        to_text, _, to_image = zip(*(self._found(narrow, data, images, one) for one in used), strict=True)
        sides = (("image_to_text", to_text), ("text_to_image", to_image))
        return [
            _metric(f"{direction}_r1_in_{width}_dimensions", found, _recall(1)) for direction, found in sides
        ]

    def _metrics(self, direction: str, found: Sequence[Found], suffix: str = "") -> list[Metric]:
        """The figures of one direction; those of one language are parts, `suffix`, and only the main ones."""
        # A cut as large as the gallery is always hit, and says nothing.
        size = min(one.standing.size for one in found)
        metrics = [_metric(f"{direction}_r{k}{suffix}", found, _recall(k)) for k in _CUTS if k < size]
        rank = partial(_metric, found=found, score=Standing.rank, unit="rank")
        metrics.append(rank(f"{direction}_median_rank{suffix}", aggregate=aggregates.median))
        if suffix:
            return metrics
        metrics.append(rank(f"{direction}_mean_rank", aggregate=aggregates.mean))
        if all(one.standing.precision is not None for one in found):
            metrics.append(_metric(f"{direction}_map", found, _precision))
        shares = [share for share in self.percent if share * size >= 100]
        return metrics + [
            _metric(f"{direction}_top_{share}_percent", found, partial(_within, percent=share))
            for share in shares
        ]


def _recall(k: int) -> Score:
    return partial(Standing.hit, k=k)


def _within(standing: Standing, percent: int) -> np.ndarray:
    return standing.hit(percent * standing.size // 100)


def _precision(standing: Standing) -> np.ndarray:
    assert standing.precision is not None  # asked for only where it was worked out
    return standing.precision


def _metric(
    name: str,
    found: Sequence[Found],
    score: Score,
    aggregate: aggregates.Aggregate = aggregates.mean,
    unit: str = "share",
) -> Metric:
    ids = [name for one in found for name in one.ids]
    groups = [name for one in found for name in one.groups]
    scores = np.concatenate([score(one.standing) for one in found])
    chance = aggregates.point_estimate(
        aggregate, np.concatenate([score(one.standing.blind()) for one in found])
    )
    return Metric(name, ids, groups, scores, aggregate, unit == "share", chance, unit)


def _of(data: EvaluationSet, gallery: Gallery, items: np.ndarray) -> tuple[list[str], list[str]]:
    ids, groups = list(data.items["id"]), list(data.items["group"])
    rows = gallery.rows[items]
    return [ids[row] for row in rows], [groups[row] for row in rows]


def _sizes(data: EvaluationSet, used: Sequence[Gallery], asked: int | None) -> dict[str, Any]:
    sizes = {one.language or "all": {"images": len(one.rows), "captions": len(one.texts)} for one in used}
    told = sum(any(text.strip() for text in texts) for texts in data.items["texts"])
    found = {"items_without_text": len(data.items) - told, "galleries": sizes}
    return found if asked is None else found | {"images_asked_for": asked}
