"""Sets and encoders for tests of zero-shot classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set

CLASSES = {"cat": "a cat", "dog": "a dog", "owl": "an owl"}


def animals() -> list[dict[str, Any]]:
    return [{"id": f"{i}", "labels": [label]} for i, label in enumerate(["cat", "cat", "cat", "dog"])]


class RawEncoder(ArrayEncoder):
    """An encoder with text vectors before normalisation."""

    has_raw_texts = True

    def raw_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.asarray([self.text_vectors[text] for text in texts], dtype=np.float32)


CHEXPERT = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]


def chest(seed: int = 0, n: int = 60) -> tuple[ArrayEncoder, Any, np.ndarray, np.ndarray]:
    """A model and a set with the five findings, one more, and "No Finding"."""
    rng = np.random.default_rng(seed)
    names = [*CHEXPERT, "Fracture"]
    truth = rng.integers(0, 2, (n, 6)) * (rng.random(n) < 0.7)[:, None]
    answers = [
        [name for name, holds in zip(names, row, strict=True) if holds] or ["No Finding"] for row in truth
    ]
    rows = [{"id": f"{i:02d}", "labels": labels} for i, labels in enumerate(answers)]
    texts = {name: np.eye(12)[i].tolist() for i, name in enumerate(names)}
    texts |= {f"no {name}": np.eye(12)[6 + i].tolist() for i, name in enumerate(names)}
    texts["No Finding"] = np.ones(12).tolist()
    vectors = rng.normal(size=(n, 12))
    vectors[:, :6] += 2 * truth
    model = ArrayEncoder({f"{i:02d}": row.tolist() for i, row in enumerate(vectors)}, texts)
    classes = {name: [f"an x-ray of {name}"] for name in [*names, "No Finding"]}
    return (
        model,
        evaluation_set(rows, classes),
        truth,
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
    )
