"""What a checkpoint expects of an image, as one picklable value that needs no model and no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from domainclip.errors import DataError, ModelError

_WAY_OUT = "; choose a base that resizes, crops and normalises only"
# A sliver of an image, scaled until its short edge fits, can outgrow any memory; nothing real is this big.
_MAX_PIXELS = 2**28


@dataclass(frozen=True)
class ImagePreprocessor:
    """RGB image to uint8 pixels, step for step as the checkpoint's own processor does it.

    Rescaling and normalising are left to the device (`rescale`, `mean`, `std`): a quarter of the bytes
    travel, and prepared pixels can be kept as they are.
    """

    resize: int | tuple[int, int] | None  # the shortest edge, or exactly (h, w)
    crop: tuple[int, int] | None  # (h, w), from the centre
    resample: int  # Pillow's number of the filter
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: int | None = None  # set when the image keeps its aspect ratio and is cut into patches
    max_patches: int = 0

    @classmethod
    def of(cls, processor: Any, where: str) -> ImagePreprocessor:
        """The steps of a transformers image processor of the PIL backend.

        Raises: ModelError when a step or option of it would be left out, naming it.
        """
        patch, most = _patches(processor)
        resize, crop = (None, None) if patch else _sizes(processor, where)
        return cls(
            resize=resize,
            crop=crop,
            resample=int(processor.resample),
            rescale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
            mean=_channels(processor.image_mean) if processor.do_normalize else (0.0, 0.0, 0.0),
            std=_channels(processor.image_std) if processor.do_normalize else (1.0, 1.0, 1.0),
            patch=patch,
            max_patches=most,
        )

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of what comes out; for patches, of the square that fills them."""
        if self.patch:
            side = math.isqrt(self.max_patches) * self.patch
            return side, side
        size = self.crop or self.resize
        assert isinstance(size, tuple)
        return size

    def __call__(self, image: Image.Image) -> dict[str, np.ndarray]:
        """`pixels` (h, w, 3) uint8; of patches (max_patches, patch * patch * 3) and `grid`, rows and columns.

        Raises: DataError for an image too narrow to be resized.
        """
        if self.patch:
            return self._in_patches(image, self.patch)
        image = image.resize(self._target(image.size), self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            # Pillow fills with zeros where the box is larger than the image, as the processors do.
            image = image.crop((left, top, left + width, top + height))
        return {"pixels": np.array(image)}

    def fingerprint(self) -> str:
        """A key for everything computed from these pixels."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what is kept of a picture of (width, height), in its own pixels."""
        if self.patch or self.crop is None:
            return 0.0, 0.0, float(size[0]), float(size[1])
        target, crop = self._target(size), self.crop[::-1]
        low = [(whole - part) // 2 for whole, part in zip(target, crop, strict=True)]
        back = [edge / whole for edge, whole in zip(size, target, strict=True)]
        left, top = (first * unit for first, unit in zip(low, back, strict=True))
        right, bottom = ((first + part) * unit for first, part, unit in zip(low, crop, back, strict=True))
        return left, top, right, bottom

    def _target(self, size: tuple[int, int]) -> tuple[int, int]:
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        assert self.resize is not None
        short = min(size)
        # The longer edge is cut, not rounded: the processors do so.
        width, height = (int(self.resize * edge / short) for edge in size)
        if width * height > _MAX_PIXELS:
            raise DataError(f"an image of {size[0]} by {size[1]} pixels is too narrow to be resized")
        return width, height

    def _in_patches(self, image: Image.Image, patch: int) -> dict[str, np.ndarray]:
        # The search for the largest size that fits is transformers' own; its result is not a formula.
        from transformers.models.siglip2.image_processing_pil_siglip2 import (
            get_image_size_for_max_num_patches,
        )

        height, width = get_image_size_for_max_num_patches(image.height, image.width, patch, self.max_patches)
        pixels = np.array(image.resize((width, height), self.resample))
        rows, columns = height // patch, width // patch
        cut = pixels.reshape(rows, patch, columns, patch, 3).swapaxes(1, 2).reshape(rows * columns, -1)
        padded = np.zeros((self.max_patches, cut.shape[1]), np.uint8)
        padded[: len(cut)] = cut
        return {"pixels": padded, "grid": np.array([rows, columns])}


def _patches(processor: Any) -> tuple[int | None, int]:
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    if type(processor) is Siglip2ImageProcessorPil and processor.do_resize:
        return processor.patch_size, processor.max_num_patches
    return None, 0


def _sizes(processor: Any, where: str) -> tuple[int | tuple[int, int], tuple[int, int] | None]:
    _refuse_own_steps(processor, where)
    crop = _pair(processor.crop_size) if processor.do_center_crop else None
    size = dict(processor.size) if processor.do_resize else {}
    if set(size) == {"height", "width"}:
        return _pair(size), crop
    if set(size) != {"shortest_edge"}:
        option = f"size: {dict(sorted(size.items()))}" if size else "do_resize: false"
        raise ModelError(f"{where}: preprocessor option {option} is not supported{_WAY_OUT}")
    if crop is None:
        raise ModelError(f"{where}: preprocessor option do_center_crop: false leaves any shape{_WAY_OUT}")
    return size["shortest_edge"], crop


def _refuse_own_steps(processor: Any, where: str) -> None:
    from transformers.image_processing_backends import PilBackend
    from transformers.processing_utils import ImagesKwargs

    kind = type(processor)
    if processor.do_pad:
        raise ModelError(f"{where}: preprocessor option do_pad: true is not supported{_WAY_OUT}")
    steps = ("_preprocess", "resize", "center_crop", "rescale", "normalize")
    if all(getattr(kind, step, None) is getattr(PilBackend, step) for step in steps):
        return
    own = sorted(set(kind.valid_kwargs.__annotations__) - set(ImagesKwargs.__annotations__))
    named = f"options of its own ({', '.join(own)})" if own else "steps of its own"
    raise ModelError(f"{where}: {kind.__name__.removesuffix('Pil')} has {named}, not supported{_WAY_OUT}")


def _pair(size: Any) -> tuple[int, int]:
    size = dict(size)
    return size["height"], size["width"]


def _channels(value: Any) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(float(v) for v in value)
