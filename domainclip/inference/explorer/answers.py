"""What one model answers for every item: a class, a finding, or a caption; and whether that is right.

Legend: n items, c classes, m captions, d embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics import decisions
from domainclip.evaluation.metrics.first_answers import caption_outcomes, first_captions_of
from domainclip.evaluation.metrics.labels import label_matrix, single_label_items
from domainclip.evaluation.metrics.retrieval_gallery import Gallery
from domainclip.evaluation.metrics.zero_shot_scores import class_margins
from domainclip.inference.explorer.explored import Explored

_BLOCK = 1024  # items whose cosines with all captions are in memory at a time


@dataclass(frozen=True)
class Answers:
    """The first answer of one model for each item."""

    hits: np.ndarray  # (n,) probability that the first answer is right; NaN where the truth is not known
    ranks: np.ndarray  # (n,) expected rank of the right answer, from 1; NaN where it is not known
    keys: np.ndarray  # (n,) the answer as a number: equal for equal answers
    describe: Callable[[Sequence[int]], list[str]]  # the answers for some rows, in words
    strengths: np.ndarray  # (n,) a probability, a score in logits, or NaN

    @property
    def known(self) -> np.ndarray:
        """(n,) bool: whether the truth is known."""
        known: np.ndarray = ~np.isnan(self.hits)
        return known

    @property
    def right(self) -> np.ndarray:
        """(n,) bool: whether the answer is right, or more likely so where answers tie."""
        right: np.ndarray = np.nan_to_num(self.hits) > 0.5
        return right


def one_of_classes(encoder: Encoder, data: EvaluationSet, classes: Mapping[str, Prompts]) -> Answers:
    """The most similar class of each item, as the probe `zero_shot` chooses it; the truth where it has one.

    The strength is the softmax of the scaled cosines, without a temperature, so that models compare.
    """
    names, n = list(classes), len(data.items)
    positive = {name: Prompts(positive=prompts.positive) for name, prompts in classes.items()}
    scores = class_margins(encoder, data.items, positive)
    rows, truth = single_label_items(data.items, names)
    hits, ranks = np.full(n, np.nan), np.full(n, np.nan)
    if len(rows):
        of_truth = scores[rows, truth][:, None]
        above, tied = (scores[rows] > of_truth).sum(axis=1), (scores[rows] == of_truth).sum(axis=1)
        hits[rows], ranks[rows] = decisions.top_k_hits(scores[rows], truth), above + (tied + 1) / 2
    first = scores.argmax(axis=1)
    strengths = softmax(scores * encoder.scale, axis=1)[np.arange(n), first]
    return Answers(hits, ranks, first, lambda chosen: [names[first[row]] for row in chosen], strengths)


def finding(
    encoder: Encoder, data: EvaluationSet, classes: Mapping[str, Prompts], name: str
) -> tuple[Answers, float | None]:
    """Whether one finding is present in each item, and its threshold on the score in logits.

    The threshold is chosen for each model on the validation split, as the probe `zero_shot` does (largest
    sensitivity + specificity); without one, no answer is right or wrong.
    """
    alone = {name: classes[name]}
    scores = class_margins(encoder, data.items, alone)[:, 0] * encoder.scale
    labels = label_matrix(data.items, [name])[:, 0]
    threshold = _threshold(encoder, data, alone, scores, labels)
    unknown = np.full(len(scores), np.nan)
    if threshold is None:
        words = np.full(len(scores), "no threshold")
        return Answers(
            unknown, unknown, np.zeros(len(scores)), lambda rows: words[list(rows)].tolist(), scores
        ), None
    present = scores >= threshold
    hits = np.where(np.isnan(labels), np.nan, present == (labels == 1))
    words = np.where(present, f"{name}: present", f"{name}: absent")
    return Answers(hits, unknown, present, lambda rows: words[list(rows)].tolist(), scores), threshold


def _threshold(
    encoder: Encoder,
    data: EvaluationSet,
    alone: Mapping[str, Prompts],
    scores: np.ndarray,
    labels: np.ndarray,
) -> float | None:
    if data.split == "validation":
        return decisions.youden_threshold(scores, labels)
    if data.validation is None or not len(data.validation):
        return None
    chosen_on = class_margins(encoder, data.validation, alone)[:, 0] * encoder.scale
    return decisions.youden_threshold(chosen_on, label_matrix(data.validation, list(alone))[:, 0])


def first_captions(explored: Explored, model: int) -> Answers:
    """The nearest of all captions of the set for each item, as the probe `retrieval` ranks them.

    Where captions must not be shown, an answer is only right or another one.
    """
    gallery, encoder = explored.gallery, explored.models[model].encoder
    if gallery is None:
        raise ValueError("the set has no captions")
    outcomes = caption_outcomes(encoder, explored.data, gallery)
    hits, ranks = np.full(explored.size, np.nan), np.full(explored.size, np.nan)
    hits[outcomes.rows], ranks[outcomes.rows] = outcomes.hits, outcomes.ranks
    keys = np.full(explored.size, -1)
    texts = encoder.texts(gallery.texts)
    strengths = np.full(explored.size, np.nan)
    for start in range(0, len(gallery.rows), _BLOCK):
        rows = gallery.rows[start : start + _BLOCK]
        cosines = np.round(explored.images(model)[rows] @ texts.T, 6)
        keys[rows], strengths[rows] = cosines.argmax(axis=1), cosines.max(axis=1)

    def describe(rows: Sequence[int]) -> list[str]:
        if not explored.shows_content:
            words = {True: "a right caption", False: "another caption"}
            return [words[bool(np.nan_to_num(hits[row]) > 0.5)] if keys[row] >= 0 else "" for row in rows]
        return [gallery.texts[keys[row]] if keys[row] >= 0 else "" for row in rows]

    return Answers(hits, ranks, keys, describe, strengths)


def captions_of_item(explored: Explored, model: int, row: int, k: int) -> list[tuple[str, bool]]:
    """The k nearest captions of one item, and whether each is right; none where they must not show."""
    gallery: Gallery | None = explored.gallery
    if gallery is None or not explored.shows_content or row not in gallery.rows:
        return []
    (found,) = first_captions_of(explored.models[model].encoder, explored.data, gallery, [row], k)
    return [(answer.text, answer.right) for answer in found]
