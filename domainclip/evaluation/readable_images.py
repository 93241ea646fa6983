"""Decoding and encoding of the readable images of a set, for several models in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image

from domainclip.data.images import frames
from domainclip.data.images.decode import decode_image
from domainclip.errors import DataError
from domainclip.evaluation import chunks
from domainclip.evaluation.model_encoder import ModelEncoder
from domainclip.evaluation.preprocessed_images import Inputs, PreprocessedImages


def encode_readable(
    encoders: Mapping[Any, ModelEncoder], items: Dataset, memory: PreprocessedImages
) -> tuple[list[int], dict[Any, np.ndarray]]:
    """The rows whose image can be read, and their (n, d) embeddings by the keys of `encoders`.

    An image is decoded once, and preprocessed once for all encoders with equal preprocessing; not at all
    where its inputs are in `memory`.
    """
    by_preprocessing = {encoder.preprocessing: encoder for encoder in encoders.values()}
    counts = {encoder.model.frames for encoder in by_preprocessing.values()}

    names = tuple(sorted(by_preprocessing))

    def preprocess(row: int) -> Inputs | None:
        return memory.get((items._fingerprint, names, row), lambda: make(row))

    def make(row: int) -> Inputs | None:
        try:
            images = _decode_item(items[row], counts)
            return {
                name: encoder.preprocess(images[encoder.model.frames])
                for name, encoder in by_preprocessing.items()
            }
        except DataError:
            return None

    def load(row_chunks: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, Inputs | None]]]:
        for rows, inputs in zip(row_chunks, chunks.load_ahead(preprocess, row_chunks), strict=True):
            yield list(zip(rows, inputs, strict=True))

    def encode(chunk: Sequence[tuple[int, Inputs | None]]) -> tuple[list[int], dict[Any, np.ndarray]]:
        readable = {row: inputs for row, inputs in chunk if inputs is not None}
        if not readable:
            return [], {}
        embeddings = {
            key: encoder.encode_image_chunk([inputs[encoder.preprocessing] for inputs in readable.values()])
            for key, encoder in encoders.items()
        }
        return list(readable), embeddings

    results = [result for result in chunks.map_chunks(encode, range(len(items)), load) if result[0]]
    rows = [row for chunk_rows, _ in results for row in chunk_rows]
    if not results:
        return rows, {}
    return rows, {key: np.concatenate([embeddings[key] for _, embeddings in results]) for key in encoders}


def _decode_item(row: dict[str, Any], counts: set[int]) -> dict[int, list[Image.Image]]:
    """The readable ones among the images that a model receives of an item, by the number that it receives.

    Raises: DataError when none of them can be read.
    """
    images = [row["image"], *(row["views"] if max(counts) > 1 else ())]
    sampled = {count: frames.sample_frames(range(len(images)), count) for count in counts}
    decoded, fault = {}, DataError("no image")
    for index in sorted({index for indices in sampled.values() for index in indices}):
        try:
            decoded[index] = decode_image(images[index])
        except DataError as error:
            fault = error
    readable = {
        count: [decoded[index] for index in indices if index in decoded] for count, indices in sampled.items()
    }
    if not all(readable.values()):
        raise fault
    return readable
