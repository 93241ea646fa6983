"""Pictures of a report that may show some: the first items, and what the models find hardest.

Legend: n items with captions, m distinct captions.
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
from domainclip.evaluation.evaluate import sort_items
from domainclip.evaluation.probes.localisation import heat_maps
from domainclip.report.context import Example

_FIRST, _HARDEST = 8, 8
_GLOW = (255, 120, 0)
_MOST = 2000  # items that the examples are chosen among


def gallery_examples(recipe: Recipe, data: EvaluationSet, encoders: Sequence[CachedEncoder]) -> list[Example]:
    """The first held-out items and those the last model is furthest from, with what each model would say.

    Only when the recipe allows them. To be called on every process: they share the encoding.
    """
    if not recipe.report.examples:
        return []
    # The selection that was measured: its embeddings are there, and no picture goes through a tower again.
    measured = encode_images(encoders, sort_items(data))
    shown = [i for i, texts in enumerate(measured["texts"][:_MOST]) if texts]
    if not shown:
        return []
    items = measured.select(shown)
    captions = [texts[0] for texts in items["texts"]]
    scores = [_scores(encoder, encoder.images(measured)[shown], captions) for encoder in encoders]
    ranks = [_ranks(one) for one in scores]
    hardest = sorted(range(len(items)), key=lambda i: (-ranks[-1][i], i))[:_HARDEST]
    chosen = [("First items", i) for i in range(min(_FIRST, len(items)))]
    chosen += [("Hardest items", i) for i in hardest if ranks[-1][i] > 1]
    heats = _heats(encoders[-1], items.select([i for _, i in chosen]), [captions[i] for _, i in chosen])
    return [
        Example(
            picture=_png(decode_image(items[i]["image"])),
            caption=captions[i],
            base_rank=ranks[0][i],
            adapted_rank=ranks[1][i] if len(ranks) > 1 else None,
            kind=kind,
            nearest=_nearest_captions([captions[int(one[i].argmax())] for one in scores]),
            heat=heat,
        )
        for (kind, i), heat in zip(chosen, heats, strict=True)
    ]


def _scores(encoder: CachedEncoder, rows: np.ndarray, captions: list[str]) -> np.ndarray:
    """(n, n) cosines, rounded as the probes round them: what is closer is a tie."""
    scores: np.ndarray = np.round(rows.astype(np.float64) @ encoder.texts(captions).T, 6)
    return scores


def _ranks(scores: np.ndarray) -> list[float]:
    """(n,) expected rank of each item's own caption; equal ones are in random order."""
    own = scores.diagonal()[:, None]
    ranks: list[float] = (1 + (scores > own).sum(1) + 0.5 * ((scores == own).sum(1) - 1)).tolist()
    return ranks


def _nearest_captions(nearest: Sequence[str]) -> str:
    """The nearest caption of each model."""
    names = ("base", "adapted") if len(nearest) > 1 else ("nearest",)
    return "; ".join(f"{name}: {text}" for name, text in zip(names, nearest, strict=True))


def _heats(encoder: CachedEncoder, items: Any, captions: list[str]) -> list[bytes | None]:
    """Where each caption lies in its picture; None for a family that has no grid of patches."""
    try:
        maps, windows = heat_maps(encoder, items, captions)
    except ModelError:
        return [None] * len(items)
    pictures = [decode_image(item["image"]) for item in items]
    return [_png(_glowing(*one)) for one in zip(pictures, maps, windows, strict=True)]


def _glowing(picture: Image.Image, heat: np.ndarray, window: np.ndarray) -> Image.Image:
    """The picture in grey, coloured where the map is high, its lowest value clear."""
    spread = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-9)
    left, top, right, bottom = (round(float(edge)) for edge in window)
    light = Image.fromarray(np.rint(200 * spread).astype(np.uint8))
    mask = Image.new("L", picture.size, 0)
    size = (max(1, right - left), max(1, bottom - top))
    mask.paste(light.resize(size, Image.Resampling.BILINEAR), (left, top))
    grey = picture.convert("L").convert("RGB")
    return Image.composite(Image.new("RGB", picture.size, _GLOW), grey, mask)


def _png(picture: Image.Image) -> bytes:
    picture.thumbnail((224, 224))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
