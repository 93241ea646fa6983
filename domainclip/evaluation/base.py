"""Contract of a probe: evaluation set, metric, result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from domainclip.data.cards import Card, Prompts
from domainclip.data.interfaces import Encoder
from domainclip.evaluation.diagnostics import Diagnostics
from domainclip.evaluation.statistics.gallery_effects import GalleryEffects
from domainclip.registry import Component

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class EvaluationSet:
    """The items that a probe measures: one split of one corpus, with its card."""

    name: str  # as in the report: "test" or "general"
    items: Dataset  # with the columns of data.schema.COLUMNS
    card: Card
    classes: dict[str, Prompts]  # the classes of zero-shot classification; empty when the corpus has none
    # The other splits of the same corpus, for probes that fit something: never the measured items. None for
    # a set that is for evaluation only.
    train: Dataset | None = None
    validation: Dataset | None = None
    # The key under which `split_usage` counts evaluations; empty for a set that is not counted.
    fingerprint: str = ""  # of the corpus
    split: str = ""  # train, validation, test, or all


@dataclass(frozen=True)
class Metric:
    """One metric, as the scores per item that it is computed from, so that it can be resampled.

    `aggregate(scores, weights)` takes the scores (n, ...) and bootstrap weights (r, n), the number of times
    each item was drawn, and returns the r values of the metric, NaN where it is undefined.
    """

    name: str
    ids: Sequence[str]  # (n,)
    groups: Sequence[str]  # (n,) the unit of resampling: the patient, the object
    scores: np.ndarray  # (n, ...)
    aggregate: Callable[[np.ndarray, np.ndarray], np.ndarray]
    higher_is_better: bool = True
    chance: float | None = None  # the value of a model without any knowledge
    # "share" lies between 0 and 1; "rank", "distance", "correlation", "cosine", "ratio" and
    # "difference" do not.
    unit: str = "share"
    # False for a descriptive or biased metric: its difference is shown without a verdict.
    comparable: bool = True
    # True for a metric of the images alone, or of the texts alone: models that share that tower have equal
    # scores by construction, whose difference is not judged.
    one_tower: bool = False
    # Whether noise alone moves it to one side: a calibration error, a gap, the worst of several cells. Its
    # intervals would hardly ever hold the truth, so it has none; it is not comparable.
    biased: bool = False
    by_luck: float | None = None  # of a biased metric: its expected value where there is nothing but noise
    # A control, such as retrieval with shuffled captions: better than chance, it shows that something is
    # wrong, and nothing that the probe measures on the set is judged. It has a `chance`.
    control: bool = False
    # Of retrieval, whose answers are a sample as the queries are: what they contribute. None for any other.
    gallery: GalleryEffects | None = None


def gallery_effects(metrics: Sequence[Metric]) -> list[GalleryEffects]:
    """What the answers contribute to a metric of retrieval, by model; empty for any other metric."""
    return [metric.gallery for metric in metrics if metric.gallery is not None]


@dataclass(frozen=True)
class ProbeResult:
    """The metrics of one probe on one set; `details` is JSON and is shown in the protocol box."""

    probe: str
    dataset: str
    metrics: list[Metric]
    primary: str  # the name of the headline metric, which also selects α
    version: int
    details: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    # The definition of the metrics in words, where it depends on the model: two variants are not compared.
    variant: str = ""
    # Confusion matrix, scores by class and curves of a classifier; None for a probe without classes.
    diagnostics: Diagnostics | None = None


class Probe(Component, ABC):
    """One measurement of a model. One file of probes/ each."""

    version: ClassVar[int] = (
        1  # raised with every change of a metric: results of two versions are not compared
    )
    # Whether its metrics are about the classes of a set, whose names and items are then checked.
    classifies: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Measure a model on one set and return the metrics, each with its scores per item."""


RETENTION = "general"  # the name of the retention set, which shows what the model forgot
