"""The class scorer that lies beside the weights of a model."""

from __future__ import annotations

import json
from pathlib import Path

from domainclip.models.checkpoint_files import SCORER
from domainclip.models.evidence_scorer import EvidenceScorer
from domainclip.models.fusion_scorer import FusionScorer
from domainclip.models.support_scorer import SupportScorer


def load_scorer(folder: Path) -> EvidenceScorer:
    """The scorer that `save` of its class wrote.

    Raises: ValueError, KeyError, TypeError or OSError for files of another version, or damaged ones.
    """
    form = json.loads((folder / SCORER).read_text(encoding="utf-8"))["form"]
    return FusionScorer.load(folder) if form == "fusion" else SupportScorer.load(folder)
