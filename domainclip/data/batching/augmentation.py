"""Random changes of a training image: pure functions of the image and the numbers that are drawn."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from domainclip import seeding
from domainclip.config.training import Augmentation

_BORDER = 0.12  # of a side: the largest part that is cut off at one edge
_GAMMA = 1.5  # the largest exponent; the smallest is its inverse
_BLUR = 0.008  # of the shorter side: the largest standard deviation
_COARSEST = 0.4  # of the side in pixels: the smallest resolution
_SHARE = 0.5  # of the images that are blurred, and that are made coarser


def augment(image: Image.Image, kind: Augmentation, seed: int, epoch: int, item: int) -> Image.Image:
    """The image as an item shows it in an epoch: a pure function of the arguments."""
    if kind == "none":
        return image
    if kind == "radiograph":
        return radiograph(image, seeding.draw(seed, epoch, item))
    image = random_crop(image, seeding.draw(seed, epoch, item))
    # A separate draw, so that the crops of a corpus are the same with and without mirroring.
    mirrored = kind == "crop_flip" and seeding.stable(seed, epoch, item, "mirror") % 2
    return ImageOps.mirror(image) if mirrored else image


def random_crop(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """A random part: 80 to 100 % of the area, with an aspect ratio changed by 10 % at most.

    Mild, so that what a caption mentions stays in the image; and not mirrored, since captions may name left
    and right: that is `crop_flip`.
    """
    area = image.width * image.height * draw.uniform(0.8, 1.0)
    ratio = image.width / image.height * np.exp(draw.uniform(-np.log(1.1), np.log(1.1)))
    width = min(image.width, max(1, round(float(np.sqrt(area * ratio)))))
    height = min(image.height, max(1, round(float(np.sqrt(area / ratio)))))
    left = int(draw.integers(image.width - width + 1))
    top = int(draw.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def radiograph(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """What differs between hospitals and not between findings: border, grey scale, sharpness and resolution.

    Up to 12 % of a side is cut off at each edge, where letters, markers and collimation are; the grey levels
    are moved towards an equalised histogram by a random share, then raised to a power of 1 / 1.5 to 1.5; half
    of the images are blurred, by up to 0.8 % of the shorter side, and half have a lower resolution, down to
    0.4 of theirs. Never mirrored or turned. A series of such changes, each mild, is the augmentation of
    [arXiv:1906.03347], which also changes the shape and adds noise. The mode stays that of the image.
    """
    image = _without_border(image, draw)
    image = tone_curve(image, equalised=float(draw.uniform()), gamma=float(_GAMMA ** draw.uniform(-1, 1)))
    blur, coarse = draw.random() < _SHARE, draw.random() < _SHARE
    radius, resolution = float(draw.uniform(0, _BLUR)), float(draw.uniform(_COARSEST, 1))
    if blur:
        image = image.filter(ImageFilter.GaussianBlur(radius * min(image.size)))
    if coarse:
        width, height = (max(1, round(side * resolution)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX).resize(
            image.size, Image.Resampling.BICUBIC
        )
    return image


def tone_curve(image: Image.Image, equalised: float, gamma: float) -> Image.Image:
    """Each level v of 0 to 255 becomes 255 (((1 − e) v + e 255 F(v)) / 255)^gamma.

    F(v) is the share of the pixels that are at most as bright as v, and e is `equalised`, 0 to 1. Colours
    have one curve for all channels, that of the image in grey, so that grey stays grey.
    """
    counts = np.asarray(image.convert("L").histogram(), np.float64)
    levels = np.arange(256) / 255
    moved = (1 - equalised) * levels + equalised * np.cumsum(counts) / max(1.0, counts.sum())
    curve = np.rint(255 * moved**gamma).astype(int).tolist()
    return image.point(curve * len(image.getbands()))


def _without_border(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    width, height = image.size
    left, top, right, bottom = (
        (draw.uniform(0, _BORDER, 4) * [width, height, width, height]).round().astype(int)
    )
    return image.crop((left, top, max(left + 1, width - right), max(top + 1, height - bottom)))
