"""The contents of a report besides the metrics: the run, the data, the base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domainclip.evaluation.metrics.first_answers import Answer
from domainclip.evaluation.split_usage import SplitUsage


@dataclass(frozen=True)
class RunFacts:
    """The training run of the adapted model."""

    strategy: str
    learning: int  # number of trained parameters
    weights: int  # number of all parameters
    steps: int
    seconds: float
    device: str
    batch_size: int  # pairs contrasted with each other: the loss at chance is its logarithm
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # further rows, by key


@dataclass(frozen=True)
class CorpusFacts:
    """The corpus that a model was adapted to or measured on. Counts only: no caption, path or identifier."""

    name: str
    card: str = ""
    license: str = "unknown"
    fingerprint: str = ""
    splits: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # split -> items, groups
    quarantine: Mapping[str, int] = field(default_factory=dict)  # reason -> items left out
    notes: Sequence[str] = ()  # assumptions made while reading
    findings: Sequence[str] = ()  # of the checks: truncation, repeated captions …
    group_name: str = ""  # what its groups are, in the plural: "patients"; empty: not stated
    class_name: str = ""  # what one of its classes is: "finding"; empty: not stated


@dataclass(frozen=True)
class ModelAnswers:
    """What one model answers for an image."""

    rank: float | None  # expected rank of the first right caption, from 1; None for a set without captions
    captions: Sequence[Answer]  # its first captions
    label: Answer | None = None  # the class; None for a set without classes, or an item of several


@dataclass(frozen=True)
class Example:
    """One image and the answers of each model; only for corpora that may be shown."""

    image: bytes  # PNG
    caption: str  # of the item; empty for a set without captions
    label: str  # its class; empty for a set without classes
    models: Sequence[ModelAnswers]  # the base, then the adapted model if there is one
    heat: bytes | None = None  # PNG: similarity of the patches to the caption, by the last model


@dataclass(frozen=True)
class ExampleGroup:
    """Examples of one kind: newly right, newly wrong, or hardest."""

    kind: str
    total: int  # images of this kind, of which some are shown
    examples: Sequence[Example]


@dataclass(frozen=True)
class Examples:
    """Example images of a report, and what they were chosen from."""

    groups: Sequence[ExampleGroup]
    images: int  # number of images that were measured
    captions: int  # number of captions that were ranked; 0: the answers are classes
    right: str = ""  # which captions are right, in words


@dataclass(frozen=True)
class ReportContext:
    """The input of `write` besides the evaluation."""

    title: str
    command: str
    recipe: str  # YAML with all defaults
    base: Mapping[str, Any]  # name, revision and other identifying facts
    corpus: CorpusFacts
    adapted: Mapping[str, Any] = field(default_factory=dict)  # the same of the second model, if there is one
    retention: CorpusFacts | None = None
    retention_set: str = "general"  # name of the evaluation set that measures forgetting
    run: RunFacts | None = None  # None when only finished models are measured
    one_run: bool = False  # whether a single training run made the adapted model: no spread over seeds
    training: Sequence[Mapping[str, Any]] = ()  # lines of metrics.jsonl: step, loss, scale, …
    warnings: Sequence[str] = ()
    cautions: Sequence[str] = ()  # sentences that limit the verdict, shown beside it
    invalid: Sequence[str] = ()  # reasons, such as a leak, why the results are not valid
    citations: Sequence[str] = ()
    examples: Examples | None = None
    trained_on: Sequence[str] = ()  # by model: overlap of its training images with the measured items
    external: str = ""  # states that the corpus is another one than that of the training; "" where it is not
    readings: SplitUsage | None = None  # how often the split was measured
    precision: str = ""  # of embeddings, and how far they lie from fp32; empty for fp32
    versions: Mapping[str, str] = field(default_factory=dict)  # of the software that was used

    @property
    def limits(self) -> list[str]:
        """The cautions, and the warning of a split that was read often."""
        warning = self.readings.warning if self.readings else ""
        return [*self.cautions, *([warning] if warning else [])]
