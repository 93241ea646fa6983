"""How models are measured: the evaluation sets, probes and statistics that all models of a command share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from domainclip.config.recipe import WeightInterpolation
from domainclip.evaluation.base import EvaluationSet, Probe
from domainclip.evaluation.contamination import Overlap
from domainclip.evaluation.embedding_cache import EmbeddingCache


@dataclass(frozen=True)
class Protocol:
    """What is measured, and how."""

    reported: Sequence[EvaluationSet]  # the set of the corpus first
    probes: Mapping[str, Probe]
    bootstrap_samples: int = 2000
    seed: int = 0
    # The sets that α is selected on, the validation split first, and how; none where α is not selected.
    selection: Sequence[EvaluationSet] = ()
    interpolation: WeightInterpolation | None = None
    embeddings: EmbeddingCache = field(default_factory=EmbeddingCache)
    overlap: Overlap = field(default_factory=Overlap)  # of the reported sets with the training images
