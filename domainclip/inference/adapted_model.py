"""A trained model in Python: embeddings, similarities and classes, by the code that the commands use.

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
from domainclip.evaluation import suites
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.evaluation.metrics.zero_shot_scores import class_vectors
from domainclip.models import loading
from domainclip.models.dual_encoder import DualEncoder

ImageInput = str | Path | Image.Image
_CHUNK = 32  # images that are encoded together


@dataclass(frozen=True)
class Classification:
    """The class of one image, and the probability of each class: a softmax over scaled cosines."""

    label: str
    probabilities: dict[str, float]


class AdaptedModel:
    """Encodes images and texts with the model of a run. All embeddings are float32 of unit length."""

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
        rows = [np.zeros((0, self.width), np.float32)]
        for start in range(0, len(images), _CHUNK):
            chunk = [self._preprocess(image) for image in images[start : start + _CHUNK]]
            rows.append(self._encoder.image_rows(chunk))
        return np.concatenate(rows)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(m, d) embeddings; what exceeds the model's token limit is cut."""
        return self._encoder.texts(list(texts)) if texts else np.zeros((0, self.width), np.float32)

    def similarity(
        self, images: Sequence[ImageInput | Sequence[ImageInput]], texts: Sequence[str]
    ) -> np.ndarray:
        """(n, m) cosines between images and texts, rounded as the reports round them."""
        return rounded_cosines(self.encode_images(images), self.encode_texts(texts))

    def classify(
        self,
        images: Sequence[ImageInput | Sequence[ImageInput]],
        classes: Sequence[str] | Mapping[str, Sequence[str]],
        templates: Sequence[str] = tuple(suites.TEMPLATES),
    ) -> list[Classification]:
        """The most similar of the classes for each image.

        `classes` are names, put into each of the `templates` at {}, or names with prompts written out.

        Raises: RecipeError for a template without {}, or fewer than two classes.
        """
        prompts = _class_prompts(classes, templates)
        vectors = class_vectors(self._encoder, list(prompts.values()))
        logits = rounded_cosines(self.encode_images(images), vectors) * self._encoder.scale
        return [_most_probable(list(prompts), row) for row in softmax(logits, axis=1)]

    def _preprocess(self, image: ImageInput | Sequence[ImageInput]) -> dict[str, np.ndarray]:
        views = [image] if isinstance(image, str | Path | Image.Image) else list(image)
        chosen = frames.sample_frames(views, self.model.frames)
        return self._encoder.prepare([_open(view) for view in chosen])


def load_model(run: str | Path, device: str | torch.device | None = None) -> AdaptedModel:
    """The model of a run folder, of a model folder, or of a Hub id, ready to encode.

    `device` defaults to the GPU where there is one.

    Raises: ModelError in one line, for whatever cannot be found or read.
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
    bare = {name: Prompts(positive=[name]) for name in classes}
    return {name: p.positive for name, p in suites.with_templates(bare, list(templates)).items()}


def _most_probable(names: Sequence[str], probabilities: np.ndarray) -> Classification:
    pairs = {name: float(value) for name, value in zip(names, probabilities, strict=True)}
    return Classification(max(pairs, key=pairs.__getitem__), pairs)
