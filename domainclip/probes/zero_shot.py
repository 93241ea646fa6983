"""Classification by prompts alone, without having seen a labelled example."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from domainclip import statistics
from domainclip.contracts import Encoder, EvaluationSet, Metric, Results
from domainclip.data.cards import Prompts
from domainclip.errors import RecipeError

# Classes with fewer items get no figure of their own: it would say little, and may point at a person.
_MIN_ITEMS = 10
_SHOWN = 30  # classes whose prompts are written out; the hash covers them all


@dataclass(frozen=True, kw_only=True)
class ZeroShot:
    """Which class's prompts lie nearest to the image. [arXiv:2103.00020]

    One class an item: accuracy and its mean over the classes, with the truth counted as 1/t when t classes
    tie at the top. Several (`multi_label` in the card): AUROC of each class, from the cosine with its
    positive prompts less that with its negative ones [doi:10.1038/s41551-022-00936-9].
    Legend: n items, c classes, d width.
    """

    citation: ClassVar[str] = "arXiv:2103.00020"
    version: ClassVar[int] = 1

    # How the prompts of a class become one: the mean of unit vectors, made unit again (CLIP, open_clip),
    # or the mean of the cosines (MedCLIP), which favours classes whose prompts agree.
    ensemble: Literal["normalise_mean_normalise", "mean_of_scores"] = "normalise_mean_normalise"

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> Results:
        """Accuracy, or AUROC when the card says `multi_label`.

        Raises: RecipeError for prompts with a double negation.
        """
        _refuse_double_negation(data.classes)
        if len(data.classes) < (1 if data.card.multi_label else 2):
            few = "classes" if data.card.multi_label else "two classes to choose among"
            return _nothing(data, self.version, few)
        return self._several(encoder, data) if data.card.multi_label else self._single(encoder, data)

    def _single(self, encoder: Encoder, data: EvaluationSet) -> Results:
        names = list(data.classes)
        place = {name: i for i, name in enumerate(names)}
        held = [[place[label] for label in labels if label in place] for labels in data.items["labels"]]
        rows = np.array([row for row, classes in enumerate(held) if len(classes) == 1], dtype=int)
        if not len(rows):
            return _nothing(data, self.version, "items with exactly one of the classes")
        truth = np.array([held[row][0] for row in rows])
        cosines = self._cosines(encoder, data, [data.classes[name].positive for name in names])[rows]
        top = cosines == cosines.max(axis=1, keepdims=True)
        hits = top[np.arange(len(rows)), truth] / top.sum(axis=1)

        chance = 1 / len(names)
        macro = partial(statistics.macro_mean, classes=truth)
        metrics = [
            _metric("macro_accuracy", data, rows, hits, macro, chance),
            _metric("accuracy", data, rows, hits, statistics.mean, chance),
        ]
        for i, name in enumerate(names):
            of_class = truth == i
            if of_class.sum() >= _MIN_ITEMS:
                own = _metric(
                    f"accuracy/{name}", data, rows[of_class], hits[of_class], statistics.mean, chance
                )
                metrics.append(own)
        details = self._details(data) | {
            "items_without_exactly_one_class": len(data.items) - len(rows),
            "classes_without_items": len(names) - len(set(truth.tolist())),
        }
        warnings = _rare(data, names, np.bincount(truth, minlength=len(names)))
        return Results("zero_shot", data.name, metrics, "macro_accuracy", self.version, details, warnings)

    def _several(self, encoder: Encoder, data: EvaluationSet) -> Results:
        names = list(data.classes)
        scores = self._cosines(encoder, data, [data.classes[name].positive for name in names])
        opposed = [i for i, name in enumerate(names) if data.classes[name].negative]
        if opposed:
            negatives = [data.classes[names[i]].negative for i in opposed]
            scores[:, opposed] -= self._cosines(encoder, data, negatives)
        scores = np.round(scores, 6) * encoder.scale
        labels = _labels(data, names)
        both = [i for i in range(len(names)) if {0.0, 1.0} <= set(labels[:, i])]
        undefined = [name for i, name in enumerate(names) if i not in both]
        warnings = []
        if undefined:
            listed = ", ".join(f'"{name}"' for name in undefined)
            warnings.append(f"zero_shot on {data.name}: no AUROC for {listed}: all items are of one kind")
        if not both:
            return _nothing(data, self.version, "classes with both positive and negative items")

        everyone = np.arange(len(data.items))
        macro = partial(statistics.macro_auroc, labels=labels[:, both])
        metrics = [_metric("macro_auroc", data, everyone, scores[:, both], macro, 0.5)]
        for i in both:
            known = np.flatnonzero(~np.isnan(labels[:, i]))
            single = partial(statistics.auroc, labels=labels[known, i])
            metrics.append(_metric(f"auroc/{names[i]}", data, known, scores[known, i], single, 0.5))
        details = self._details(data) | {
            "positive_items": {names[i]: int(np.nansum(labels[:, i])) for i in both},
            "unknown_items": {names[i]: int(np.isnan(labels[:, i]).sum()) for i in both},
        }
        return Results("zero_shot", data.name, metrics, "macro_auroc", self.version, details, warnings)

    def _cosines(self, encoder: Encoder, data: EvaluationSet, prompts: list[list[str]]) -> np.ndarray:
        """(n, c). Rounded, for single-precision towers do not mean more than six digits: closer is a tie."""
        vectors = encoder.texts([text for texts in prompts for text in texts]).astype(np.float64)
        ends = np.cumsum([len(texts) for texts in prompts])
        means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])])
        if self.ensemble == "normalise_mean_normalise":
            means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        cosines: np.ndarray = np.round(encoder.images(data.items).astype(np.float64) @ means.T, 6)
        return cosines

    def _details(self, data: EvaluationSet) -> dict[str, Any]:
        prompts = {name: value.model_dump() for name, value in data.classes.items()}
        text = json.dumps(prompts, sort_keys=True, ensure_ascii=False)
        return {
            "ensemble": self.ensemble,
            "classes": len(prompts),
            "prompts_version": data.card.prompts_version,
            "prompts_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "prompts": dict(list(prompts.items())[:_SHOWN]),
        }


def _rare(data: EvaluationSet, names: Sequence[str], counts: np.ndarray) -> list[str]:
    """A class of one item weighs as much in the macro accuracy as a class of a hundred."""
    few = [f'"{name}" ({count})' for name, count in zip(names, counts, strict=True) if 0 < count < _MIN_ITEMS]
    if not few or counts.max() < _MIN_ITEMS:  # a set with few items of every class is even, not lopsided
        return []
    more = f" and {len(few) - 5} more" if len(few) > 5 else ""
    return [f"zero_shot on {data.name}: macro accuracy rests on few items of {', '.join(few[:5])}{more}"]


def _labels(data: EvaluationSet, names: Sequence[str]) -> np.ndarray:
    """(n, c) of 1 and 0, NaN where the item's meta names the class under `unknown_labels`."""
    labels = np.zeros((len(data.items), len(names)))
    place = {name: i for i, name in enumerate(names)}
    for row, (holding, meta) in enumerate(zip(data.items["labels"], data.items["meta"], strict=True)):
        labels[row, [place[name] for name in holding if name in place]] = 1.0
        unknown = json.loads(meta or "{}").get("unknown_labels", [])
        labels[row, [place[name] for name in unknown if name in place]] = np.nan
    return labels


def _metric(
    name: str,
    data: EvaluationSet,
    rows: np.ndarray,
    scores: np.ndarray,
    aggregate: statistics.Aggregate,
    chance: float,
) -> Metric:
    ids, groups = list(data.items["id"]), list(data.items["group"])
    return Metric(name, [ids[i] for i in rows], [groups[i] for i in rows], scores, aggregate, chance=chance)


def _nothing(data: EvaluationSet, version: int, missing: str) -> Results:
    return Results("zero_shot", data.name, [], "", version, {"not_measured": f"there are no {missing}"})


def _refuse_double_negation(classes: dict[str, Prompts]) -> None:
    # A template around a negative class name gives "no No Finding"; it once made an AUROC of 0.07.
    for name, prompts in classes.items():
        for prompt in [*prompts.positive, *prompts.negative]:
            if re.search(r"\b(no|not|without)\s+(no|not|without)\b", prompt, re.IGNORECASE):
                raise RecipeError(
                    f'classes.{name}: prompt "{prompt}" negates twice: write this class\'s prompts out'
                )
