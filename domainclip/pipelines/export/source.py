"""The model of a run with plain weights, and the inputs on which an exported model must agree with it.

Legend: n images, m texts, d embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from domainclip.data.cards import Prompts
from domainclip.distributed.folder_lock import refuse_if_in_use
from domainclip.errors import ModelError
from domainclip.evaluation import run_classes
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.run_classes import RunClasses
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.learned_prompts import LEARNED_TOKENS
from domainclip.models.loading import load_model
from domainclip.models.plain_weights import make_plain
from domainclip.pipelines.run_checks import check_run_model

TEXTS = [
    *("", "a", "cat", "a photo of a dog", "no pleural effusion", "1.5 cm nodule, left lower lobe?"),
    *("eine rote Blüte", "一张猫的照片", "صورة", "🌌 M31", "UPPER CASE", "a small round spot " * 40),
]
_IMAGES = 8


@dataclass(frozen=True)
class Outputs:
    """What a model computes from fixed inputs. Embeddings are float32 of unit length."""

    images: np.ndarray  # (n, d)
    texts: np.ndarray  # (m, d)
    scale: float
    bias: float  # 0 for a model without

    def difference(self, other: Outputs) -> float:
        """The largest difference of any number; NaN where one of them is NaN."""
        pairs = [(self.images, other.images), (self.texts, other.texts)]
        largest = [np.abs(one - two).max() for one, two in pairs]
        # numpy's maximum is NaN where a value is; Python's is not.
        return float(np.max([*largest, abs(self.scale - other.scale), abs(self.bias - other.bias)]))


@dataclass(frozen=True)
class ExportSource:
    """The model of a run with plain weights in fp32, and what was recorded about its classes."""

    run: Path
    model: DualEncoder
    classes: RunClasses | None
    expected: Outputs  # of the run's model as it was loaded, before its adapter was merged

    @cached_property
    def encoder(self) -> CachedEncoder:
        """The encoder of the model with plain weights."""
        return CachedEncoder(self.model)

    @property
    def text_prefix(self) -> str:
        """The learned context that stands before every text; empty where there is none."""
        return str(self._learned_tokens.get("before", {}).get("", ""))

    @property
    def inserts_by_class(self) -> bool:
        """Whether the learned tokens of a text depend on the class that it names."""
        learned = self._learned_tokens
        return bool(learned.get("names")) or any(learned.get("before", {}).keys() - {""})

    @property
    def prompts(self) -> dict[str, Prompts]:
        """The prompts of each class as the tokenizer reads them, with learned tokens."""
        classes = self.classes.classes if self.classes is not None else {}
        write = self.model.text_tokenizer.insert_learned_tokens
        return {
            name: Prompts(positive=write(prompts.positive), negative=write(prompts.negative))
            for name, prompts in classes.items()
        }

    @property
    def _learned_tokens(self) -> dict[str, dict[str, str]]:
        return self.model.text_tokenizer.hf_tokenizer.init_kwargs.get(LEARNED_TOKENS) or {}


def open_source(run: Path) -> ExportSource:
    """The model of a run; the update of an adapter is added to the weights in fp32.

    Whatever precision the run was trained in: the addition in bf16 alone would cost 1e-2.

    Raises: ModelError when the run cannot be read, or its adapter cannot be merged.
    """
    check_run_model(run)
    refuse_if_in_use(run)
    model = load_model(run / "model")
    if model.scorer is not None:
        raise ModelError(
            f"{run}: its classes are scored with features of support items, which no export holds: use "
            "domainclip.load_model, or export its base"
        )
    expected = outputs(model)
    make_plain(model, str(run))
    return ExportSource(run, model.eval(), run_classes.beside_weights(run / "model"), expected)


def outputs(model: DualEncoder) -> Outputs:
    """The outputs of a model for `TEXTS` and `fixed_images`."""
    preprocessed = [model.image_preprocessor(image) for image in fixed_images(model.image_size)]
    pixels = {key: torch.from_numpy(np.stack([one[key] for one in preprocessed])) for key in preprocessed[0]}
    with torch.inference_mode():
        images = model.encode_image(pixels).numpy()
        texts = model.encode_text(model.text_tokenizer(TEXTS)).numpy()
    bias = 0.0 if model.bias is None else float(model.bias.detach())
    return Outputs(images, texts, float(model.scale.detach()), bias)


def fixed_images(size: tuple[int, int]) -> list[Image.Image]:
    """Fixed images of the size (h, w) that the model reads: libraries differ in how they resize."""
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(_IMAGES)]


def drawn_images(count: int) -> Sequence[Image.Image]:
    """Smooth images of several shapes, where no corpus is at hand."""
    draw = np.random.default_rng(1)
    images = []
    for _ in range(count):
        blocks = draw.integers(0, 256, (*draw.integers(2, 7, size=2), 3), dtype=np.uint8)
        width, height = (int(edge) for edge in draw.integers(40, 400, size=2))
        images.append(Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC))
    return images
