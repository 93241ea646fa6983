"""The evaluation sets, probes and statistics that all models of a command share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from domainclip.config.recipe import WeightInterpolation
from domainclip.evaluation.base import EvaluationSet, Probe
from domainclip.evaluation.contamination import Overlap
from domainclip.evaluation.embedding_cache import EmbeddingCache


@dataclass(frozen=True)
class Protocol:
    """The sets that are measured, the probes, and the parameters of the statistics."""

    reported: Sequence[EvaluationSet]  # the set of the corpus first
    probes: Mapping[str, Probe]
    bootstrap_samples: int = 2000
    seed: int = 0
    margin: float | None = None  # the loss that is accepted in a share on the retention set
    # The sets on which α is selected, the validation split first, and how; empty if α is not selected.
    selection: Sequence[EvaluationSet] = ()
    interpolation: WeightInterpolation | None = None
    embeddings: EmbeddingCache = field(default_factory=EmbeddingCache)
    overlap: Overlap = field(default_factory=Overlap)  # of the reported sets with the training images
