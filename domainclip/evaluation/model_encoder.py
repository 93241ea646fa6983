"""Encoding of images and texts with a model, without a cache.

Legend: n items, d embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import Tensor

from domainclip.data.images import frames
from domainclip.data.images.decode import decode_image
from domainclip.data.interfaces import ClassScorer, Encoder
from domainclip.errors import ModelError
from domainclip.evaluation import chunks
from domainclip.models import onednn
from domainclip.models.precision import Precision, computing_in

if TYPE_CHECKING:  # loads transformers, which commands that only read a run folder do without
    from domainclip.models.dual_encoder import DualEncoder


class ModelEncoder(Encoder):
    """An Encoder that runs a model, one chunk at a time. Subclasses define how a whole set is encoded."""

    def __init__(self, model: DualEncoder, precision: Precision = "fp32") -> None:
        self.model, self.precision = model, precision
        # Of a model with a distance of its own, only whole embeddings are known in its space.
        self.has_raw_texts = self.has_patches = model.space is None
        self.scale = float(model.scale.detach())
        self.bias = None if model.bias is None else float(model.bias.detach())
        frames_text = f", {model.frames} pictures" if model.frames > 1 else ""
        self.preprocessing: str = model.image_preprocessor.fingerprint() + frames_text

    @property
    def scorer(self) -> ClassScorer | None:
        """That of the model."""
        return self.model.scorer

    @property
    def width(self) -> int:
        """The width of its embeddings: wider than those of the model in a hyperbolic space."""
        return self.model.width + (0 if self.model.space is None else 3)

    @property
    def device(self) -> str:
        """Part of cache keys: the kernels of another device round differently."""
        return onednn.device_key(next(self.model.parameters()).device.type)

    def preprocess(self, images: Sequence[Image.Image]) -> dict[str, np.ndarray]:
        """The input of the image tower for one item: from its first image, or from all images of a study."""
        if self.model.frames == 1:
            return self.model.image_preprocessor(images[0])
        return frames.stack_frames(
            [self.model.image_preprocessor(image) for image in images], self.model.frames
        )

    def encode_image_chunk(self, inputs: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
        """(n, d) float32 of unit length: the embeddings of one chunk of preprocessed items.

        Raises: ModelError when an embedding is not finite.
        """
        return self._run(self._encode_image, _stack(inputs), "image")

    def _encode_image(self, batch: dict[str, Tensor]) -> Tensor:
        rows, space = self.model.encode_image(batch), self.model.space
        return rows if space is None else space.embed(rows, "image")

    def encode_text(self, batch: dict[str, Tensor]) -> Tensor:
        """(n, d) of unit length, in the space of the model where it has one."""
        rows, space = self.model.encode_text(batch), self.model.space
        return rows if space is None else space.embed(rows, "text")

    def encode_text_chunk(self, texts: Sequence[str], encode: Callable[..., Tensor]) -> np.ndarray:
        """(n, d) float32: the embeddings of one chunk of texts, by `encode`, a method of the model.

        Raises: ModelError when an embedding is not finite.
        """
        return self._run(encode, self.model.text_tokenizer(list(texts)), "text")

    def patches(self, items: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """(n, rows, columns, d) and (n, 4); see `Encoder.patches`. Not cached: they are large.

        Raises: DataError when an image cannot be read; ModelError for a family without a grid of patches.
        """
        from domainclip.models import patch_embeddings

        encode = partial(patch_embeddings.encode_patches, self.model)

        def work(rows: Sequence[int]) -> tuple[np.ndarray, list[tuple[float, float, float, float]]]:
            images = [decode_image(items[row]["image"]) for row in rows]
            batch = _stack([self.model.image_preprocessor(image) for image in images])
            windows = [self.model.image_preprocessor.window(image.size) for image in images]
            return self._run(encode, batch, "image"), windows

        results = chunks.map_chunks(work, range(len(items)))
        vectors = np.concatenate([embeddings for embeddings, _ in results])
        windows = np.array([window for _, chunk_windows in results for window in chunk_windows])
        return vectors.reshape(len(vectors), *patch_embeddings.patch_grid(self.model), -1), windows

    @property
    def has_captioner(self) -> bool:
        """Whether the model has one."""
        return self.model.captioner is not None

    def write_captions(self, items: Dataset, beams: int = 1) -> list[str]:
        """A caption for each item; see `Encoder.write_captions`. Not cached.

        Raises: DataError when an image cannot be read; ModelError for a model without a captioner.
        """

        def work(rows: Sequence[int]) -> list[str]:
            images = [decode_image(items[row]["image"]) for row in rows]
            return self.caption_chunk([self.model.image_preprocessor(image) for image in images], beams)

        results = chunks.map_chunks(work, range(len(items)))
        return [caption for captions in results for caption in captions]

    def caption_chunk(self, inputs: Sequence[dict[str, np.ndarray]], beams: int) -> list[str]:
        """A caption for each of one chunk of preprocessed items.

        Raises: ModelError for a model without a captioner.
        """
        device = next(self.model.parameters()).device
        training = self.model.training
        self.model.eval()
        with computing_in(self.precision, device):
            on_device = {name: value.to(device) for name, value in _stack(inputs).items()}
            captions = self.model.write_captions(on_device, beams)
        self.model.train(training)
        return captions

    def _run(self, encode: Callable[..., Tensor], batch: dict[str, Tensor], modality: str) -> np.ndarray:
        """The output of `encode` in evaluation mode, on the CPU; the mode of the model is restored.

        Raises: ModelError when an embedding is not finite.
        """
        device = next(self.model.parameters()).device
        training = self.model.training
        self.model.eval()
        with torch.inference_mode(), computing_in(self.precision, device):
            on_device = {name: value.to(device) for name, value in batch.items()}
            embeddings: np.ndarray = encode(on_device).float().cpu().numpy()
        self.model.train(training)
        if not np.isfinite(embeddings).all():
            raise ModelError(f"{self.model.base}: an {modality} embedding is not a finite number; retrain it")
        return embeddings


def _stack(inputs: Sequence[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.stack([item[name] for item in inputs])) for name in inputs[0]}
