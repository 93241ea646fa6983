"""Finding the right caption for an image, and the right image for a caption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import csr_matrix

from domainclip import statistics
from domainclip.contracts import Encoder, EvaluationSet, Metric, Results
from domainclip.data.captions import normalise

_BLOCK = 512  # queries compared with the gallery at once; the whole matrix never stands
_CUTS = (1, 5, 10)


@dataclass(frozen=True)
class Gallery:
    """The captions and images of one language. n items, m distinct captions, o owners, q captions in all."""

    language: str
    rows: np.ndarray  # (n,) where the items stand in the set
    texts: list[str]  # (m,)
    owner: np.ndarray  # (n,) the group, or the item itself
    right: csr_matrix  # (o, m) whether a caption is right for the images of an owner
    pairs: np.ndarray  # (q, 2) item and caption, as positions in rows and texts


@dataclass(frozen=True)
class Standing:
    """Where the best right answer of each of q queries stands: all that ranks with ties need."""

    above: np.ndarray  # (q,) answers that score higher, all of them wrong
    tied: np.ndarray  # (q,) answers that score the same, itself included
    right: np.ndarray  # (q,) right ones among the tied
    answers: np.ndarray  # (q,) right answers in the whole gallery
    size: int  # of the gallery

    def hit(self, k: int) -> np.ndarray:
        """(q,) chances that a right answer is among the first k, ties being in random order.

        One less the chance that the places left for the tied all go to wrong ones, which is
        C(tied - right, places) / C(tied, places), here as a product of factors.
        """
        places = np.minimum(k - self.above, self.tied)
        missed = np.ones(len(self.above))
        for i in range(k):
            factor = np.maximum(self.tied - self.right - i, 0) / np.maximum(self.tied - i, 1)
            missed = np.where(i < places, missed * factor, missed)
        return 1 - missed

    def rank(self) -> np.ndarray:
        """(q,) expected rank of the first right answer, from 1."""
        ranks: np.ndarray = self.above + (self.tied + 1) / (self.right + 1)
        return ranks

    def blind(self) -> Standing:
        """The same queries for a model that knows nothing: the whole gallery is one tie."""
        everything = np.full_like(self.tied, self.size)
        return Standing(np.zeros_like(self.above), everything, self.answers, self.answers, self.size)

    def pick(self, queries: np.ndarray) -> Standing:
        """Some of the queries, or some of them several times."""
        above, tied, right, answers = (
            column[queries] for column in (self.above, self.tied, self.right, self.answers)
        )
        return Standing(above, tied, right, answers, self.size)


@dataclass(frozen=True)
class Found:
    """One direction in one language: whose the queries are, and where the answers stand."""

    language: str
    ids: list[str]
    groups: list[str]
    standing: Standing


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Recall at 1, 5 and 10 and the median rank, in both directions. [arXiv:2103.00020]

    A caption that stands under several images is one entry of the gallery and right for all of them;
    captions and images of one group are right for each other. Recall means that any right answer is among
    the first k. The headline is image to text at 1: one score an item, and the figure most often quoted.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    version: ClassVar[int] = 1

    group_truth: bool = True  # images of one object or patient accept each other's captions

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> Results:
        """All languages together, each in its own gallery; also each alone when there are several."""
        galleries = [gallery for gallery in self._galleries(data) if len(gallery.texts) > 1]
        if not galleries:
            missing = {"not_measured": "there are no two different captions"}
            return Results("retrieval", data.name, [], "", self.version, missing)
        metrics = []
        for direction, search in (("image_to_text", _image_to_text), ("text_to_image", _text_to_image)):
            found = [search(encoder, data, gallery) for gallery in galleries]
            metrics += _metrics(direction, found)
            if len(found) > 1:
                for one in found:
                    metrics += _metrics(direction, [one], f"/{one.language}")
        details = {"group_truth": self.group_truth, **_sizes(data, galleries)}
        return Results("retrieval", data.name, metrics, "image_to_text_r1", self.version, details)

    def _galleries(self, data: EvaluationSet) -> Iterator[Gallery]:
        owners = data.items["group"] if self.group_truth else data.items["id"]
        owner = np.unique(np.asarray(list(owners), dtype=str), return_inverse=True)[1]
        captions = _captions(data)
        for language in sorted({spoken for _, spoken, _ in captions}):
            yield _gallery(
                language, owner, [(row, text) for row, spoken, text in captions if spoken == language]
            )


def _captions(data: EvaluationSet) -> list[tuple[int, str, str]]:
    """Row, language and text of every caption that says something."""
    rows = enumerate(zip(data.items["texts"], data.items["language"], strict=True))
    return [
        (row, language, text)
        for row, (texts, languages) in rows
        for text, language in zip(texts, languages, strict=True)
        if normalise(text)
    ]


def _gallery(language: str, owner: np.ndarray, captions: list[tuple[int, str]]) -> Gallery:
    said: dict[str, str] = {}
    for _, text in captions:
        key = normalise(text)
        said[key] = min(text, said.get(key, text))  # one wording stands for all that read the same
    place = {key: i for i, key in enumerate(sorted(said))}
    rows, item = np.unique([row for row, _ in captions], return_inverse=True)
    pairs = np.stack([item, [place[normalise(text)] for _, text in captions]], axis=1)
    marks = (np.ones(len(pairs), dtype=bool), (owner[rows][pairs[:, 0]], pairs[:, 1]))
    right = csr_matrix(marks, shape=(owner.max() + 1, len(place)))
    return Gallery(language, rows, [said[key] for key in place], owner[rows], right, pairs)


def _image_to_text(encoder: Encoder, data: EvaluationSet, gallery: Gallery) -> Found:
    """One query an item."""
    images = encoder.images(data.items)[gallery.rows]

    def truth(block: slice) -> np.ndarray:
        marks: np.ndarray = gallery.right[gallery.owner[block]].toarray()
        return marks

    ids, groups = _of(data, gallery, np.arange(len(gallery.rows)))
    return Found(gallery.language, ids, groups, _search(images, encoder.texts(gallery.texts), truth))


def _text_to_image(encoder: Encoder, data: EvaluationSet, gallery: Gallery) -> Found:
    """One query a caption of an item; equal captions are looked up once and count as often as they stand."""
    images = encoder.images(data.items)[gallery.rows]
    by_caption = gallery.right.T.tocsr()

    def truth(block: slice) -> np.ndarray:
        marks: np.ndarray = by_caption[block].toarray()[:, gallery.owner]
        return marks

    standing = _search(encoder.texts(gallery.texts), images, truth).pick(gallery.pairs[:, 1])
    ids, groups = _of(data, gallery, gallery.pairs[:, 0])
    return Found(gallery.language, [f"{name}#{i}" for i, name in enumerate(ids)], groups, standing)


def _search(queries: np.ndarray, answers: np.ndarray, truth: Callable[[slice], np.ndarray]) -> Standing:
    queries, answers = queries.astype(np.float64), answers.astype(np.float64)
    blocks = []
    for start in range(0, len(queries), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(queries)))
        # Single-precision towers do not mean more than six digits: what is closer is a tie.
        cosines, right = np.round(queries[block] @ answers.T, 6), truth(block)
        best = np.where(right, cosines, -np.inf).max(axis=1, keepdims=True)
        tied = cosines == best
        counts = ((cosines > best), tied, tied & right, right)
        blocks.append(np.stack([count.sum(axis=1) for count in counts]))
    above, tied, right, answering = np.concatenate(blocks, axis=1)
    return Standing(above, tied, right, answering, len(answers))


def _metrics(direction: str, found: list[Found], suffix: str = "") -> list[Metric]:
    ids = [name for one in found for name in one.ids]
    groups = [name for one in found for name in one.groups]

    def pooled(score: Callable[[Standing], np.ndarray], blind: bool = False) -> np.ndarray:
        return np.concatenate([score(one.standing.blind() if blind else one.standing) for one in found])

    def metric(
        name: str, score: Callable[[Standing], np.ndarray], aggregate: statistics.Aggregate, unit: str
    ) -> Metric:
        guesses = pooled(score, blind=True)
        chance = float(aggregate(guesses, np.ones((1, len(guesses))))[0])
        scores, up = pooled(score), unit == "share"
        return Metric(f"{direction}_{name}{suffix}", ids, groups, scores, aggregate, up, chance, unit)

    # A cut as large as the gallery is always hit, and says nothing.
    cuts = [k for k in _CUTS if k < min(one.standing.size for one in found)]
    recalls = [metric(f"r{k}", partial(Standing.hit, k=k), statistics.mean, "share") for k in cuts]
    return [*recalls, metric("median_rank", Standing.rank, statistics.median, "rank")]


def _of(data: EvaluationSet, gallery: Gallery, items: np.ndarray) -> tuple[list[str], list[str]]:
    ids, groups = list(data.items["id"]), list(data.items["group"])
    rows = gallery.rows[items]
    return [ids[row] for row in rows], [groups[row] for row in rows]


def _sizes(data: EvaluationSet, galleries: list[Gallery]) -> dict[str, Any]:
    told = {int(row) for gallery in galleries for row in gallery.rows}
    sizes = {g.language or "all": {"images": len(g.rows), "captions": len(g.texts)} for g in galleries}
    return {"items_without_text": len(data.items) - len(told), "galleries": sizes}
