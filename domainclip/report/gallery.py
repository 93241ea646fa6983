"""Example images of a report, if the recipe allows them: the first items and the hardest items.

Legend: n items with captions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from domainclip.config.recipe import Recipe
from domainclip.data.images.decode import decode_image
from domainclip.errors import ModelError
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.evaluation.probe_runs import sort_items
from domainclip.evaluation.probes.localisation import heat_maps
from domainclip.report.context import Example

_FIRST, _HARDEST = 8, 8
_HEAT_COLOR = (255, 120, 0)
_CANDIDATES = 2000  # items that the examples are chosen from


def gallery_examples(recipe: Recipe, data: EvaluationSet, encoders: Sequence[CachedEncoder]) -> list[Example]:
    """The first items and those with the worst ranks by the last model, with the nearest caption by model.

    Empty unless the recipe allows examples. Called on every process, as the processes share the encoding.
    """
    if not recipe.report.examples:
        return []
    # The selection that was measured: its embeddings are cached, so no image is encoded again.
    measured = encode_images(encoders, sort_items(data))
    captioned = [i for i, texts in enumerate(measured["texts"][:_CANDIDATES]) if texts]
    if not captioned:
        return []
    items = measured.select(captioned)
    captions = [texts[0] for texts in items["texts"]]
    scores = [_scores(encoder, encoder.images(measured)[captioned], captions) for encoder in encoders]
    ranks = [_ranks(matrix) for matrix in scores]
    hardest = sorted(range(len(items)), key=lambda i: (-ranks[-1][i], i))[:_HARDEST]
    chosen = [("First items", i) for i in range(min(_FIRST, len(items)))]
    chosen += [("Hardest items", i) for i in hardest if ranks[-1][i] > 1]
    heats = _heats(encoders[-1], items.select([i for _, i in chosen]), [captions[i] for _, i in chosen])
    return [
        Example(
            image=_png(decode_image(items[i]["image"])),
            caption=captions[i],
            base_rank=ranks[0][i],
            adapted_rank=ranks[1][i] if len(ranks) > 1 else None,
            kind=kind,
            nearest=_nearest_captions([captions[int(matrix[i].argmax())] for matrix in scores]),
            heat=heat,
        )
        for (kind, i), heat in zip(chosen, heats, strict=True)
    ]


def _scores(encoder: CachedEncoder, rows: np.ndarray, captions: list[str]) -> np.ndarray:
    """(n, n) cosines, rounded as in the probes, so that values this close are ties."""
    scores: np.ndarray = np.round(rows.astype(np.float64) @ encoder.texts(captions).T, 6)
    return scores


def _ranks(scores: np.ndarray) -> list[float]:
    """(n,) expected rank of each item's caption; ties are in random order."""
    correct = scores.diagonal()[:, None]
    ranks: list[float] = (1 + (scores > correct).sum(1) + 0.5 * ((scores == correct).sum(1) - 1)).tolist()
    return ranks


def _nearest_captions(nearest: Sequence[str]) -> str:
    """The nearest caption of each model, as one text."""
    names = ("base", "adapted") if len(nearest) > 1 else ("nearest",)
    return "; ".join(f"{name}: {text}" for name, text in zip(names, nearest, strict=True))


def _heats(encoder: CachedEncoder, items: Any, captions: list[str]) -> list[bytes | None]:
    """Heat maps of the similarity to each caption, as PNG; None for a family without a grid of patches."""
    try:
        maps, windows = heat_maps(encoder, items, captions)
    except ModelError:
        return [None] * len(items)
    images = [decode_image(item["image"]) for item in items]
    return [_png(_overlay(*parts)) for parts in zip(images, maps, windows, strict=True)]


def _overlay(image: Image.Image, heat: np.ndarray, window: np.ndarray) -> Image.Image:
    """The image in grey, coloured where the map is high; its lowest value is transparent."""
    spread = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-9)
    left, top, right, bottom = (round(float(edge)) for edge in window)
    light = Image.fromarray(np.rint(200 * spread).astype(np.uint8))
    mask = Image.new("L", image.size, 0)
    size = (max(1, right - left), max(1, bottom - top))
    mask.paste(light.resize(size, Image.Resampling.BILINEAR), (left, top))
    grey = image.convert("L").convert("RGB")
    return Image.composite(Image.new("RGB", image.size, _HEAT_COLOR), grey, mask)


def _png(image: Image.Image) -> bytes:
    image.thumbnail((224, 224))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
