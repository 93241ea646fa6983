"""A trained model in Python: embeddings, similarities and classes, computed by the code of the commands.

Legend: n images, m texts, c classes, d embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image

from domainclip import disk_cache
from domainclip.data.cards import Prompts
from domainclip.data.images import frames
from domainclip.data.images.decode import decode_image, upright_rgb
from domainclip.errors import RecipeError, did_you_mean
from domainclip.evaluation import chunks, run_classes
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.evaluation.run_classes import RunClasses
from domainclip.inference import image_sources
from domainclip.inference.classifier import Classification, Classifier, ClassQuestion, Findings, ask
from domainclip.models import checkpoint_files, loading
from domainclip.models.dual_encoder import DualEncoder

ImageInput = str | Path | Image.Image


class AdaptedModel:
    """Encodes images and texts with a trained model. All embeddings are float32 of unit length.

    `recorded` are the classes of the model's run with their prompts, thresholds and temperature, if any.
    """

    def __init__(self, model: DualEncoder, recorded: RunClasses | None = None) -> None:
        self.model = model
        self.recorded = recorded
        self.encoder = CachedEncoder(model)

    @property
    def width(self) -> int:
        """Embedding width d."""
        return self.encoder.width

    @property
    def rendering(self) -> image_sources.Rendering:
        """How files of more than 8 bits are shown: as in the corpus of the run."""
        if self.recorded is None:
            return image_sources.Rendering()
        return image_sources.Rendering(self.recorded.images, self.recorded.dicom_window)

    @property
    def fingerprint(self) -> str:
        """A hash of the weights and of the preprocessing: equal models give equal embeddings."""
        return disk_cache.key(self.encoder.image_key, self.encoder.text_key)

    def encode_images(self, images: Sequence[ImageInput | Sequence[ImageInput]]) -> np.ndarray:
        """(n, d) embeddings of PIL images, or of files in any format that a corpus may hold.

        An item may be a sequence of images where the model pools several, such as the views of one study.

        Raises: DataError naming the first image that cannot be read.
        """
        embeddings = [np.zeros((0, self.width), np.float32)]
        for chunk in chunks.split(images):
            inputs = [self._preprocess(image) for image in chunk]
            embeddings.append(self.encoder.encode_image_chunk(inputs))
        return np.concatenate(embeddings)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(m, d) embeddings; a text is truncated to the model's token limit."""
        return self.encoder.texts(list(texts)) if texts else np.zeros((0, self.width), np.float32)

    def write_captions(
        self, images: Sequence[ImageInput | Sequence[ImageInput]], beams: int = 3
    ) -> list[str]:
        """A caption for each of n images, by the captioner that the objective `captioning` has trained.

        It is the most probable of those that a search with `beams` candidates tries, and may be wrong.

        Raises: ModelError for a model without a captioner; DataError naming the first image that cannot be
        read.
        """
        captions: list[str] = []
        for chunk in chunks.split(images):
            captions += self.encoder.caption_chunk([self._preprocess(image) for image in chunk], beams)
        return captions

    def similarity(
        self, images: Sequence[ImageInput | Sequence[ImageInput]], texts: Sequence[str]
    ) -> np.ndarray:
        """(n, m) cosines of images and texts, rounded as in reports."""
        return rounded_cosines(self.encode_images(images), self.encode_texts(texts))

    def classify(
        self,
        images: Sequence[ImageInput | Sequence[ImageInput]],
        classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        templates: Sequence[str] = (),
    ) -> list[Classification]:
        """The most probable class of each image, as if the classes excluded each other.

        `classes` are names, which replace {} in each of the `templates`, or a mapping of names to prompts; by
        default those of the run, with its prompts and its temperature.

        Raises: RecipeError for a template without {}, or fewer than two classes; DataError naming the first
        image that cannot be read.
        """
        question = ask(self.recorded, _prompts(classes), templates)
        if question.multi_label:  # whose temperature is that of separate questions
            question = ClassQuestion(question.classes)
        if len(question.classes) < 2:
            raise RecipeError(f"classes: {len(question.classes)} given; name two or more to choose among")
        return Classifier(self.encoder, question).classify(self.encode_images(images))

    def find(
        self,
        images: Sequence[ImageInput | Sequence[ImageInput]],
        classes: Sequence[str] | None = None,
    ) -> list[Findings]:
        """Each class of each image as a separate question; by default the classes of the run.

        Raises: RecipeError for a class that is none of the run; DataError naming the first image that cannot
        be read.
        """
        known = self.recorded.classes if self.recorded is not None else {}
        for name in classes or ():
            if name not in known:
                raise RecipeError(f'classes: the run has no class "{name}": {did_you_mean(name, known)}')
        question = ask(self.recorded, _prompts(classes))
        if not question.multi_label:  # whose temperature is that of classes that compete
            question = ClassQuestion(question.classes, multi_label=True)
        return Classifier(self.encoder, question).find(self.encode_images(images))

    def _preprocess(self, image: ImageInput | Sequence[ImageInput]) -> dict[str, np.ndarray]:
        views = [image] if isinstance(image, str | Path | Image.Image) else list(image)
        sampled = frames.sample_frames(views, self.model.frames)
        return self.encoder.preprocess([self._open(view) for view in sampled])

    def _open(self, image: ImageInput) -> Image.Image:
        if isinstance(image, Image.Image):
            return upright_rgb(image)
        source = image_sources.ImageSource(str(image), {"path": str(image), "bytes": None})
        return decode_image(self.rendering.applied(source).image)


def load_model(run: str | Path, device: str | torch.device | None = None) -> AdaptedModel:
    """The model of a run folder, of a model or checkpoint folder, or of a Hub id.

    `device` defaults to the GPU where there is one.

    Raises: ModelError when the model does not exist or cannot be read.
    """
    folder = Path(run).expanduser() / "model"
    weights = folder if folder.is_dir() else run
    model = loading.load_model(weights)
    place = Path(weights).expanduser()
    if not place.is_dir():  # the files of the Hub, which are in the cache now
        place, _ = checkpoint_files.find_checkpoint(str(weights), None)
    return AdaptedModel(model.to(device or PartialState().device), run_classes.beside_weights(place))


def _prompts(classes: Sequence[str] | Mapping[str, Sequence[str]] | None) -> dict[str, Prompts] | None:
    if isinstance(classes, Mapping):
        return {name: Prompts(positive=list(prompts)) for name, prompts in classes.items()}
    return None if classes is None else {name: Prompts(positive=[name]) for name in classes}
