"""What is left of the accuracy when the candidates are no longer only the right vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from domainclip.data.interfaces import Encoder
from domainclip.data.text.captions import normalise
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics.decisions import top_k_hits
from domainclip.evaluation.metrics.labels import single_label_items
from domainclip.evaluation.metrics.results import metric, not_measured
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.evaluation.metrics.zero_shot_scores import class_vectors
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.statistics.aggregates import mean_of_columns
from domainclip.seeding import stable

# The 100 classes of CIFAR-100, on which the paper expands vocabularies: things of everyday life.
_WORDS = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel "
    "can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur "
    "dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion "
    "lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree "
    "pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea "
    "seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table "
    "tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman "
    "worm"
)


@dataclass(frozen=True, kw_only=True)
class OpenVocabulary(Probe):
    """Stability and extensibility as the vocabulary grows step by step. [arXiv:2206.01986]

    Stability (the paper's Acc-S): the corpus's own classes stay the right answers while words of other
    worlds join the candidates, one share more at each step. Extensibility (Acc-E): the corpus's classes
    join one share after the other, and each step is measured on the items of those that are there. Both
    are means over the steps and over some orders of joining, drawn once for all models.
    Legend: n items, c classes, w words, s steps of all orders.
    """

    citation: ClassVar[str] = "arXiv:2206.01986"
    version: ClassVar[int] = 1

    words: tuple[str, ...] = tuple(word.replace("_", " ") for word in _WORDS.split())
    template: str = "a photo of a {}."
    steps: Annotated[int, Field(ge=1)] = 5
    orders: Annotated[int, Field(ge=1)] = 3

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Stability, extensibility, and the closed accuracy that both are compared with."""
        names = sorted(data.classes)
        rows, truth = single_label_items(data.items, names)
        if data.card.multi_label or len(names) < 2 or not len(rows):
            return not_measured(
                "open_vocabulary", data, self.version, "items that hold one of two classes or more"
            )
        own = {normalise(name) for name in names}
        words = [word for word in dict.fromkeys(self.words) if normalise(word) not in own]
        images = encoder.images(data.items)[rows]
        inside = rounded_cosines(
            images, class_vectors(encoder, [data.classes[name].positive for name in names])
        )
        metrics = []
        if words:
            texts = [self.template.replace("{}", word) for word in words]
            outside = rounded_cosines(images, encoder.texts(texts))
            metrics.append(self._stability(data, rows, truth, inside, outside, words))
        metrics.append(self._extensibility(data, rows, truth, inside, names))
        closed = metric("closed_accuracy", data.items, rows, top_k_hits(inside, truth), chance=1 / len(names))
        details = {"words": len(words), "template": self.template, "steps": self.steps, "orders": self.orders}
        return ProbeResult(
            "open_vocabulary", data.name, [*metrics, closed], metrics[0].name, self.version, details
        )

    def _stability(
        self,
        data: EvaluationSet,
        rows: np.ndarray,
        truth: np.ndarray,
        inside: np.ndarray,
        outside: np.ndarray,
        words: Sequence[str],
    ) -> Metric:
        scores, guess, count = np.zeros(len(rows)), 0.0, 0
        for order in range(self.orders):
            for joined in _growing(words, self.steps, order):
                scores += top_k_hits(np.concatenate([inside, outside[:, joined]], axis=1), truth)
                guess += 1 / (inside.shape[1] + len(joined))
                count += 1
        return metric("stability", data.items, rows, scores / count, chance=guess / count)

    def _extensibility(
        self,
        data: EvaluationSet,
        rows: np.ndarray,
        truth: np.ndarray,
        inside: np.ndarray,
        names: Sequence[str],
    ) -> Metric:
        columns, guesses = [], []
        for order in range(self.orders):
            for there in _growing(names, min(self.steps, len(names) // 2), order):
                asked = np.flatnonzero(np.isin(truth, there))
                if not len(asked):
                    continue
                place = {int(label): i for i, label in enumerate(there)}
                right = np.array([place[int(truth[item])] for item in asked])
                column = np.full(len(rows), np.nan)
                column[asked] = top_k_hits(inside[np.ix_(asked, there)], right)
                columns.append(column)
                guesses.append(np.where(np.isnan(column), np.nan, 1 / len(there)))
        chance = aggregates.point_estimate(mean_of_columns, np.stack(guesses, axis=1))
        scores = np.stack(columns, axis=1)
        return metric("extensibility", data.items, rows, scores, mean_of_columns, chance)


def _growing(names: Sequence[str], steps: int, order: int) -> list[np.ndarray]:
    """Places of the names that are there after each step; the last step has all."""
    drawn = sorted(range(len(names)), key=lambda i: (stable("openness", order, names[i]), names[i]))
    ends = np.linspace(0, len(names), steps + 1).round().astype(int)[1:]
    return [np.array(sorted(drawn[:end])) for end in sorted(set(ends.tolist())) if end]
