"""What a model answers for single images: its first captions and its class, for the examples of a report.

Legend: n images, c classes, k answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.decisions import top_k_hits
from domainclip.evaluation.metrics.labels import names_to_show, single_label_items
from domainclip.evaluation.metrics.prompt_presets import Preset, zero_shot_task
from domainclip.evaluation.metrics.ranking import rank_answers
from domainclip.evaluation.metrics.retrieval_gallery import Gallery
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.evaluation.metrics.zero_shot_scores import class_margins


@dataclass(frozen=True)
class Answer:
    """A caption or a class that a model gives for an image."""

    text: str
    right: bool


@dataclass(frozen=True)
class Outcomes:
    """How well one model answers for n images of a set."""

    rows: np.ndarray  # (n,) positions of the images in the set
    ranks: np.ndarray  # (n,) expected rank of the first right answer, from 1; ties in random order
    hits: np.ndarray  # (n,) probability that the first answer is right


def caption_outcomes(encoder: Encoder, data: EvaluationSet, gallery: Gallery) -> Outcomes:
    """The ranks of the right captions of each image, as the probe `retrieval` computes them."""
    images, texts = encoder.images(data.items)[gallery.rows], encoder.texts(gallery.texts)
    (ranks,) = rank_answers(images, texts, [gallery.by_image])
    return Outcomes(gallery.rows, ranks.expected_rank(), ranks.hits_at(1))


def first_captions_of(
    encoder: Encoder, data: EvaluationSet, gallery: Gallery, rows: Sequence[int], k: int
) -> list[list[Answer]]:
    """The k captions that are nearest to each of some images of the gallery; equal cosines in its order."""
    places = [int(np.flatnonzero(gallery.rows == row)[0]) for row in rows]
    images, texts = encoder.images(data.items)[list(rows)], encoder.texts(gallery.texts)
    first = np.argsort(-rounded_cosines(images, texts), axis=1, kind="stable")[:, :k]
    right = gallery.by_image[places].toarray()
    return [
        [Answer(gallery.texts[column], bool(right[i, column])) for column in columns]
        for i, columns in enumerate(first)
    ]


@dataclass(frozen=True)
class ClassAnswers:
    """The class that a model names for each image with exactly one class."""

    outcomes: Outcomes
    answers: dict[int, Answer]  # by position of the image in the set
    true_names: dict[int, str]


def class_answers(encoder: Encoder, data: EvaluationSet, preset: Preset) -> ClassAnswers | None:
    """The answers as the probe `zero_shot` computes them; None without two classes, one of which applies."""
    task = zero_shot_task(preset, data)
    names = list(task.classes)
    if data.card.multi_label or task.binary or len(names) < 2 or task.ensemble == "raw_mean":
        return None
    rows, truth = single_label_items(data.items, names)
    if not len(rows):
        return None
    positives = {name: Prompts(positive=task.classes[name].positive) for name in names}
    scores = class_margins(encoder, data.items, positives, task.ensemble)[rows]
    true_scores = scores[np.arange(len(rows)), truth][:, None]
    above, tied = (scores > true_scores).sum(axis=1), (scores == true_scores).sum(axis=1)
    shown, first = names_to_show(data, names), scores.argmax(axis=1)
    return ClassAnswers(
        Outcomes(rows, above + (tied + 1) / 2, top_k_hits(scores, truth)),
        {
            int(row): Answer(shown[guess], bool(guess == true))
            for row, guess, true in zip(rows, first, truth, strict=True)
        },
        {int(row): shown[true] for row, true in zip(rows, truth, strict=True)},
    )
