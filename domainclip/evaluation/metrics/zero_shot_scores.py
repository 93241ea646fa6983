"""What several probes share: vectors of classes, who holds which class, and scores that treat ties fairly.

Legend: n items, c classes, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder

if TYPE_CHECKING:
    from datasets import Dataset

# How the prompts of a class become one: the mean of unit vectors, made unit again (CLIP, open_clip); the mean
# of vectors as long as the tower made them, made unit (BioViL); or the mean of the cosines (MedCLIP), which
# favours classes whose prompts agree.
PromptEnsemble = Literal["normalise_mean_normalise", "raw_mean", "mean_of_scores"]


def class_vectors(
    encoder: Encoder,
    prompts: Sequence[Sequence[str]],
    ensemble: PromptEnsemble = "normalise_mean_normalise",
) -> np.ndarray:
    """(c, d) float64: one vector a class, from its prompts; `raw_mean` needs `encoder.raw_texts`."""
    encode = encoder.raw_texts if ensemble == "raw_mean" else encoder.texts  # type: ignore[attr-defined]
    vectors = encode([text for texts in prompts for text in texts]).astype(np.float64)
    ends = np.cumsum([len(texts) for texts in prompts])
    means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])])
    if ensemble != "mean_of_scores":
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return means


def cosines(encoder: Encoder, items: Dataset, vectors: np.ndarray) -> np.ndarray:
    """(n, c). Rounded, for single-precision towers do not mean more than six digits: closer is a tie."""
    rounded: np.ndarray = np.round(encoder.images(items).astype(np.float64) @ vectors.T, 6)
    return rounded


def class_margins(
    encoder: Encoder,
    items: Dataset,
    classes: Mapping[str, Prompts],
    ensemble: PromptEnsemble = "normalise_mean_normalise",
) -> np.ndarray:
    """(n, c): cosine with the positive prompts, less that with the negative ones where a class has any."""
    given = list(classes.values())
    scores = cosines(encoder, items, class_vectors(encoder, [one.positive for one in given], ensemble))
    opposed = [i for i, one in enumerate(given) if one.negative]
    if opposed:
        against = class_vectors(encoder, [given[i].negative for i in opposed], ensemble)
        scores[:, opposed] -= cosines(encoder, items, against)
    return np.round(scores, 6)


def by_template(encoder: Encoder, items: Dataset, classes: Mapping[str, Prompts]) -> list[np.ndarray]:
    """(n, c) margins of one prompt a class at a time; none when the classes have not equally many, or one.

    The prompts are encoded all together, as for their mean: towers may round otherwise in other company.
    """
    given = list(classes.values())
    counts = {len(one.positive) for one in given}
    opposed = [i for i, one in enumerate(given) if one.negative]
    if len(counts) != 1 or counts == {1} or not {len(given[i].negative) for i in opposed} <= counts:
        return []
    k = counts.pop()

    def vectors(prompts: Sequence[Sequence[str]]) -> np.ndarray:
        rows = encoder.texts([text for texts in prompts for text in texts]).astype(np.float64)
        return rows.reshape(len(prompts), k, -1)

    positive = vectors([one.positive for one in given])
    found = [cosines(encoder, items, positive[:, i]) for i in range(k)]
    if opposed:
        negative = vectors([given[i].negative for i in opposed])
        for i, scores in enumerate(found):
            scores[:, opposed] -= cosines(encoder, items, negative[:, i])
    return [np.round(scores, 6) for scores in found]
