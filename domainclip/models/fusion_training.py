"""Training of the two fusion layers of RECO [arXiv:2306.07196] on stored embeddings of frozen towers.

Shapes: s items of the memory, b of a batch, k retrieved for each, d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.models import fusion_layer
from domainclip.models.fusion_layer import Weights

_ROWS = 1024  # items that are compared with the memory at once


@dataclass(frozen=True)
class FusionData:
    """The items of the memory. Embeddings are float32 of unit length."""

    images: np.ndarray  # (s, d)
    texts: np.ndarray  # (s, d) of their captions
    group: np.ndarray  # (s,) int64: items of one group are not each other's neighbours
    caption: np.ndarray  # (s,) int64: equal for equal captions, which are not each other's negatives


@dataclass(frozen=True, kw_only=True)
class FusionTraining:
    """How the layers are trained."""

    neighbours: int  # k, at most
    heads: int
    steps: Sequence[int]  # after which the layers are returned, ascending
    batch_size: int
    rate: float  # learning rate of AdamW
    scale: float  # inverse temperature
    seed: int


@dataclass(frozen=True)
class FusionLayers:
    """The two layers after so many steps."""

    steps: int
    image: dict[str, Tensor]
    text: dict[str, Tensor]


def train_layers(data: FusionData, training: FusionTraining) -> list[FusionLayers]:
    """The layers after each of the numbers of steps; a function of data and settings.

    Raises: ValueError where an item has no other group to retrieve from.
    """
    draw = torch.Generator().manual_seed(training.seed)
    width = data.images.shape[1]
    image, text = (
        {name: weight.requires_grad_() for name, weight in fusion_layer.initial_weights(width, draw).items()}
        for _ in range(2)
    )
    optimizer = torch.optim.AdamW([*image.values(), *text.values()], lr=training.rate, weight_decay=0.01)
    texts_of_images = data.texts[nearest_of_other_groups(data.images, data.group, training.neighbours)]
    images_of_texts = data.images[nearest_of_other_groups(data.texts, data.group, training.neighbours)]
    stored = (data.images, data.texts, texts_of_images, images_of_texts)
    layers, batches = [], _batches(len(data.images), training.batch_size, draw)
    for step in range(1, max(training.steps) + 1):
        rows = next(batches)
        one, other, of_image, of_text = (torch.from_numpy(part[rows]) for part in stored)
        refined = (
            fusion_layer.refine(image, one, of_image, training.heads),
            fusion_layer.refine(text, other, of_text, training.heads),
        )
        same = _same(data, rows)
        loss = fusion_loss((one, other), refined, same, training.scale)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step in training.steps:
            layers.append(FusionLayers(step, _copied(image), _copied(text)))
    return layers


def fusion_loss(
    plain: tuple[Tensor, Tensor], refined: tuple[Tensor, Tensor], same: Tensor, scale: float
) -> Tensor:
    """() the mean of the losses of refined images and texts, and of each with the other side as it was.

    `same` (b, b) bool: the pairs that are not each other's negatives, besides a pair itself.
    """
    (image, text), (refined_image, refined_text) = plain, refined
    pairs = ((refined_image, refined_text), (refined_image, text), (image, refined_text))
    return torch.stack([_contrastive(one, other, same, scale) for one, other in pairs]).mean()


def nearest_of_other_groups(rows: np.ndarray, group: np.ndarray, neighbours: int) -> np.ndarray:
    """(s, k) the nearest of rows (s, d) for each of them, none of its group; k is less in a small memory.

    Raises: ValueError where an item has no other group to retrieve from.
    """
    largest = int(np.unique(group, return_counts=True)[1].max())
    count = min(neighbours, len(rows) - largest)
    if count < 1:
        raise ValueError("all items are of one group")
    parts = []
    for at in range(0, len(rows), _ROWS):
        cosines = rows[at : at + _ROWS] @ rows.T
        cosines[group[at : at + _ROWS, None] == group] = -np.inf
        parts.append(np.argsort(-cosines, axis=1, kind="stable")[:, :count])
    return np.concatenate(parts)


def _contrastive(images: Tensor, texts: Tensor, same: Tensor, scale: float) -> Tensor:
    """() nats: the mean of both directions."""
    logits = (scale * images @ texts.T).masked_fill(same, -torch.inf)
    truth = torch.arange(len(images))
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def _same(data: FusionData, rows: np.ndarray) -> Tensor:
    group, caption = data.group[rows], data.caption[rows]
    same = (group[:, None] == group) | (caption[:, None] == caption)
    np.fill_diagonal(same, False)
    return torch.from_numpy(same)


def _batches(count: int, size: int, draw: torch.Generator) -> Iterator[np.ndarray]:
    """Rows of batches without end: an order shows each item once, but for those that fill no batch."""
    size = min(size, count)
    while True:
        order = torch.randperm(count, generator=draw).numpy()
        for at in range(0, count - size + 1, size):
            yield order[at : at + size]


def _copied(weights: Weights) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}
