"""Embeddings of images as a stream: threads decode the next chunks while the model encodes one.

Legend: n images of a chunk, d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from domainclip.data.images.decode import decode_image
from domainclip.errors import UnreadableImage
from domainclip.evaluation import chunks
from domainclip.evaluation.model_encoder import ModelEncoder
from domainclip.inference.image_sources import ImageSource
from domainclip.inference.progress import CountProgress


@dataclass(frozen=True)
class UnreadableSource:
    """An image that cannot be read, with the reason, which quotes no value of the file."""

    name: str
    reason: str


@dataclass(frozen=True)
class LoadedImages:
    """One chunk of images, preprocessed: the positions of those that can be read, and the others."""

    rows: list[int]  # (n,) positions among the sources
    inputs: list[dict[str, np.ndarray]]  # (n,)
    faults: dict[int, str]  # by position: why an image cannot be read


@dataclass(frozen=True)
class EncodedImages:
    """One chunk of images: the positions of those that can be read, their embeddings, and the others."""

    rows: list[int]  # (n,) positions among the sources
    embeddings: np.ndarray  # (n, d) float32 of unit length
    faults: dict[int, str]  # by position: why an image cannot be read


def load_stream(encoder: ModelEncoder, sources: Sequence[ImageSource]) -> Iterator[LoadedImages]:
    """The preprocessed images of all sources, in order, in chunks of the size that an evaluation has.

    Memory: a few chunks of preprocessed images.
    """

    def load(row: int) -> dict[str, np.ndarray] | str:
        if sources[row].fault:
            return sources[row].fault
        try:
            return encoder.preprocess([decode_image(sources[row].image)])
        except UnreadableImage as error:
            return error.reason

    row_chunks = list(chunks.split(range(len(sources))))
    for rows, loaded in zip(row_chunks, chunks.load_ahead(load, row_chunks), strict=True):
        inputs = {row: one for row, one in zip(rows, loaded, strict=True) if not isinstance(one, str)}
        faults = {row: one for row, one in zip(rows, loaded, strict=True) if isinstance(one, str)}
        yield LoadedImages(list(inputs), list(inputs.values()), faults)


def encode_stream(
    encoder: ModelEncoder, sources: Sequence[ImageSource], progress: CountProgress
) -> Iterator[EncodedImages]:
    """The embeddings of all sources, in order; chunks and memory as of `load_stream`."""
    for chunk in load_stream(encoder, sources):
        embeddings = np.zeros((0, encoder.width), np.float32)
        if chunk.inputs:
            embeddings = encoder.encode_image_chunk(chunk.inputs)
        yield EncodedImages(chunk.rows, embeddings, chunk.faults)
        progress.advance(len(chunk.rows) + len(chunk.faults))
