"""The contact sheet: items as the model sees them in the first epoch."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from markupsafe import Markup
from PIL import Image

from domainclip.data.batching.caption_sampling import TokenLimit
from domainclip.data.batching.pairs import Pairs, preprocess_image
from domainclip.data.dicom import reading, rendering
from domainclip.data.files import locations
from domainclip.data.images.decode import MAX_PIXELS, decode_image
from domainclip.data.images.fits import describe_fits
from domainclip.data.images.fits_settings import is_fits
from domainclip.data.schema import SPLITS
from domainclip.errors import UnreadableImage
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines.data_check.check import CorpusCheck

_PLAIN = 224  # pixels of an image that no base preprocesses


@dataclass(frozen=True)
class ShownItem:
    """One item of the sheet."""

    id: str  # a pseudonym, unless the card says that nothing identifies
    split: str
    place: str
    source: str  # the image, as a data: URI; empty when it cannot be read
    problem: str
    read: str  # the part of the caption that the model reads
    cut: str  # the part that is truncated
    tokens: int
    labels: list[str]
    pipeline: str  # how a DICOM or FITS file was rendered


def items(corpus_check: CorpusCheck, number: int) -> Iterator[ShownItem]:
    """`number` items, spread evenly over the splits by their sizes, at least one of each."""
    total = sum(len(corpus_check.corpus.splits[name]) for name in SPLITS)
    for name in SPLITS:
        rows = corpus_check.corpus.splits[name]
        share = min(len(rows), max(1, round(number * len(rows) / max(1, total)))) if len(rows) else 0
        draw = _draw(corpus_check, name, rows)
        for k in range(share):
            yield draw(k * len(rows) // share)


def _draw(corpus_check: CorpusCheck, split: str, rows: Dataset) -> Callable[[int], ShownItem]:
    pairs = _pairs(corpus_check, rows) if split == "train" else None

    def shown(row: int) -> ShownItem:
        item = rows[row]
        problem, source, text = "", "", next(iter(item["texts"]), "")
        try:
            if pairs is not None:
                pair = pairs[0, row]
                # An unreadable image would be replaced: report it, instead of showing another one.
                if pair.index != row:
                    raise UnreadableImage("", pair.unusable[0].reason)
                text, source = pair.text, _source(_picture(pair.image or {}, corpus_check.base))
            else:
                source = _source(_held_out(item["image"], corpus_check.base))
        except UnreadableImage as error:
            problem = error.reason
        read, cut, tokens = fits(text, corpus_check.base)
        id = str(item["id"])
        return ShownItem(
            id=id,
            split=split,
            place=corpus_check.corpus.locations.get(id, ""),
            source=source,
            problem=problem,
            read=read,
            cut=cut,
            tokens=tokens,
            labels=list(item["labels"]),
            pipeline="" if problem else _pipeline(item["image"]),
        )

    return shown


def _pairs(corpus_check: CorpusCheck, rows: Dataset) -> Pairs | None:
    """The pairs of the first epoch, exactly as training draws them."""
    recipe, base = corpus_check.target.recipe, corpus_check.base
    if recipe is None or base is None or not len(rows):
        return None
    card = corpus_check.corpus.card
    return Pairs(
        rows,
        base.image_preprocessor,
        seed=recipe.train.seed,
        augmentation=recipe.train.augmentation,
        captions=card.captions,
        token_limit=TokenLimit(base.text_tokenizer.count, base.max_tokens)
        if card.captions.overlong == "window"
        else None,
        views=card.views,
        matched_by=card.columns.matched_by,
    )


def fits(text: str, base: DualEncoder | None) -> tuple[str, str, int]:
    """The part of a caption that the base reads, the part that is truncated, and its length in tokens."""
    if base is None:
        return text, "", 0
    tokens = base.text_tokenizer.count([text])[0]
    if tokens <= base.max_tokens:
        return text, "", tokens
    low, high = 0, len(text)
    while high - low > 1:  # the longest beginning that fits
        middle = (low + high) // 2
        fits = base.text_tokenizer.count([text[:middle]])[0] <= base.max_tokens
        low, high = (middle, high) if fits else (low, middle)
    return text[:low], text[low:], tokens


def _held_out(image: dict[str, Any], base: DualEncoder | None) -> Image.Image:
    picture = decode_image(image)
    if base is not None:
        return _picture(preprocess_image(picture, base.image_preprocessor, image), base)
    picture.thumbnail((_PLAIN, _PLAIN))
    return picture


def _picture(image: dict[str, np.ndarray], base: DualEncoder | None) -> Image.Image:
    """Preprocessed pixels as an image again; patches are laid side by side."""
    pixels = image["pixels"]
    if "grid" in image and base is not None and base.image_preprocessor.patch:
        side, (rows, columns) = base.image_preprocessor.patch, image["grid"]
        patches = pixels[: rows * columns].reshape(rows, columns, side, side, 3)
        pixels = patches.swapaxes(1, 2).reshape(rows * side, columns * side, 3)
    return Image.fromarray(pixels)


def _source(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return Markup("data:image/jpeg;base64,{}").format(base64.b64encode(stream.getvalue()).decode("ascii"))


def _pipeline(image: dict[str, Any]) -> str:
    """ "modality rescale 1 -1024; window 40/400; 8 bit"; of FITS, the HDU and the stretch; else nothing."""
    name = str(image["path"] or "")
    file, inside = locations.split_location(name)
    try:
        data = image["bytes"] if image["bytes"] is not None else locations.read_location(name)
        if is_fits(data):
            return describe_fits(data, file, inside, MAX_PIXELS)
        if not reading.is_dicom(data):
            return ""
        return rendering.describe_rendering(
            data, name, MAX_PIXELS, inside.get("frame", 0), inside.get("window", 0)
        )
    except (OSError, UnreadableImage):
        return ""
