"""Class scorers in general: the scores of the prompts, and evidence from items of the training split.

Shapes: n images, c classes of the scorer, d embedding width.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from domainclip.data.interfaces import ClassScorer
from domainclip.models import parameters
from domainclip.models.checkpoint_files import SCORER, SCORER_FEATURES

_ROWS = 1024  # images that are compared with the items at once


@dataclass(frozen=True, kw_only=True)
class EvidenceSettings:
    """How the evidence is computed, and how much it counts."""

    form: str
    classes: tuple[str, ...]
    alpha: float = 0.0  # weight of the evidence beside the cosine with the class prompts


@dataclass(frozen=True, eq=False)
class EvidenceScorer(ClassScorer):
    """score_c(x) = cosine with the prompts of c + α E_c(x), with evidence E of training items."""

    settings: EvidenceSettings

    @property
    @abstractmethod
    def description(self) -> str:
        """The settings that were chosen, in a few words."""

    @abstractmethod
    def arrays(self) -> Mapping[str, np.ndarray]:
        """All that the evidence is computed from, by name, as it is saved."""

    @abstractmethod
    def evidence_of(self, images: np.ndarray) -> np.ndarray:
        """(n, c) E of at most a thousand image embeddings (n, d) float64."""

    def evidence(self, images: np.ndarray) -> np.ndarray:
        """(n, c) float64 E of image embeddings (n, d)."""
        parts = [images[at : at + _ROWS].astype(np.float64) for at in range(0, len(images), _ROWS)]
        empty = np.zeros((0, len(self.settings.classes)))
        return np.concatenate([empty, *(self.evidence_of(part) for part in parts)])

    def rescored(self, images: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """(n, k) scores (n, k) of k classes with the evidence; unchanged where one of them is unknown."""
        known = {name: i for i, name in enumerate(self.settings.classes)}
        if not self.settings.alpha or not set(classes) <= set(known):
            return scores
        evidence = self.evidence(images)[:, [known[name] for name in classes]]
        rescored: np.ndarray = scores + self.settings.alpha * evidence
        return rescored

    def weighted(self, alpha: float) -> Self:
        """The same scorer with another α."""
        return replace(self, settings=replace(self.settings, alpha=alpha))

    @property
    def fingerprint(self) -> str:
        """sha256 of settings and arrays."""
        digest = hashlib.sha256(json.dumps(asdict(self.settings), sort_keys=True).encode())
        tensors = {name: torch.from_numpy(rows) for name, rows in self.arrays().items()}
        parameters.hash_tensors(digest, tensors)
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write settings and arrays beside the weights."""
        text = json.dumps(asdict(self.settings), indent=2, sort_keys=True, ensure_ascii=False)
        (folder / SCORER).write_text(text, encoding="utf-8")
        arrays = {name: np.ascontiguousarray(rows, np.float32) for name, rows in self.arrays().items()}
        save_file(arrays, folder / SCORER_FEATURES)


def read_saved(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The settings and the arrays that `EvidenceScorer.save` wrote.

    Raises: ValueError, KeyError, TypeError or OSError for damaged files.
    """
    data = json.loads((folder / SCORER).read_text(encoding="utf-8"))
    return {**data, "classes": tuple(data["classes"])}, load_file(folder / SCORER_FEATURES)
