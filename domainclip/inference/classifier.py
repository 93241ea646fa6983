"""Classes of images from their embeddings: one class of several, or findings that are each present or not.

Both are computed as by the probes `zero_shot` and `calibration`: the metrics of a run hold for the answers.
Legend: n images, c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.errors import RecipeError
from domainclip.evaluation import suites
from domainclip.evaluation.class_decisions import Decisions
from domainclip.evaluation.metrics import zero_shot_scores
from domainclip.evaluation.run_classes import RunClasses


@dataclass(frozen=True)
class Classification:
    """The most probable class of one image, and the probability of each class."""

    label: str
    probabilities: dict[str, float]  # by class: the softmax of the scaled cosines


@dataclass(frozen=True)
class Finding:
    """Whether one class of several that may hold together is present in an image."""

    score: float  # scale times margin, in logits
    probability: float | None  # None for a class that has none: without negative prompts, in a softmax model
    threshold: float | None  # of the score, chosen on validation; None: not chosen
    threshold_probability: float | None  # the same as a probability, where that rises with the score alone
    present: bool | None  # whether the score reaches the threshold; None without one


Findings = dict[str, Finding]  # of one image, by class


@dataclass(frozen=True)
class ClassQuestion:
    """The classes to choose among, or to find, with the decisions that hold for them."""

    classes: dict[str, Prompts]
    multi_label: bool = False  # each class is a separate yes-or-no question
    decisions: Decisions | None = None
    is_new: bool = False  # whether classes or prompts are other ones than those of the run


def ask(
    recorded: RunClasses | None,
    named: Mapping[str, Prompts] | None = None,
    templates: Sequence[str] = (),
) -> ClassQuestion:
    """The question that named classes ask, or else the classes of the run.

    Names that are all classes of the run keep its prompts and thresholds, unless there are templates. New
    classes are separate questions where all have negative prompts; else they exclude each other. Templates
    are those that are named, else of the run, else CLIP's first.

    Raises: RecipeError without any class, with one class to choose among, or for a template without {}.
    """
    known = recorded.classes if recorded is not None else {}
    names = list(named or known)
    if not names:
        raise RecipeError('--classes: the model records no classes: name them, as --classes "cat,dog"')
    of_run = recorded if recorded is not None and set(names) <= set(known) else None
    names_only = all(prompts == Prompts(positive=[name]) for name, prompts in (named or {}).items())
    if of_run is not None and names_only and not templates:
        classes = {name: known[name] for name in names}
        return _checked(ClassQuestion(classes, of_run.multi_label, _of_classes(of_run, names)))
    filled = [*templates] or (recorded.templates if recorded is not None else []) or suites.TEMPLATES
    classes = suites.with_templates(dict(named or known), [*filled], only_names=bool(named))
    opposed = all(prompts.negative for prompts in classes.values())
    multi_label = opposed or (of_run is not None and of_run.multi_label)
    return _checked(ClassQuestion(classes, multi_label, is_new=True))


def _of_classes(run: RunClasses, names: Sequence[str]) -> Decisions | None:
    """The decisions for some classes of a run; the temperature of a softmax is that of all of them."""
    if run.decisions is None or run.multi_label or len(names) == len(run.classes):
        return run.decisions
    return Decisions(thresholds=run.decisions.thresholds)


def _checked(question: ClassQuestion) -> ClassQuestion:
    if len(question.classes) < 2 and not question.multi_label:
        raise RecipeError(f"classes: {len(question.classes)} given; name two or more to choose among")
    return question


class Classifier:
    """Answers a question about images from their embeddings."""

    def __init__(self, encoder: Encoder, question: ClassQuestion) -> None:
        self.encoder, self.question = encoder, question
        self.names = list(question.classes)

    @property
    def temperature(self) -> float:
        """The divisor of all logits: 1 where calibration was not measured."""
        decisions = self.question.decisions
        return (decisions.temperature or 1.0) if decisions is not None else 1.0

    @property
    def is_calibrated(self) -> bool:
        """Whether a temperature was fitted for these classes on the validation split."""
        return self.question.decisions is not None and self.question.decisions.temperature is not None

    def classify(self, images: np.ndarray) -> list[Classification]:
        """The most probable class of each image, from embeddings (n, d); of equal ones, the first."""
        margins = self._positive_margins(images)
        logits = margins * self.encoder.scale / self.temperature
        return [
            Classification(
                self.names[int(scores.argmax())],
                {name: float(value) for name, value in zip(self.names, row, strict=True)},
            )
            for scores, row in zip(margins, softmax(logits, axis=1), strict=True)
        ]

    def find(self, images: np.ndarray) -> list[Findings]:
        """Each class of each image as a separate question, from embeddings (n, d)."""
        margins = zero_shot_scores.margins_of_images(self.encoder, images, self.question.classes)
        scores = margins * self.encoder.scale
        probabilities = expit(self._logits(images, scores) / self.temperature)
        return [
            {
                name: self._finding(name, float(score), float(probability))
                for name, score, probability in zip(self.names, row, values, strict=True)
            }
            for row, values in zip(scores, probabilities, strict=True)
        ]

    def _logits(self, images: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Of a model of the sigmoid loss, a probability is that of the positive prompts alone."""
        if self.encoder.bias is None:
            return scores
        return self._positive_margins(images) * self.encoder.scale + self.encoder.bias

    def _positive_margins(self, images: np.ndarray) -> np.ndarray:
        positive = {
            name: Prompts(positive=prompts.positive) for name, prompts in self.question.classes.items()
        }
        return zero_shot_scores.margins_of_images(self.encoder, images, positive)

    def _finding(self, name: str, score: float, probability: float) -> Finding:
        decisions = self.question.decisions
        threshold = decisions.thresholds.get(name) if decisions is not None else None
        has_probability = self.encoder.bias is not None or bool(self.question.classes[name].negative)
        return Finding(
            score=score,
            probability=probability if has_probability else None,
            threshold=threshold,
            threshold_probability=None if threshold is None else self._as_probability(name, threshold),
            present=None if threshold is None else score >= threshold,
        )

    def _as_probability(self, name: str, threshold: float) -> float | None:
        opposed = bool(self.question.classes[name].negative)
        if opposed == (self.encoder.bias is not None):  # two different margins, or no probability
            return None
        return float(expit((threshold + (self.encoder.bias or 0.0)) / self.temperature))
