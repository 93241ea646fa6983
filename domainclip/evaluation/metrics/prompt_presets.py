"""The named ways to ask zero-shot questions, as others publish them: prompts are data, with a version."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.data.text.captions import normalise
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.labels import several_classes
from domainclip.evaluation.metrics.zero_shot_scores import PromptEnsemble, by_template, class_margins

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
# The labels whose mean CheXzero reports [doi:10.1038/s41551-022-00936-9].
_COMPETITION = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural effusion")
# "no No Finding" asks for the opposite: it once gave an AUROC of 0.07.
_NORMAL = re.compile(
    r"no (\w+ )?(findings?|abnormality|abnormalities)|(normal|healthy|unremarkable)"
    r"( (chest|lungs?|heart|brain|eyes?|fundus|retina|skin|tissue|mucosa|control|study|exam|examination"
    r"|image|scan|film|radiograph|x ray|xray|cxr|ct|mri))*|(chest|lungs?) normal"
)
_NEGATION = r"(?:no|not|without)"
# "no evidence of no finding" is one, "no fluid and no air" is none: only what hands the negation on may stand
# between the two.
_TWICE = re.compile(
    rf"\b(?:{_NEGATION}|absence of|negative for|free of)\s+"
    r"(?:(?:\w+\s+){0,2}(?:evidence|signs?|indications?|suggestions?|presence|features?|findings?)\s+(?:of|for)\s+)?"
    rf"(?:(?:any|an?|the)\s+)?{_NEGATION}\b"
)
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
class Questions:
    """What is asked of a set. With `yes_no`, each class is a question of its own, whatever the card says."""

    classes: dict[str, Prompts]
    ensemble: PromptEnsemble
    yes_no: bool = False
    labels: dict[str, list[str]] = field(default_factory=dict)  # class -> the corpus's labels that count
    averaged: Sequence[str] = ()  # the classes of the headline; empty: all
    absence: str | None = None  # the class that holds when no other does

    def scores(self, encoder: Encoder, data: EvaluationSet, on: str = "items") -> np.ndarray:
        """(n, c) margins of the items, or of another split."""
        return self._with_absence(class_margins(encoder, getattr(data, on), self.classes, self.ensemble))

    def by_template(self, encoder: Encoder, data: EvaluationSet) -> list[np.ndarray]:
        """(n, c) margins of the items by one template at a time."""
        return [self._with_absence(one) for one in by_template(encoder, data.items, self.classes)]

    def _with_absence(self, found: np.ndarray) -> np.ndarray:
        if self.absence is not None and len(self.classes) > 1:
            place = list(self.classes).index(self.absence)
            found[:, place] = -np.delete(found, place, axis=1).max(axis=1)
        return found

    def truth(self, data: EvaluationSet, on: str = "items") -> np.ndarray:
        """(n, c) of 1, 0 and NaN: a class holds when one of its labels does."""
        columns = []
        for name in self.classes:
            each = several_classes(getattr(data, on), self.labels.get(name, [name]))
            holds, unknown = (each == 1).any(axis=1), np.isnan(each).any(axis=1)
            columns.append(np.where(holds, 1.0, np.where(unknown, np.nan, 0.0)))
        return np.stack(columns, axis=1)


def plain(text: str) -> str:
    """As it is compared: no case, and words that "_" or "-" join stand apart."""
    return normalise(re.sub(r"(?<=\w)[_-]+(?=\w)|_+", " ", text))


def negates_twice(prompt: str) -> bool:
    """Whether a prompt says "no No Finding", however it is spelled."""
    return bool(_TWICE.search(plain(prompt)))


def questions(preset: Preset, data: EvaluationSet) -> Questions:
    """What the preset asks about the classes of a set."""
    given = data.classes
    if preset == "bare":
        return Questions({name: Prompts(positive=[name]) for name in given}, "normalise_mean_normalise")
    if preset == "cxr.chexzero":
        return _chexzero(given)
    if preset == "cxr.biovil":
        meant = [name for name in given if re.search(r"\bpneumonia\b", plain(name))]
        asked = {"pneumonia": _PNEUMONIA} if meant else {}
        return Questions(asked, "raw_mean", yes_no=True, labels={"pneumonia": meant})
    return Questions(given, preset)


def _chexzero(given: Mapping[str, Prompts]) -> Questions:
    asked, absence = {}, None
    for name, prompts in given.items():
        words = name.replace("_", " ")
        if not _NORMAL.fullmatch(plain(name)):
            asked[name] = Prompts(positive=[words], negative=[f"no {words}"])
        elif prompts.negative:
            asked[name] = prompts
        else:
            asked[name], absence = Prompts(positive=[words]), name
    competition = [name for name in given if plain(name) in _COMPETITION]
    averaged = competition if len(competition) == len(_COMPETITION) else ()
    return Questions(asked, "normalise_mean_normalise", yes_no=True, averaged=averaged, absence=absence)
