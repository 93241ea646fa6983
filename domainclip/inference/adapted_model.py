"""A trained model in Python: embeddings, similarities and classes, computed by the code of the commands.

Legend: n images, m texts, c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from scipy.special import softmax

from domainclip.data.cards import Prompts
from domainclip.data.images import frames
from domainclip.data.images.decode import decode_image, upright_rgb
from domainclip.errors import RecipeError
from domainclip.evaluation import chunks, suites
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.evaluation.metrics.zero_shot_scores import class_vectors
from domainclip.models import loading
from domainclip.models.dual_encoder import DualEncoder

ImageInput = str | Path | Image.Image


@dataclass(frozen=True)
class Classification:
    """The most probable class of one image, and the probability of each class."""

    label: str
    probabilities: dict[str, float]  # by class: the softmax of the scaled cosines


class AdaptedModel:
    """Encodes images and texts with a trained model. All embeddings are float32 of unit length."""

    def __init__(self, model: DualEncoder) -> None:
        self.model = model
        self._encoder = CachedEncoder(model)

    @property
    def width(self) -> int:
        """Embedding width d."""
        return self.model.width

    def encode_images(self, images: Sequence[ImageInput | Sequence[ImageInput]]) -> np.ndarray:
        """(n, d) embeddings of PIL images, or of files in any format that a corpus may hold.

        An item may be a sequence of images where the model pools several, such as the views of one study.

        Raises: DataError naming the first image that cannot be read.
        """
        embeddings = [np.zeros((0, self.width), np.float32)]
        for chunk in chunks.split(images):
            inputs = [self._preprocess(image) for image in chunk]
            embeddings.append(self._encoder.encode_image_chunk(inputs))
        return np.concatenate(embeddings)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(m, d) embeddings; a text is truncated to the model's token limit."""
        return self._encoder.texts(list(texts)) if texts else np.zeros((0, self.width), np.float32)

    def similarity(
        self, images: Sequence[ImageInput | Sequence[ImageInput]], texts: Sequence[str]
    ) -> np.ndarray:
        """(n, m) cosines of images and texts, rounded as in reports."""
        return rounded_cosines(self.encode_images(images), self.encode_texts(texts))

    def classify(
        self,
        images: Sequence[ImageInput | Sequence[ImageInput]],
        classes: Sequence[str] | Mapping[str, Sequence[str]],
        templates: Sequence[str] = tuple(suites.TEMPLATES),
    ) -> list[Classification]:
        """The most probable class of each image.

        `classes` are names, which replace {} in each of the `templates`, or a mapping of names to prompts.

        Raises: RecipeError for a template without {}, or fewer than two classes; DataError naming the first
        image that cannot be read.
        """
        prompts = _class_prompts(classes, templates)
        vectors = class_vectors(self._encoder, list(prompts.values()))
        logits = rounded_cosines(self.encode_images(images), vectors) * self._encoder.scale
        return [_most_probable(list(prompts), row) for row in softmax(logits, axis=1)]

    def _preprocess(self, image: ImageInput | Sequence[ImageInput]) -> dict[str, np.ndarray]:
        views = [image] if isinstance(image, str | Path | Image.Image) else list(image)
        sampled = frames.sample_frames(views, self.model.frames)
        return self._encoder.preprocess([_open(view) for view in sampled])


def load_model(run: str | Path, device: str | torch.device | None = None) -> AdaptedModel:
    """The model of a run folder, of a model folder, or of a Hub id.

    `device` defaults to the GPU where there is one.

    Raises: ModelError when the model does not exist or cannot be read.
    """
    folder = Path(run) / "model"
    model = loading.load_model(folder if folder.is_dir() else run)
    return AdaptedModel(model.to(device or PartialState().device))


def _open(image: ImageInput) -> Image.Image:
    if isinstance(image, Image.Image):
        return upright_rgb(image)
    return decode_image({"path": str(image), "bytes": None})


def _class_prompts(
    classes: Sequence[str] | Mapping[str, Sequence[str]], templates: Sequence[str]
) -> dict[str, list[str]]:
    if len(classes) < 2:
        raise RecipeError(f"classes: {len(classes)} given; name two or more to choose among")
    if isinstance(classes, Mapping):
        return {name: list(prompts) for name, prompts in classes.items()}
    names_only = {name: Prompts(positive=[name]) for name in classes}
    filled = suites.with_templates(names_only, list(templates))
    return {name: prompts.positive for name, prompts in filled.items()}


def _most_probable(names: Sequence[str], probabilities: np.ndarray) -> Classification:
    by_name = {name: float(value) for name, value in zip(names, probabilities, strict=True)}
    return Classification(max(by_name, key=by_name.__getitem__), by_name)
