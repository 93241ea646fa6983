"""Prompt presets: published zero-shot protocols, each with its version."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.data.text.negation import comparable_text, names_normal_class
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.labels import label_matrix
from domainclip.evaluation.metrics.zero_shot_scores import PromptEnsemble, class_margins, margins_by_template

if TYPE_CHECKING:
    from datasets import Dataset

Preset = Literal[
    "normalise_mean_normalise", "raw_mean", "mean_of_scores", "bare", "cxr.chexzero", "cxr.biovil"
]
VERSIONS: Mapping[Preset, int] = {
    "normalise_mean_normalise": 1,
    "raw_mean": 1,
    "mean_of_scores": 1,
    "bare": 1,
    "cxr.chexzero": 2,
    "cxr.biovil": 1,
}
# The labels that the headline AUROC of CheXzero averages [doi:10.1038/s41551-022-00936-9].
_COMPETITION = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural effusion")
# hi-ml's own zero-shot test of BioViL [arXiv:2204.09817].
_PNEUMONIA = Prompts(
    positive=[
        "Findings consistent with pneumonia",
        "Findings suggesting pneumonia",
        "This opacity can represent pneumonia",
        "Findings are most compatible with pneumonia",
    ],
    negative=[
        "There is no pneumonia",
        "No evidence of pneumonia",
        "No evidence of acute pneumonia",
        "No signs of pneumonia",
    ],
)


@dataclass(frozen=True)
class ZeroShotTask:
    """Classes, prompts and ensemble of a preset. `binary`: a yes-or-no task per class, whatever the card."""

    classes: dict[str, Prompts]
    ensemble: PromptEnsemble
    binary: bool = False
    labels: dict[str, list[str]] = field(default_factory=dict)  # class -> its labels in the corpus
    headline: Sequence[str] = ()  # classes that the headline metric averages; empty: all
    normal_class: str | None = None  # the class that holds when no other does, such as "no finding"

    def scores(self, encoder: Encoder, items: Dataset) -> np.ndarray:
        """(n, c) margins of the items."""
        return self._with_absence(class_margins(encoder, items, self.classes, self.ensemble))

    def by_template(self, encoder: Encoder, items: Dataset) -> list[np.ndarray]:
        """(n, c) margins of the items for each template."""
        return [self._with_absence(margins) for margins in margins_by_template(encoder, items, self.classes)]

    def _with_absence(self, margins: np.ndarray) -> np.ndarray:
        if self.normal_class is not None and len(self.classes) > 1:
            column = list(self.classes).index(self.normal_class)
            margins[:, column] = -np.delete(margins, column, axis=1).max(axis=1)
        return margins

    def truth(self, items: Dataset) -> np.ndarray:
        """(n, c) of 1, 0 and NaN: a class holds when one of its labels does."""
        columns = []
        for name in self.classes:
            held = label_matrix(items, self.labels.get(name, [name]), implied=True)
            holds, unknown = (held == 1).any(axis=1), np.isnan(held).any(axis=1)
            columns.append(np.where(holds, 1.0, np.where(unknown, np.nan, 0.0)))
        return np.stack(columns, axis=1)


def zero_shot_task(preset: Preset, data: EvaluationSet) -> ZeroShotTask:
    """The classes and prompts of a preset for the classes of a set."""
    classes = data.classes
    if preset == "bare":
        return ZeroShotTask({name: Prompts(positive=[name]) for name in classes}, "normalise_mean_normalise")
    if preset == "cxr.chexzero":
        return _chexzero(classes)
    if preset == "cxr.biovil":
        names = [name for name in classes if re.search(r"\bpneumonia\b", comparable_text(name))]
        prompts = {"pneumonia": _PNEUMONIA} if names else {}
        return ZeroShotTask(prompts, "raw_mean", binary=True, labels={"pneumonia": names})
    return ZeroShotTask(classes, preset)


def _chexzero(classes: Mapping[str, Prompts]) -> ZeroShotTask:
    by_class, normal_class = {}, None
    for name, prompts in classes.items():
        class_text = name.replace("_", " ")
        if not names_normal_class(name):
            by_class[name] = Prompts(positive=[class_text], negative=[f"no {class_text}"])
        elif prompts.negative:
            by_class[name] = prompts
        else:
            by_class[name], normal_class = Prompts(positive=[class_text]), name
    competition = [name for name in classes if comparable_text(name) in _COMPETITION]
    headline = competition if len(competition) == len(_COMPETITION) else ()
    return ZeroShotTask(
        by_class, "normalise_mean_normalise", binary=True, headline=headline, normal_class=normal_class
    )
