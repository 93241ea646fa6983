"""Dead leaves: generated images with statistics of natural ones, for when no general images are at hand.

Shapes of random size, colour and place cover each other until no background is left. Their sizes follow a
power law, so that edges occur at every scale. Nothing is downloaded, and no licence applies.
[arXiv:2106.05963]
"""

from __future__ import annotations

import io
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from domainclip import seeding

SIDE = 128  # pixels
_SHAPES = 250
_SMALLEST, _LARGEST = 0.03, 0.5  # radius, as a share of the side


def dead_leaves(number: int, seed: int) -> bytes:
    """A PNG file of SIDE × SIDE pixels, a pure function of its number and the seed."""
    draw = np.random.Generator(np.random.Philox(key=seeding.stable(seed, number, "dead leaves")))
    image = Image.new("RGB", (SIDE, SIDE), _colour(draw))
    canvas = ImageDraw.Draw(image)
    for _ in range(_SHAPES):
        radius = _radius(float(draw.random())) * SIDE
        x, y = (float(value) for value in draw.uniform(0, SIDE, 2))
        corners = int(draw.integers(2, 6))  # two stand for a circle
        if corners == 2:
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=_colour(draw))
        else:
            turn = float(draw.uniform(0, 2 * pi))
            angles = [turn + 2 * pi * corner / corners for corner in range(corners)]
            canvas.polygon([(x + radius * cos(a), y + radius * sin(a)) for a in angles], fill=_colour(draw))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _radius(share: float) -> float:
    """The radius r below which a share of the shapes lies, where the density is proportional to r⁻³."""
    smallest, largest = _SMALLEST**-2, _LARGEST**-2
    return float((smallest + share * (largest - smallest)) ** -0.5)


def _colour(draw: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in draw.integers(0, 256, 3))
    return red, green, blue
