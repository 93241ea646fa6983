"""Composed retrieval: an image and a text that changes it as one query for another image.

Legend: q queries, m images, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics.image_changes import ImageChanges, read_changes
from domainclip.evaluation.metrics.labelled_examples import sample_items
from domainclip.evaluation.metrics.ranking import Ranks
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.metrics.truth import truth_numbers

if TYPE_CHECKING:
    from datasets import Dataset

_WEIGHTS = np.linspace(0, 1, 11)  # the text weights that are tried on the validation split
_BLOCK = 512  # queries per comparison with all images
_SUBSET_AT = (1, 2, 3)  # the first answers among the candidates of a query, as in CIRR


@dataclass(frozen=True)
class _Queries:
    """The queries of a set, and its different images, each of which is one answer."""

    rows: np.ndarray  # (q,) the item of each query
    references: np.ndarray  # (q, d)
    texts: np.ndarray  # (q, d)
    images: np.ndarray  # (m, d)
    reference_of: np.ndarray  # (q,) the answer that is the reference image, and never a candidate
    target_of: np.ndarray  # (q,) the answer that is the target
    truth: np.ndarray  # (q,) truth key of the target
    truths: np.ndarray  # (m,) truth key of each answer
    candidates: list[list[int]]  # (q,) the answers that the card lists; empty: all

    def ranks(self, weight: float) -> Ranks:
        """The rank of the first relevant image of each query among all."""
        return self._ranks(weight, np.arange(len(self.rows)), limited=False)

    def subset_ranks(self, weight: float, queries: np.ndarray) -> Ranks:
        """The same among the candidates of some queries."""
        return self._ranks(weight, queries, limited=True)

    def _ranks(self, weight: float, queries: np.ndarray, *, limited: bool) -> Ranks:
        """The ranks, a block of queries at a time; size and relevant answers are counts of each query."""
        composed = compose(self.references[queries], self.texts[queries], weight)
        columns = []
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            cosines = np.round(composed[start : start + _BLOCK] @ self.images.T, 6)
            cosines[~self._allowed(block, limited=limited)] = -np.inf
            columns.append(_count(cosines, self._relevant(block)))
        above, tied, relevant_tied, relevant = np.concatenate(columns, axis=1)
        return Ranks(above, tied, relevant_tied, relevant, len(self.images))

    def by_luck(self, queries: np.ndarray, *, limited: bool) -> Ranks:
        """The ranks of a model that gives all answers of a query the same score."""
        columns = []
        for start in range(0, len(queries), _BLOCK):
            block = queries[start : start + _BLOCK]
            allowed = self._allowed(block, limited=limited)
            columns.append(_count(np.where(allowed, 0.0, -np.inf), self._relevant(block)))
        above, tied, relevant_tied, relevant = np.concatenate(columns, axis=1)
        return Ranks(above, tied, relevant_tied, relevant, len(self.images))

    def _allowed(self, block: np.ndarray, *, limited: bool) -> np.ndarray:
        """(b, m) bool: the answers of each query of a block."""
        allowed = np.full((len(block), len(self.images)), not limited)
        for i, query in enumerate(block if limited else ()):
            allowed[i, [*self.candidates[query], self.target_of[query]]] = True
        allowed[np.arange(len(block)), self.reference_of[block]] = False
        return allowed

    def _relevant(self, block: np.ndarray) -> np.ndarray:
        """(b, m) bool: the answers with the truth key of the target."""
        relevant: np.ndarray = self.truth[block][:, None] == self.truths
        relevant[np.arange(len(block)), self.target_of[block]] = True
        return relevant


@dataclass(frozen=True, kw_only=True)
class Composed(Probe):
    """R@k of the target image for (1 − w) x_reference + w y_change. [arXiv:1905.12794, arXiv:2108.04024]

    Each item with the card's columns `reference` and `change` is a query, and its image the target. Answers
    are all different images of the set but the reference, as in CIRR (scripts of FashionIQ leave it in);
    right are those with the truth key of the target. Where the card names `candidates`, `subset_r1` to
    `subset_r3` are the recall among them alone (CIRR's subset recall). `image_only` and `text_only` are R@k
    with w = 0 and 1 at the first k: a composition that is not above both combines nothing. Ties are in random
    order. `text_weight: validation` chooses w among 0, 0.1 … 1 by that R@k on the validation split, for each
    model; a set without such queries takes 0.5. The weighted sum needs no training [arXiv:2409.04918]. Others
    train a network that combines both embeddings [arXiv:2308.11485], or turn the image into words of the
    query [arXiv:2503.19296]; those are models of their own, and are not measured here.
    """

    citation: ClassVar[str] = "arXiv:2108.04024, arXiv:1905.12794"
    version: ClassVar[int] = 1

    max_items: Annotated[int, Field(ge=1)] = 5000  # queries; the answers are always all images
    k: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5, 10, 50)  # numbers of first images, in order
    # The weight w of the text: a number, or chosen on the validation split.
    text_weight: Annotated[float, Field(ge=0, le=1)] | Literal["validation"] = 0.5

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """R@k for each k below half of the answers, the subset recall, and the two controls."""
        found = read_changes(data.items)
        sampled = sample_items(data, [change.row for change in found.changes], self.max_items, "composed")
        queries = _queries(encoder, data.items, found, set(sampled))
        if queries is None:
            missing = "items with columns.reference and columns.change"
            return not_measured("composed", data, self.version, missing, **found.lost)
        weight, chosen_on = self._weight(encoder, data)
        size = len(queries.images) - 1  # without the reference
        first, *_ = depths = [k for k in self.k if k == 1 or 2 * k < size] or [1]
        every = np.arange(len(queries.rows))
        by_luck = queries.by_luck(every, limited=False)
        metrics = [_recall(f"r{k}", data, queries.rows, queries.ranks(weight), by_luck, k) for k in depths]
        metrics += _subset_recall(data, queries, weight)
        for name, alone in (("image", 0.0), ("text", 1.0)):
            ranks = queries.ranks(alone)
            metrics.append(_recall(f"{name}_only_r{first}", data, queries.rows, ranks, by_luck, first))
        details = {
            "queries": len(queries.rows),
            "images": size,
            "text_weight": weight,
            "weight_from": chosen_on,
        }
        details |= {"queries_in_the_set": len(found.changes), **found.lost}
        return ProbeResult("composed", data.name, metrics, f"r{first}", self.version, details)

    def _weight(self, encoder: Encoder, data: EvaluationSet) -> tuple[float, str]:
        """The weight of the text, and where it is from."""
        if self.text_weight != "validation":
            return self.text_weight, "the recipe"
        queries = None
        if data.validation is not None and len(data.validation):
            queries = _queries(encoder, data.validation, read_changes(data.validation))
        if queries is None:
            return 0.5, "the default, since the validation split has no query"
        k = self.k[0]
        recalls = np.round([queries.ranks(float(weight)).hits_at(k).mean() for weight in _WEIGHTS], 9)
        best = _WEIGHTS[recalls == recalls.max()]
        nearest = float(best[np.argmin(np.abs(best - 0.5))])  # of equal ones that nearest to the middle
        return round(nearest, 1), f"the validation split, {len(queries.rows)} queries"


def compose(references: np.ndarray, texts: np.ndarray, weight: float) -> np.ndarray:
    """(q, d) of unit length, of unit rows (q, d) and (q, d); a sum of length 0 stays 0."""
    composed = (1 - weight) * references.astype(np.float64) + weight * texts.astype(np.float64)
    lengths = np.linalg.norm(composed, axis=1, keepdims=True)
    unit: np.ndarray = composed / np.where(lengths > 0, lengths, 1)
    return unit


def _count(cosines: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """(4, q): above, tied, relevant among the tied, and all relevant; a score of -inf is no answer."""
    relevant = relevant & (cosines > -np.inf)
    best = np.where(relevant, cosines, -np.inf).max(axis=1, keepdims=True)
    tied = cosines == best
    counts = ((cosines > best), tied, tied & relevant, relevant)
    return np.stack([count.sum(axis=1) for count in counts]).astype(np.float64)


def _queries(
    encoder: Encoder, items: Dataset, found: ImageChanges, rows: set[int] | None = None
) -> _Queries | None:
    """The queries, of some rows or of all, and the answers of a set; None without queries."""
    changes = [change for change in found.changes if rows is None or change.row in rows]
    if not changes:
        return None
    embeddings = encoder.images(items).astype(np.float64)
    truth, first_rows = truth_numbers(items), np.unique(found.images, return_index=True)[1]
    targets = np.array([change.row for change in changes])
    references = np.array([change.reference for change in changes])
    return _Queries(
        rows=targets,
        references=embeddings[references],
        texts=encoder.texts([change.text for change in changes]).astype(np.float64),
        images=embeddings[first_rows],
        reference_of=found.images[references],
        target_of=found.images[targets],
        truth=truth[targets],
        truths=truth[first_rows],
        candidates=[found.images[list(change.candidates)].tolist() for change in changes],
    )


def _recall(name: str, data: EvaluationSet, rows: np.ndarray, ranks: Ranks, by_luck: Ranks, k: int) -> Metric:
    return metric(name, data.items, rows, ranks.hits_at(k), chance=float(by_luck.hits_at(k).mean()))


def _subset_recall(data: EvaluationSet, queries: _Queries, weight: float) -> list[Metric]:
    """The recall among the candidates, for queries with a wrong one among them."""
    wrong = [
        set(listed) - {int(target), int(reference)}
        for listed, target, reference in zip(
            queries.candidates, queries.target_of, queries.reference_of, strict=True
        )
    ]
    limited = np.flatnonzero([len(answers) > 0 for answers in wrong])
    if not len(limited):
        return []
    ranks, by_luck = queries.subset_ranks(weight, limited), queries.by_luck(limited, limited=True)
    rows = queries.rows[limited]
    return [_recall(f"subset_r{k}", data, rows, ranks, by_luck, k) for k in _SUBSET_AT]
