"""Classes of which one follows from another: what an item of one class is, and how probable each class is.

Legend: n items, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from domainclip.data.files.row_labels import with_implied


@dataclass(frozen=True)
class ClassHierarchy:
    """The classes of a corpus with one class an item, and `implied_classes` of its card."""

    includes: np.ndarray  # (c, c) bool: items of class j are of class i, where [i, j]

    @classmethod
    def of(cls, names: Sequence[str], implied_classes: Mapping[str, Sequence[str]]) -> ClassHierarchy:
        """Each class includes itself and the classes that imply it, at any distance."""
        includes = np.eye(len(names), dtype=bool)
        for j, name in enumerate(names):
            includes[:, j] = np.isin(names, with_implied([name], implied_classes))
        return cls(includes)

    def labels(self, truth: np.ndarray) -> np.ndarray:
        """(n, c) of 1 and 0: the class of each item (n,) and all that include it."""
        labels: np.ndarray = self.includes.T[truth].astype(float)
        return labels

    def log_odds(self, logits: np.ndarray) -> np.ndarray:
        """(n, c) log odds of each class under the softmax over logits (n, c), without saturation.

        The probability of a class is the sum of those of the classes that it includes: an image that looks
        like COVID-19 is not thereby less of a pneumonia. 0 for a class that includes all.
        """
        odds = _flat_log_odds(logits)
        for i in np.flatnonzero(self.includes.sum(axis=1) > 1):
            inside = self.includes[i]
            odds[:, i] = 0.0
            if not inside.all():
                outside = logsumexp(logits[:, ~inside], axis=1)
                odds[:, i] = np.round(logsumexp(logits[:, inside], axis=1) - outside, 6)
        return odds


def _flat_log_odds(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=1, keepdims=True)
    exponents = np.exp(logits)
    rows, top = np.arange(len(logits)), logits.argmax(axis=1)
    others = exponents.sum(axis=1, keepdims=True) - exponents
    # A class that holds nearly all of the sum would be subtracted from itself.
    exponents[rows, top] = 0.0
    others[rows, top] = exponents.sum(axis=1)
    odds: np.ndarray = np.round(logits - np.log(np.maximum(others, 1e-300)), 6)
    return odds
