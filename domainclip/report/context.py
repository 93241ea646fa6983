"""What a report says besides the figures: the run, the data, the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domainclip.evaluation.split_usage import SplitUsage


@dataclass(frozen=True)
class RunFacts:
    """How the adapted model came to be."""

    strategy: str
    learning: int  # weights that learned,
    weights: int  # of so many
    steps: int
    seconds: float
    device: str
    batch_size: int  # pairs that saw each other: a model that knows nothing has a loss of its logarithm
    versions: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # anything else worth a line


@dataclass(frozen=True)
class CorpusFacts:
    """What the model was adapted to, or measured on. Counts only: no caption, path or identifier."""

    name: str
    card: str = ""
    license: str = "unknown"
    fingerprint: str = ""
    splits: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # split -> items, groups
    quarantine: Mapping[str, int] = field(default_factory=dict)  # reason -> items left out
    notes: Sequence[str] = ()  # guesses made while reading
    findings: Sequence[str] = ()  # what the checks said: truncation, repeated captions …


@dataclass(frozen=True)
class Example:
    """One picture and where its caption stood; only for corpora that may be shown."""

    picture: bytes  # PNG
    caption: str
    base_rank: float
    adapted_rank: float | None
    kind: str = "First items"  # the heading it stands under
    nearest: str = ""  # the caption nearest to the image, by model
    heat: bytes | None = None  # PNG: where the last model finds the caption in the picture


@dataclass(frozen=True)
class ReportContext:
    """All that `write` needs besides the evaluation."""

    title: str
    command: str
    recipe: str  # YAML, every default written out
    base: Mapping[str, Any]  # name, revision, and what else identifies it
    corpus: CorpusFacts
    retention: CorpusFacts | None = None
    retention_set: str = "general"  # the evaluation set that shows what was forgotten
    run: RunFacts | None = None  # None when a finished model is measured
    training: Sequence[Mapping[str, Any]] = ()  # lines of metrics.jsonl: step, loss, scale, …
    warnings: Sequence[str] = ()
    invalid: Sequence[str] = ()  # reasons, such as a leak, why no figure may be believed
    citations: Sequence[str] = ()
    examples: Sequence[Example] = ()
    trained_on: Sequence[str] = ()  # by model: whether it was trained on what is measured
    readings: SplitUsage | None = None  # how often the measured split has been read
    versions: Mapping[str, str] = field(default_factory=dict)  # of the software that measured
