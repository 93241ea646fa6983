"""Generated images: the same on every day, different by number and seed, with edges at every scale."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from domainclip.data.images import dead_leaves


def test_a_pure_function_of_number_and_seed() -> None:
    assert dead_leaves.dead_leaves(3, 0) == dead_leaves.dead_leaves(3, 0)
    assert len({dead_leaves.dead_leaves(number, seed) for number in (0, 1) for seed in (0, 1)}) == 4
    with Image.open(io.BytesIO(dead_leaves.dead_leaves(3, 0))) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (128, 128))


def test_radii_follow_the_power_law() -> None:
    # P(r < x) = (0.03⁻² − x⁻²) / (0.03⁻² − 0.5⁻²): half of the shapes are below 0.0424.
    assert dead_leaves._radius(0.0) == pytest.approx(0.03)
    assert dead_leaves._radius(1.0) == pytest.approx(0.5)
    x = dead_leaves._radius(0.5)
    assert (0.03**-2 - x**-2) / (0.03**-2 - 0.5**-2) == pytest.approx(0.5)


def test_images_are_diverse_and_not_noise() -> None:
    images = [
        np.asarray(Image.open(io.BytesIO(dead_leaves.dead_leaves(number, 0))), float) for number in range(4)
    ]
    means = np.array([image.mean(axis=(0, 1)) for image in images])
    assert means.std(axis=0).min() > 1
    # Neighbouring pixels are mostly of one shape; of noise, a tenth of them would not be equal.
    flat = [float((np.diff(image, axis=1) == 0).all(axis=-1).mean()) for image in images]
    assert min(flat) > 0.7
