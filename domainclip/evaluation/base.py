"""Contract of a probe: evaluation set, metric, result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset

from domainclip.data.cards import Card, Prompts
from domainclip.data.interfaces import Encoder
from domainclip.registry import Component


@dataclass(frozen=True)
class EvaluationSet:
    """The items that a probe measures on: one split of one corpus, with its card."""

    name: str  # as it stands in the report, "test" or "general"
    items: Dataset  # the columns above
    card: Card
    classes: dict[str, Prompts]  # what zero-shot chooses among; empty when the corpus has no classes
    # The other splits of the same corpus, for probes that fit something: never the measured items. None on
    # a set that is for evaluation only.
    train: Dataset | None = None
    validation: Dataset | None = None
    # What the ledger counts its readings under; empty for a set that nobody counts.
    fingerprint: str = ""  # of its corpus
    split: str = ""  # train, validation, test, or all


@dataclass(frozen=True)
class Metric:
    """One metric as the scores per item that it is computed from, so that it can be resampled.

    `aggregate(scores, weights)` takes the scores (n, ...) and bootstrap weights (r, n), how often each
    item was drawn, and gives the r values of the figure, NaN where it is undefined.
    """

    name: str
    ids: Sequence[str]  # (n,)
    groups: Sequence[str]  # (n,) what is resampled together: the patient, the object
    scores: np.ndarray  # (n, ...)
    aggregate: Callable[[np.ndarray, np.ndarray], np.ndarray]
    higher_is_better: bool = True
    chance: float | None = None  # what a model that knows nothing reaches
    # "share" lies between 0 and 1; "rank", "distance", "correlation", "cosine" and "ratio" do not.
    unit: str = "share"
    # False for what only describes, and for figures with a bias that grows with the noise: the worst of
    # several cells, a gap between them, a calibration error. Their difference is shown, and called nothing.
    judged: bool = True


@dataclass(frozen=True)
class ProbeResult:
    """The metrics of one probe on one set; `details` is JSON and goes into the protocol box."""

    probe: str
    dataset: str
    metrics: list[Metric]
    primary: str  # the name of the metric that selects and headlines
    version: int
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    # What the figures mean, in words, where that depends on the model: two meanings are not compared.
    meaning: str = ""


class Probe(Component, ABC):
    """One measurement of a model. One file of probes/ each."""

    version: ClassVar[int] = 1  # raised with every change of a metric: two versions are not compared

    @abstractmethod
    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """The metrics of a model on one set, each from scores per item."""


RETENTION = "general"  # the name of the set that shows what was forgotten
