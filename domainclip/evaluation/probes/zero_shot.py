"""Classification by prompts alone, without having seen a labelled example."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.errors import RecipeError
from domainclip.evaluation.base import EvaluationSet, Probe, ProbeResult
from domainclip.evaluation.metrics import class_metrics, decisions, results, zero_shot_scores
from domainclip.evaluation.metrics import labels as metrics_labels
from domainclip.evaluation.metrics.prompt_presets import VERSIONS, Preset, Questions, negates_twice, questions
from domainclip.evaluation.statistics import aggregates

_SHOWN = 30  # classes whose prompts are written out; the hash covers them all
_TURNS = 64  # AUROCs that a spread over templates may cost


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Probe):
    """Which class's prompts lie nearest to the image. [arXiv:2103.00020]

    One class an item: accuracy, macro accuracy and macro F1, with the truth counted as 1/t when t classes tie
    at the top. Several (`multi_label` in the card), or a preset of yes-or-no questions: AUROC and AUPRC of
    each class, from the cosine with its positive prompts less that with its negative ones
    [doi:10.1038/s41551-022-00936-9]; sensitivity and specificity at a threshold chosen on validation.
    Legend: n items, c classes, k templates.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    version: ClassVar[int] = 2

    # How prompts become a class: three ways to join the card's own, the bare name of the class, or the
    # protocol of a published model, with its own prompts.
    preset: Preset = "normalise_mean_normalise"

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Accuracy, or AUROC for questions with several answers.

        Raises: RecipeError for prompts with a double negation.
        """
        asked = questions(self.preset, data)
        _refuse_double_negation(asked.classes)
        several = data.card.multi_label or asked.yes_no
        if len(asked.classes) < (1 if several else 2):
            few = "classes" if several else "two classes to choose among"
            return results.not_measured("zero_shot", data, self.version, few)
        if asked.ensemble == "raw_mean" and not hasattr(encoder, "raw_texts"):
            raw = "text embeddings as long as the tower makes them"
            return results.not_measured("zero_shot", data, self.version, raw)
        return self._several(encoder, data, asked) if several else self._single(encoder, data, asked)

    def _single(self, encoder: Encoder, data: EvaluationSet, asked: Questions) -> ProbeResult:
        names = list(asked.classes)
        rows, truth = metrics_labels.one_class(data.items, names)
        if not len(rows):
            return results.not_measured(
                "zero_shot", data, self.version, "items with exactly one of the classes"
            )
        positives = {name: Prompts(positive=asked.classes[name].positive) for name in names}
        scores = zero_shot_scores.class_margins(encoder, data.items, positives, asked.ensemble)[rows]
        hits, chance = decisions.top_k_hits(scores, truth), 1 / len(names)
        metric = partial(results.metric, items=data.items, rows=rows)
        macro_f1 = partial(aggregates.macro_f1, classes=truth)
        guess = aggregates.point_estimate(macro_f1, np.full(scores.shape, chance))
        metrics = [
            metric(
                name="macro_accuracy",
                scores=hits,
                aggregate=partial(aggregates.macro_mean, classes=truth),
                chance=chance,
            ),
            metric(name="accuracy", scores=hits, aggregate=aggregates.mean, chance=chance),
            metric(name="macro_f1", scores=decisions.top1_shares(scores), aggregate=macro_f1, chance=guess),
        ]
        if len(names) > 5:
            top = decisions.top_k_hits(scores, truth, 5)
            metrics.append(
                metric(name="top5_accuracy", scores=top, aggregate=aggregates.mean, chance=5 * chance)
            )
        by_template = [
            decisions.top_k_hits(one[rows], truth)
            for one in zero_shot_scores.by_template(encoder, data.items, positives)
        ]
        metrics += class_metrics.spread("accuracy", metric, by_template, aggregates.mean, chance)
        for i, name in enumerate(names):
            own = truth == i
            if own.sum() >= results.MIN_ITEMS:
                part = results.metric(
                    f"accuracy/{name}", data.items, rows[own], hits[own], aggregates.mean, chance
                )
                metrics.append(part)
        details = self._details(data, asked) | {
            "items_without_exactly_one_class": len(data.items) - len(rows),
            "classes_without_items": len(names) - len(set(truth.tolist())),
        }
        warnings = _rare(data, names, np.bincount(truth, minlength=len(names)), "macro accuracy")
        return ProbeResult("zero_shot", data.name, metrics, "macro_accuracy", self.version, details, warnings)

    def _several(self, encoder: Encoder, data: EvaluationSet, asked: Questions) -> ProbeResult:
        names, labels = list(asked.classes), asked.truth(data)
        both = [i for i in range(len(names)) if {0.0, 1.0} <= set(labels[:, i])]
        undefined = [name for i, name in enumerate(names) if i not in both]
        warnings = []
        if undefined:
            listed = ", ".join(f'"{name}"' for name in undefined)
            warnings.append(f"zero_shot on {data.name}: no AUROC for {listed}: all items are of one kind")
        mean_of = [i for i in both if not asked.averaged or names[i] in asked.averaged]
        if not mean_of:
            missing = "classes with both positive and negative items"
            return results.not_measured("zero_shot", data, self.version, missing)
        scores = self._answer(encoder, asked.scores(encoder, data), asked)
        thresholds = self._thresholds(encoder, data, asked)
        metrics = class_metrics.areas(data.items, names, scores, labels, mean_of, both)
        by_template = [one[:, mean_of] for one in asked.by_template(encoder, data)]
        if len(by_template) * len(mean_of) <= _TURNS:
            macro = partial(aggregates.macro_auroc, labels=labels[:, mean_of])
            everyone = partial(results.metric, items=data.items, rows=np.arange(len(data.items)))
            metrics += class_metrics.spread("auroc", everyone, by_template, macro, 0.5)
        sides = np.stack([(labels == 1).sum(axis=0), (labels == 0).sum(axis=0)]).min(axis=0)
        warnings += _rare(data, [names[i] for i in mean_of], sides[mean_of], "macro AUROC")
        decided = [i for i in both if names[i] in thresholds]
        limits = np.array([thresholds[names[i]] for i in decided])
        metrics += class_metrics.answers(
            data.items, [names[i] for i in decided], scores[:, decided], labels[:, decided], limits
        )
        details = self._details(data, asked) | {
            "averaged_over": [names[i] for i in mean_of],
            "positive_items": {names[i]: int(np.nansum(labels[:, i])) for i in both},
            "unknown_items": {names[i]: int(np.isnan(labels[:, i]).sum()) for i in both},
            "thresholds": thresholds or "not chosen: no validation split with both kinds of items",
            "thresholds_chosen_by": "largest sensitivity + specificity on validation (Youden)",
        }
        return ProbeResult("zero_shot", data.name, metrics, "macro_auroc", self.version, details, warnings)

    def _answer(self, encoder: Encoder, margins: np.ndarray, asked: Questions) -> np.ndarray:
        """The published protocols take the softmax of two bare cosines; else the margin in logits."""
        answers: np.ndarray = expit(margins) if asked.yes_no else margins * encoder.scale
        return answers

    def _thresholds(self, encoder: Encoder, data: EvaluationSet, asked: Questions) -> dict[str, float]:
        if data.validation is None or not len(data.validation):
            return {}
        scores = self._answer(encoder, asked.scores(encoder, data, "validation"), asked)
        labels = asked.truth(data, "validation")
        found = {
            name: decisions.youden_threshold(scores[:, i], labels[:, i])
            for i, name in enumerate(asked.classes)
        }
        return {name: value for name, value in found.items() if value is not None}

    def _details(self, data: EvaluationSet, asked: Questions) -> dict[str, Any]:
        prompts = {name: value.model_dump() for name, value in asked.classes.items()}
        text = json.dumps(prompts, sort_keys=True, ensure_ascii=False)
        own = asked.classes == data.classes
        details = {
            "preset": self.preset,
            "preset_version": VERSIONS[self.preset],
            "ensemble": asked.ensemble,
            "classes": len(prompts),
            "prompts_version": data.card.prompts_version if own else None,
            "prompts_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "prompts": dict(list(prompts.items())[:_SHOWN]),
        }
        if asked.absence is not None:
            details["scored_as_absence_of_the_others"] = asked.absence
        return details | ({"labels_that_count": asked.labels} if asked.labels else {})


def _rare(data: EvaluationSet, names: Sequence[str], counts: np.ndarray, figure: str) -> list[str]:
    """A class of one item weighs as much in a mean over classes as a class of a hundred."""
    least = results.MIN_ITEMS
    few = [f'"{name}" ({count})' for name, count in zip(names, counts, strict=True) if 0 < count < least]
    if not few or counts.max() < least:  # a set with few items of every class is even, not lopsided
        return []
    more = f" and {len(few) - 5} more" if len(few) > 5 else ""
    return [f"zero_shot on {data.name}: {figure} rests on few items of {', '.join(few[:5])}{more}"]


def _refuse_double_negation(classes: dict[str, Prompts]) -> None:
    # A template around a negative class name gives "no No Finding"; it once made an AUROC of 0.07.
    for name, prompts in classes.items():
        for prompt in [*prompts.positive, *prompts.negative]:
            if negates_twice(prompt):
                raise RecipeError(
                    f'classes.{name}: prompt "{prompt}" negates twice: write this class\'s prompts out'
                )
