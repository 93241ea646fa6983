"""Zero-shot classification: the class whose prompts are nearest to the image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from scipy.special import expit

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.data.text.negation import has_double_negation
from domainclip.errors import RecipeError
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics import (
    class_diagnostics,
    class_parts,
    decisions,
    macro,
    operating_points,
    results,
    zero_shot_metrics,
    zero_shot_scores,
)
from domainclip.evaluation.metrics import labels as metrics_labels
from domainclip.evaluation.metrics.class_hierarchy import ClassHierarchy
from domainclip.evaluation.metrics.prompt_presets import (
    VERSIONS,
    Preset,
    ZeroShotTask,
    zero_shot_task,
)
from domainclip.evaluation.statistics import aggregates

_SHOWN = 30  # classes whose prompts are listed in the details; the hash covers all
_MAX_AUROCS = 64  # AUROCs that a spread over templates may compute


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Probe):
    """Zero-shot classification by the class prompts nearest to the image. [arXiv:2103.00020]

    Single-label: accuracy, macro accuracy, macro F1, and of each class recall, precision, F1 and AUROC; the
    true class counts 1/t when t classes tie at the top; to the AUROC of a class, items of the classes that
    imply it (`implied_classes` of the card) are positive. Multi-label (`multi_label` in the card), or a
    preset of yes-or-no tasks: AUROC, AUPRC and sensitivity at 90 and 95 % specificity of each class, from the
    cosine with its positive prompts minus that with its negative ones [doi:10.1038/s41551-022-00936-9]; as a
    description, sensitivity, specificity and predictive values at a threshold chosen on validation.
    Legend: n items, c classes, k templates.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    version: ClassVar[int] = 4
    classifies: ClassVar[bool] = True

    # The prompts of a class: those of the card, in one of three ensembles; the bare name of the class; or the
    # prompts of a published protocol.
    preset: Preset = "normalise_mean_normalise"
    # Adds macro F1, AUROC and AUPRC as scikit-learn and torchmetrics average them, where classes are absent.
    library_means: bool = False

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Accuracy, or AUROC for multi-label and yes-or-no tasks.

        Raises: RecipeError for prompts with a double negation.
        """
        task = zero_shot_task(self.preset, data)
        _refuse_double_negation(task.classes)
        several = data.card.multi_label or task.binary
        if len(task.classes) < (1 if several else 2):
            missing = "classes" if several else "two classes to choose among"
            return results.not_measured("zero_shot", data, self.version, missing)
        if task.ensemble == "raw_mean" and not encoder.has_raw_texts:
            raw = "text embeddings before normalisation"
            return results.not_measured("zero_shot", data, self.version, raw)
        return self._several(encoder, data, task) if several else self._single(encoder, data, task)

    def _single(self, encoder: Encoder, data: EvaluationSet, task: ZeroShotTask) -> ProbeResult:
        names = list(task.classes)
        rows, truth = metrics_labels.single_label_items(data.items, names)
        if not len(rows):
            return results.not_measured(
                "zero_shot", data, self.version, "items with exactly one of the classes"
            )
        positives = {name: Prompts(positive=task.classes[name].positive) for name in names}
        scores = zero_shot_scores.class_margins(encoder, data.items, positives, task.ensemble)[rows]
        hits, chance = decisions.top_k_hits(scores, truth), 1 / len(names)
        hierarchy = ClassHierarchy.of(names, data.card.implied_classes)
        odds, labels = hierarchy.log_odds(scores * encoder.scale), hierarchy.labels(truth)
        metric = partial(results.metric, items=data.items, rows=rows)
        shares = decisions.top1_shares(scores)
        metrics = [
            *macro.macro_accuracy(data.items, rows, hits, truth, np.full(len(rows), chance)),
            metric(name="accuracy", scores=hits, aggregate=aggregates.mean, chance=chance),
            *macro.macro_f1(data.items, rows, shares, truth, self.library_means),
        ]
        if len(names) > 10:  # of fewer classes, five are half or more
            top5 = decisions.top_k_hits(scores, truth, 5)
            metrics.append(
                metric(name="top5_accuracy", scores=top5, aggregate=aggregates.mean, chance=5 * chance)
            )
        by_template = [
            decisions.top_k_hits(margins[rows], truth)
            for margins in zero_shot_scores.margins_by_template(encoder, data.items, positives)
        ]
        metrics += zero_shot_metrics.template_spread("accuracy", metric, by_template, aggregates.mean, chance)
        metrics += class_parts.recalls(data.items, names, rows, hits, truth, np.full(len(names), chance))
        metrics += class_parts.one_against_others(data.items, names, rows, odds, labels)
        metrics += class_parts.answer_rates(data.items, names, rows, shares, truth, data.card.prevalence)
        details = self._details(data, task) | {
            "items_without_exactly_one_class": len(data.items) - len(rows),
            "classes_without_items": len(names) - len(set(truth.tolist())),
            "answers_to_classes_without_items": _answers_without_items(names, shares, truth),
        }
        warnings = _rare_class_warnings(
            data, names, np.bincount(truth, minlength=len(names)), "macro accuracy", "items"
        )
        return ProbeResult(
            "zero_shot",
            data.name,
            metrics,
            macro.headline(truth),
            self.version,
            details,
            warnings,
            diagnostics=class_diagnostics.of_single_label(
                names, data.items, rows, shares, odds, truth, labels
            ),
        )

    def _several(self, encoder: Encoder, data: EvaluationSet, task: ZeroShotTask) -> ProbeResult:
        names, labels = list(task.classes), task.truth(data.items)
        two_sided = [i for i in range(len(names)) if {0.0, 1.0} <= set(labels[:, i])]
        undefined = [name for i, name in enumerate(names) if i not in two_sided]
        warnings = []
        if undefined:
            listed = ", ".join(f'"{name}"' for name in undefined)
            warnings.append(f"zero_shot on {data.name}: no AUROC for {listed}: all items have the same label")
        all_of = [i for i in two_sided if not task.headline or names[i] in task.headline]
        if not all_of:
            missing = "classes with both positive and negative items"
            return results.not_measured("zero_shot", data, self.version, missing)
        sides = metrics_labels.groups_with_and_without(labels[:, all_of], data.items["group"])
        mean_of = all_of
        if not task.headline:  # a published mean is over the published classes
            frequent = metrics_labels.frequent_classes(sides)
            mean_of = [i for i, keep in zip(all_of, frequent, strict=True) if keep]
            warnings += _rare_class_warnings(
                data, [names[i] for i in all_of], sides, "macro AUROC", "groups with and without them"
            )
        scores = self._answer(encoder, task.scores(encoder, data.items), task)
        thresholds = self._thresholds(encoder, data, task)
        metrics = zero_shot_metrics.auroc_and_auprc(
            data.items, names, scores, labels, mean_of, all_of, two_sided
        )
        by_template = [margins[:, mean_of] for margins in task.by_template(encoder, data.items)]
        if len(by_template) * len(mean_of) <= _MAX_AUROCS:
            mean_area = partial(aggregates.macro_auroc, labels=labels[:, mean_of])
            everyone = partial(results.metric, items=data.items, rows=np.arange(len(data.items)))
            metrics += zero_shot_metrics.template_spread("auroc", everyone, by_template, mean_area, 0.5)
        metrics += zero_shot_metrics.sensitivity_at_specificities(data.items, names, scores, labels, mean_of)
        metrics += self._at_thresholds(encoder, data, task, scores, labels, thresholds, two_sided)
        if self.library_means:
            metrics += macro.library_areas(data.items, scores, labels)
        details = self._details(data, task) | {
            "averaged_over": [names[i] for i in mean_of],
            "positive_items": {names[i]: int(np.nansum(labels[:, i])) for i in two_sided},
            "unknown_items": {names[i]: int(np.isnan(labels[:, i]).sum()) for i in two_sided},
            "thresholds": thresholds or "not chosen: no validation split with both kinds of items",
            "thresholds_chosen_by": "largest sensitivity + specificity on validation (Youden)",
        }
        return ProbeResult(
            "zero_shot",
            data.name,
            metrics,
            "macro_auroc",
            self.version,
            details,
            warnings,
            diagnostics=class_diagnostics.of_multi_label(names, data.items, scores, labels, thresholds),
        )

    def _answer(self, encoder: Encoder, margins: np.ndarray, task: ZeroShotTask) -> np.ndarray:
        """Published protocols apply a softmax to two unscaled cosines; otherwise the margin in logits."""
        answers: np.ndarray = expit(margins) if task.binary else margins * encoder.scale
        return answers

    def _at_thresholds(
        self,
        encoder: Encoder,
        data: EvaluationSet,
        task: ZeroShotTask,
        scores: np.ndarray,
        labels: np.ndarray,
        thresholds: Mapping[str, float],
        two_sided: Sequence[int],
    ) -> list[Metric]:
        """Rates at the thresholds of the two-sided classes that have one."""
        names = list(task.classes)
        columns = [i for i in two_sided if names[i] in thresholds]
        if not columns or data.validation is None:
            return []
        answers = operating_points.answers_at_thresholds(
            scores[:, columns],
            np.array([thresholds[names[i]] for i in columns]),
            self._answer(encoder, task.scores(encoder, data.validation), task)[:, columns],
            task.truth(data.validation)[:, columns],
            list(data.validation["group"]),
        )
        return operating_points.rates_at_thresholds(
            data.items, [names[i] for i in columns], answers, labels[:, columns], data.card.prevalence
        )

    def _thresholds(self, encoder: Encoder, data: EvaluationSet, task: ZeroShotTask) -> dict[str, float]:
        if data.validation is None or not len(data.validation):
            return {}
        scores = self._answer(encoder, task.scores(encoder, data.validation), task)
        labels = task.truth(data.validation)
        thresholds = {
            name: decisions.youden_threshold(scores[:, i], labels[:, i])
            for i, name in enumerate(task.classes)
        }
        return {name: value for name, value in thresholds.items() if value is not None}

    def _details(self, data: EvaluationSet, task: ZeroShotTask) -> dict[str, Any]:
        prompts = {name: value.model_dump() for name, value in task.classes.items()}
        text = json.dumps(prompts, sort_keys=True, ensure_ascii=False)
        from_card = task.classes == data.classes
        details = {
            "preset": self.preset,
            "preset_version": VERSIONS[self.preset],
            "ensemble": task.ensemble,
            "classes": len(prompts),
            "prompts_version": data.card.prompts_version if from_card else None,
            "prompts_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "prompts": dict(list(prompts.items())[:_SHOWN]),
        }
        if task.normal_class is not None:
            details["scored_as_absence_of_the_others"] = task.normal_class
        return details | ({"labels_that_count": task.labels} if task.labels else {})


def _answers_without_items(names: Sequence[str], shares: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The number of answers of each class that no item has, where it is not 0; ties count in parts."""
    absent = np.setdiff1d(np.arange(len(names)), truth)
    return {names[i]: round(float(shares[:, i].sum()), 4) for i in absent if shares[:, i].any()}


def _rare_class_warnings(
    data: EvaluationSet, names: Sequence[str], counts: np.ndarray, metric_name: str, unit: str
) -> list[str]:
    """A warning that names the classes that a macro mean leaves out, since they are rare."""
    left_out = (counts > 0) & ~metrics_labels.frequent_classes(counts)
    rare = [f'"{name}" ({count})' for name, count in zip(names, counts, strict=True) if count]
    rare = [text for text, out in zip(rare, left_out[counts > 0], strict=True) if out]
    if not rare:
        return []
    more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
    return [
        f"zero_shot on {data.name}: {metric_name} leaves out classes with fewer than {results.MIN_ITEMS} "
        f"{unit}: {', '.join(rare[:5])}{more}"
    ]


def _refuse_double_negation(classes: dict[str, Prompts]) -> None:
    # A template around a negative class name gives "no No Finding", which once led to an AUROC of 0.07.
    for name, prompts in classes.items():
        for prompt in [*prompts.positive, *prompts.negative]:
            if has_double_negation(prompt):
                raise RecipeError(
                    f'classes.{name}: prompt "{prompt}" negates twice: write this class\'s prompts out'
                )
