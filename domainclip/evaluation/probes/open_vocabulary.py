"""Open-vocabulary accuracy: classification as the set of candidate classes grows."""

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

# The 100 classes of CIFAR-100, with which the paper expands vocabularies.
_CIFAR100 = (
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

    Stability (the paper's Acc-S): the true classes are those of the corpus, while unrelated words are added
    to the candidates step by step. Extensibility (Acc-E): the classes of the corpus are added step by step,
    and each step is measured on the items of the classes so far. Both are means over the steps and over
    several random orders of adding, the same for all models.
    Legend: n items, c classes, w words, s steps of all orders.
    """

    citation: ClassVar[str] = "arXiv:2206.01986"
    version: ClassVar[int] = 1
    classifies: ClassVar[bool] = True

    # Names of further classes that no image has.
    words: tuple[str, ...] = tuple(word.replace("_", " ") for word in _CIFAR100.split())
    template: str = "a photo of a {}."  # the prompt of these words; {} is one
    steps: Annotated[int, Field(ge=1)] = 5  # in how many steps the words are added
    orders: Annotated[int, Field(ge=1)] = 3  # random orders of adding, of which the mean is reported

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Stability, extensibility, and the closed-vocabulary accuracy as their reference."""
        names = sorted(data.classes)
        rows, truth = single_label_items(data.items, names)
        if data.card.multi_label or len(names) < 2 or not len(rows):
            return not_measured(
                "open_vocabulary", data, self.version, "items with exactly one of two classes or more"
            )
        class_names = {normalise(name) for name in names}
        words = [word for word in dict.fromkeys(self.words) if normalise(word) not in class_names]
        images = encoder.images(data.items)[rows]
        class_cosines = rounded_cosines(
            images, class_vectors(encoder, [data.classes[name].positive for name in names])
        )
        metrics = []
        if words:
            texts = [self.template.replace("{}", word) for word in words]
            word_cosines = rounded_cosines(images, encoder.texts(texts))
            metrics.append(self._stability(data, rows, truth, class_cosines, word_cosines, words))
        metrics.append(self._extensibility(data, rows, truth, class_cosines, names))
        closed = metric(
            "closed_accuracy", data.items, rows, top_k_hits(class_cosines, truth), chance=1 / len(names)
        )
        details = {"words": len(words), "template": self.template, "steps": self.steps, "orders": self.orders}
        return ProbeResult(
            "open_vocabulary", data.name, [*metrics, closed], metrics[0].name, self.version, details
        )

    def _stability(
        self,
        data: EvaluationSet,
        rows: np.ndarray,
        truth: np.ndarray,
        class_cosines: np.ndarray,
        word_cosines: np.ndarray,
        words: Sequence[str],
    ) -> Metric:
        scores, chance_sum, count = np.zeros(len(rows)), 0.0, 0
        for order in range(self.orders):
            for added in _growing_subsets(words, self.steps, order):
                scores += top_k_hits(np.concatenate([class_cosines, word_cosines[:, added]], axis=1), truth)
                chance_sum += 1 / (class_cosines.shape[1] + len(added))
                count += 1
        return metric("stability", data.items, rows, scores / count, chance=chance_sum / count)

    def _extensibility(
        self,
        data: EvaluationSet,
        rows: np.ndarray,
        truth: np.ndarray,
        class_cosines: np.ndarray,
        names: Sequence[str],
    ) -> Metric:
        columns, chances = [], []
        for order in range(self.orders):
            for present in _growing_subsets(names, min(self.steps, len(names) // 2), order):
                measured = np.flatnonzero(np.isin(truth, present))
                if not len(measured):
                    continue
                index = {int(label): i for i, label in enumerate(present)}
                correct = np.array([index[int(truth[item])] for item in measured])
                column = np.full(len(rows), np.nan)
                column[measured] = top_k_hits(class_cosines[np.ix_(measured, present)], correct)
                columns.append(column)
                chances.append(np.where(np.isnan(column), np.nan, 1 / len(present)))
        chance = aggregates.point_estimate(mean_of_columns, np.stack(chances, axis=1))
        scores = np.stack(columns, axis=1)
        return metric("extensibility", data.items, rows, scores, mean_of_columns, chance)


def _growing_subsets(names: Sequence[str], steps: int, order: int) -> list[np.ndarray]:
    """Indices of the names that are present after each step; the last step has all."""
    drawn = sorted(range(len(names)), key=lambda i: (stable("openness", order, names[i]), names[i]))
    ends = np.linspace(0, len(names), steps + 1).round().astype(int)[1:]
    return [np.array(sorted(drawn[:end])) for end in sorted(set(ends.tolist())) if end]
