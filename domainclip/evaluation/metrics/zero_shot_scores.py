"""Zero-shot scores: class vectors from prompts, cosines of images with them, margins over negative prompts.

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

# How the prompts of a class form one class vector: the normalised mean of unit vectors (CLIP, open_clip); the
# normalised mean of raw vectors, before normalisation (BioViL); or the mean of the cosines (MedCLIP), which
# favours classes whose prompts agree.
PromptEnsemble = Literal["normalise_mean_normalise", "raw_mean", "mean_of_scores"]


def class_vectors(
    encoder: Encoder,
    prompts: Sequence[Sequence[str]],
    ensemble: PromptEnsemble = "normalise_mean_normalise",
) -> np.ndarray:
    """(c, d) float64: one vector per class, from its prompts; `raw_mean` needs `encoder.raw_texts`."""
    encode = encoder.raw_texts if ensemble == "raw_mean" else encoder.texts
    vectors = encode([text for texts in prompts for text in texts]).astype(np.float64)
    ends = np.cumsum([len(texts) for texts in prompts])
    means = np.stack([class_rows.mean(axis=0) for class_rows in np.split(vectors, ends[:-1])])
    if ensemble != "mean_of_scores":
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return means


def cosines(encoder: Encoder, items: Dataset, vectors: np.ndarray) -> np.ndarray:
    """(n, c), rounded to six decimals, the accuracy of single-precision embeddings: closer values tie."""
    return cosines_of_images(encoder.images(items), vectors)


def cosines_of_images(images: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(n, c) cosines of image embeddings (n, d) and class vectors (c, d), rounded as those of a set."""
    rounded: np.ndarray = np.round(images.astype(np.float64) @ vectors.T, 6)
    return rounded


def class_margins(
    encoder: Encoder,
    items: Dataset,
    classes: Mapping[str, Prompts],
    ensemble: PromptEnsemble = "normalise_mean_normalise",
) -> np.ndarray:
    """(n, c): cosine with the positive prompts, minus that with the negative ones where a class has any."""
    return margins_of_images(encoder, encoder.images(items), classes, ensemble)


def margins_of_images(
    encoder: Encoder,
    images: np.ndarray,
    classes: Mapping[str, Prompts],
    ensemble: PromptEnsemble = "normalise_mean_normalise",
) -> np.ndarray:
    """(n, c) margins of image embeddings (n, d), as `class_margins` of a set."""
    class_prompts = list(classes.values())
    positive = class_vectors(encoder, [prompts.positive for prompts in class_prompts], ensemble)
    scores = cosines_of_images(images, positive)
    with_negatives = [i for i, prompts in enumerate(class_prompts) if prompts.negative]
    if with_negatives:
        negative_vectors = class_vectors(
            encoder, [class_prompts[i].negative for i in with_negatives], ensemble
        )
        scores[:, with_negatives] -= cosines_of_images(images, negative_vectors)
    return _rescored(encoder, images, scores, list(classes))


def _rescored(encoder: Encoder, images: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """(n, c) the scores of a model, which may use more than the prompts of the classes."""
    if encoder.scorer is not None:
        scores = encoder.scorer.rescored(images, scores, classes)
    return np.round(scores, 6)


def margins_by_template(encoder: Encoder, items: Dataset, classes: Mapping[str, Prompts]) -> list[np.ndarray]:
    """(n, c) margins for each template; empty unless all classes have the same number of prompts, above one.

    All prompts are encoded in one batch, as for their mean: rounding may depend on the batch.
    """
    class_prompts = list(classes.values())
    counts = {len(prompts.positive) for prompts in class_prompts}
    with_negatives = [i for i, prompts in enumerate(class_prompts) if prompts.negative]
    if (
        len(counts) != 1
        or counts == {1}
        or not {len(class_prompts[i].negative) for i in with_negatives} <= counts
    ):
        return []
    k = counts.pop()

    def vectors(prompts: Sequence[Sequence[str]]) -> np.ndarray:
        rows = encoder.texts([text for texts in prompts for text in texts]).astype(np.float64)
        return rows.reshape(len(prompts), k, -1)

    positive = vectors([prompts.positive for prompts in class_prompts])
    margins = [cosines(encoder, items, positive[:, i]) for i in range(k)]
    if with_negatives:
        negative = vectors([class_prompts[i].negative for i in with_negatives])
        for i, scores in enumerate(margins):
            scores[:, with_negatives] -= cosines(encoder, items, negative[:, i])
    names, images = list(classes), encoder.images(items)
    return [_rescored(encoder, images, scores, names) for scores in margins]
