"""Images to pixels as a checkpoint expects them: one picklable value that needs neither model nor torch."""

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

_REMEDY = "; choose a base that resizes, crops and normalizes only"
# A very narrow image, scaled until its short edge fits, can exceed any memory; no real image is this large.
_MAX_PIXELS = 2**28


@dataclass(frozen=True)
class ImagePreprocessor:
    """RGB image to uint8 pixels, step for step as the checkpoint's own processor does it.

    Rescaling and normalizing are left to the device (`rescale`, `mean`, `std`): a quarter of the bytes are
    transferred, and preprocessed pixels can be cached unchanged.
    """

    resize: int | tuple[int, int] | None  # to the shortest edge, or exactly to (h, w)
    crop: tuple[int, int] | None  # (h, w), from the centre
    resample: int  # Pillow's number for the filter
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: int | None = None  # set when the image keeps its aspect ratio and is cut into patches
    max_patches: int = 0

    @classmethod
    def of(cls, processor: Any, where: str) -> ImagePreprocessor:
        """The steps of a transformers image processor of the PIL backend.

        Raises: ModelError that names a step or option that is not supported.
        """
        patch, max_patches = _patches(processor)
        resize, crop = (None, None) if patch else _sizes(processor, where)
        return cls(
            resize=resize,
            crop=crop,
            resample=int(processor.resample),
            rescale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
            mean=_channels(processor.image_mean) if processor.do_normalize else (0.0, 0.0, 0.0),
            std=_channels(processor.image_std) if processor.do_normalize else (1.0, 1.0, 1.0),
            patch=patch,
            max_patches=max_patches,
        )

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the result; for patches, of the square that fills them."""
        if self.patch:
            side = math.isqrt(self.max_patches) * self.patch
            return side, side
        size = self.crop or self.resize
        assert isinstance(size, tuple)
        return size

    def __call__(self, image: Image.Image) -> dict[str, np.ndarray]:
        """`pixels` (h, w, 3) uint8; or patches (max_patches, patch * patch * 3) and `grid` (rows, columns).

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

    @property
    def but_size(self) -> tuple[object, ...]:
        """Everything but the size: equal where two preprocessors show the same part of an image."""
        height, width = self.size
        enlarged = None  # the shortest edge, in edges of the crop
        if isinstance(self.resize, int) and self.crop is not None:
            enlarged = round(self.resize / min(self.crop), 2)
        shape = (height / width, isinstance(self.resize, tuple), enlarged)
        return *shape, self.resample, self.rescale, self.mean, self.std, self.patch

    def fingerprint(self) -> str:
        """Cache key of everything computed from these pixels."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self)).encode()).hexdigest()

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the used part of an image of (width, height), in its pixels."""
        if self.patch or self.crop is None:
            return 0.0, 0.0, float(size[0]), float(size[1])
        target, crop = self._target(size), self.crop[::-1]
        starts = [(whole - part) // 2 for whole, part in zip(target, crop, strict=True)]
        scales = [edge / whole for edge, whole in zip(size, target, strict=True)]
        left, top = (start * scale for start, scale in zip(starts, scales, strict=True))
        right, bottom = (
            (start + part) * scale for start, part, scale in zip(starts, crop, scales, strict=True)
        )
        return left, top, right, bottom

    def _target(self, size: tuple[int, int]) -> tuple[int, int]:
        if isinstance(self.resize, tuple):
            return self.resize[1], self.resize[0]
        assert self.resize is not None
        short = min(size)
        # The longer edge is truncated, not rounded, as in the processors.
        width, height = (int(self.resize * edge / short) for edge in size)
        if width * height > _MAX_PIXELS:
            raise DataError(f"an image of {size[0]} by {size[1]} pixels is too narrow to be resized")
        return width, height

    def _in_patches(self, image: Image.Image, patch: int) -> dict[str, np.ndarray]:
        # transformers searches for the largest size that fits; its result is not a formula.
        from transformers.models.siglip2.image_processing_pil_siglip2 import (
            get_image_size_for_max_num_patches,
        )

        height, width = get_image_size_for_max_num_patches(image.height, image.width, patch, self.max_patches)
        pixels = np.array(image.resize((width, height), self.resample))
        rows, columns = height // patch, width // patch
        patches = pixels.reshape(rows, patch, columns, patch, 3).swapaxes(1, 2).reshape(rows * columns, -1)
        padded = np.zeros((self.max_patches, patches.shape[1]), np.uint8)
        padded[: len(patches)] = patches
        return {"pixels": padded, "grid": np.array([rows, columns])}


def _patches(processor: Any) -> tuple[int | None, int]:
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    if type(processor) is Siglip2ImageProcessorPil and processor.do_resize:
        return processor.patch_size, processor.max_num_patches
    return None, 0


def _sizes(processor: Any, where: str) -> tuple[int | tuple[int, int], tuple[int, int] | None]:
    _refuse_unknown_steps(processor, where)
    crop = _pair(processor.crop_size) if processor.do_center_crop else None
    size = dict(processor.size) if processor.do_resize else {}
    if set(size) == {"height", "width"}:
        return _pair(size), crop
    if set(size) != {"shortest_edge"}:
        option = f"size: {dict(sorted(size.items()))}" if size else "do_resize: false"
        raise ModelError(f"{where}: preprocessor option {option} is not supported{_REMEDY}")
    if crop is None:
        raise ModelError(f"{where}: preprocessor option do_center_crop: false leaves any shape{_REMEDY}")
    return size["shortest_edge"], crop


def _refuse_unknown_steps(processor: Any, where: str) -> None:
    from transformers.image_processing_backends import PilBackend
    from transformers.processing_utils import ImagesKwargs

    processor_class = type(processor)
    if processor.do_pad:
        raise ModelError(f"{where}: preprocessor option do_pad: true is not supported{_REMEDY}")
    steps = ("_preprocess", "resize", "center_crop", "rescale", "normalize")
    if all(getattr(processor_class, step, None) is getattr(PilBackend, step) for step in steps):
        return
    options = sorted(set(processor_class.valid_kwargs.__annotations__) - set(ImagesKwargs.__annotations__))
    extra = f"additional options ({', '.join(options)})" if options else "additional steps"
    name = processor_class.__name__.removesuffix("Pil")
    raise ModelError(f"{where}: {name} has {extra}, which are not supported{_REMEDY}")


def _pair(size: Any) -> tuple[int, int]:
    size = dict(size)
    return size["height"], size["width"]


def _channels(value: Any) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(float(v) for v in value)
