"""Class scores from features of support items, beside the class prompts: no weight of the model changes.

Shapes: n images, c classes of the scorer, s support items, d embedding width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy.special import log_softmax

from domainclip.data.interfaces import ClassScorer
from domainclip.models import parameters
from domainclip.models.checkpoint_files import SCORER, SCORER_FEATURES

SupportForm = Literal["class_means", "cache", "kl", "captions"]
FORMS: tuple[SupportForm, ...] = ("class_means", "cache", "kl", "captions")
_ROWS = 1024  # images that are compared with the support items at once


@dataclass(frozen=True)
class ScorerSettings:
    """How the evidence of the support items is computed, and how much it counts."""

    form: SupportForm
    classes: tuple[str, ...]
    scale: float  # inverse temperature of the model
    alpha: float = 0.0  # weight of the evidence beside the cosine with the class prompts
    beta: float = 1.0  # sharpness of the affinities, of the forms cache and kl
    neighbours: int = 1  # captions that are retrieved, of the form captions


@dataclass(frozen=True, eq=False)
class SupportScorer(ClassScorer):
    """score_c(x) = cosine with the prompts of c + α E_c(x), with the evidence E of support items."""

    settings: ScorerSettings
    features: np.ndarray  # (s, d) float32 of the support items; (c, d) of the form class_means
    shares: (
        np.ndarray
    )  # (s, c) float32, the weight of each item for each class; (0, c) where none is labelled
    class_texts: np.ndarray  # (c, d) float32 of unit length, from the prompts

    def rescored(self, images: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> np.ndarray:
        """(n, k) scores (n, k) of k classes with the evidence; unchanged where one of them is unknown."""
        known = {name: i for i, name in enumerate(self.settings.classes)}
        if not self.settings.alpha or not set(classes) <= set(known):
            return scores
        evidence = self.evidence(images)[:, [known[name] for name in classes]]
        rescored: np.ndarray = scores + self.settings.alpha * evidence
        return rescored

    def evidence(self, images: np.ndarray) -> np.ndarray:
        """(n, c) float64 E of image embeddings (n, d)."""
        parts = [images[at : at + _ROWS].astype(np.float64) for at in range(0, len(images), _ROWS)]
        of_form = {
            "class_means": self._class_means,
            "cache": self._cache,
            "kl": self._divergence,
            "captions": self._captions,
        }[self.settings.form]
        rows = [of_form(part) for part in parts]
        return np.concatenate([np.zeros((0, len(self.settings.classes))), *rows])

    def weighted(self, alpha: float) -> Self:
        """The same scorer with another α."""
        return replace(self, settings=replace(self.settings, alpha=alpha))

    @property
    def fingerprint(self) -> str:
        """sha256 of settings and features."""
        digest = hashlib.sha256(json.dumps(asdict(self.settings), sort_keys=True).encode())
        parameters.hash_tensors(
            digest, {name: torch.from_numpy(rows) for name, rows in self._arrays().items()}
        )
        return digest.hexdigest()

    def _class_means(self, images: np.ndarray) -> np.ndarray:
        evidence: np.ndarray = images @ self.features.T
        return evidence

    def _cache(self, images: np.ndarray) -> np.ndarray:
        evidence: np.ndarray = np.exp(self.settings.beta * (images @ self.features.T - 1.0)) @ self.shares
        return evidence

    def _divergence(self, images: np.ndarray) -> np.ndarray:
        """exp(−β KL(p(x) ‖ p(k))), with p the softmax over the classes."""
        of_image, of_item = self._log_probabilities(images), self._log_probabilities(self.features)
        probabilities = np.exp(of_image)
        negative_entropy = (probabilities * of_image).sum(axis=1, keepdims=True)
        divergence = np.maximum(negative_entropy - probabilities @ of_item.T, 0.0)
        evidence: np.ndarray = np.exp(-self.settings.beta * divergence) @ self.shares
        return evidence

    def _captions(self, images: np.ndarray) -> np.ndarray:
        """The retrieved captions' cosines with the classes, by the confidence relative to the image's."""
        cosines = images @ self.features.T
        count = min(self.settings.neighbours, cosines.shape[1])
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        texts = self.features[nearest].astype(np.float64).mean(axis=1)
        texts /= np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-12)
        relative = np.exp(self._entropy(images) - self._entropy(texts))
        evidence: np.ndarray = relative[:, None] * (texts @ self.class_texts.T)
        return evidence

    def _log_probabilities(self, rows: np.ndarray) -> np.ndarray:
        logits = self.settings.scale * (rows.astype(np.float64) @ self.class_texts.T)
        found: np.ndarray = log_softmax(logits, axis=1)
        return found

    def _entropy(self, rows: np.ndarray) -> np.ndarray:
        logs = self._log_probabilities(rows)
        found: np.ndarray = -(np.exp(logs) * logs).sum(axis=1)
        return found

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"features": self.features, "shares": self.shares, "class_texts": self.class_texts}

    def save(self, folder: Path) -> None:
        """Write settings and features beside the weights."""
        text = json.dumps(asdict(self.settings), indent=2, sort_keys=True, ensure_ascii=False)
        (folder / SCORER).write_text(text, encoding="utf-8")
        arrays = {name: np.ascontiguousarray(rows, np.float32) for name, rows in self._arrays().items()}
        save_file(arrays, folder / SCORER_FEATURES)

    @classmethod
    def load(cls, folder: Path) -> SupportScorer:
        """Read what `save` wrote.

        Raises: ValueError, KeyError, TypeError or OSError for files of another version, or damaged ones.
        """
        data = json.loads((folder / SCORER).read_text(encoding="utf-8"))
        settings = ScorerSettings(**{**data, "classes": tuple(data["classes"])})
        if settings.form not in FORMS:
            raise ValueError("form has a value that this version does not support")
        return cls(settings, **load_file(folder / SCORER_FEATURES))
