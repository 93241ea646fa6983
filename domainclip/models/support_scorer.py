"""Class scores from features of support items, beside the class prompts: no weight of the model changes.

Shapes: n images, c classes of the scorer, s support items, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.special import log_softmax

from domainclip.models.evidence_scorer import EvidenceScorer, EvidenceSettings, read_saved

SupportForm = Literal["class_means", "cache", "kl", "captions"]
FORMS: tuple[SupportForm, ...] = ("class_means", "cache", "kl", "captions")


@dataclass(frozen=True, kw_only=True)
class ScorerSettings(EvidenceSettings):
    """How the evidence of the support items is computed."""

    form: SupportForm
    scale: float  # inverse temperature of the model
    beta: float = 1.0  # sharpness of the affinities, of the forms cache and kl
    neighbours: int = 1  # captions that are retrieved, of the form captions


@dataclass(frozen=True, eq=False)
class SupportScorer(EvidenceScorer):
    """The evidence of a class is that of support items."""

    settings: ScorerSettings
    features: np.ndarray  # (s, d) float32 of the support items; (c, d) of the form class_means
    shares: (
        np.ndarray
    )  # (s, c) float32, the weight of each item for each class; (0, c) where none is labelled
    class_texts: np.ndarray  # (c, d) float32 of unit length, from the prompts

    @property
    def description(self) -> str:
        """Form, α and β."""
        beta = f", β {self.settings.beta:g}" if self.settings.form in ("cache", "kl") else ""
        return f"{self.settings.form.replace('_', ' ')}, α {self.settings.alpha:g}{beta}"

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Features, shares and the embeddings of the class prompts."""
        return {"features": self.features, "shares": self.shares, "class_texts": self.class_texts}

    def evidence_of(self, images: np.ndarray) -> np.ndarray:
        """(n, c) E of image embeddings (n, d)."""
        of_form = {
            "class_means": self._class_means,
            "cache": self._cache,
            "kl": self._divergence,
            "captions": self._captions,
        }
        return of_form[self.settings.form](images)

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

    @classmethod
    def load(cls, folder: Path) -> SupportScorer:
        """Read what `save` wrote.

        Raises: ValueError, KeyError, TypeError or OSError for files of another version, or damaged ones.
        """
        settings, arrays = read_saved(folder)
        if settings["form"] not in FORMS:
            raise ValueError("form has a value that this version does not support")
        return cls(ScorerSettings(**settings), **arrays)
