"""Seconds to decode and resize JPEG files exactly and with `train.decode: fast`, in turns. See README.md.

python benchmarks/decoding.py
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from domainclip.data.images.decode import decode_image
from domainclip.models.image_preprocessor import ImagePreprocessor

_SIZES = [(800, 600), (1600, 1200), (4000, 3000)]
_ROUNDS = 9
_INPUT = ImagePreprocessor(224, (224, 224), Image.Resampling.BICUBIC, 1 / 255, (0.5,) * 3, (0.5,) * 3)


def main() -> None:
    """Prints the table."""
    print("| JPEG file | exact | fast | ratio | mean difference of a pixel value |\n|---|--:|--:|--:|--:|")
    for size in _SIZES:
        image = {"path": None, "bytes": _photo(size)}
        seconds: dict[int | None, list[float]] = {None: [], 448: []}
        pixels: dict[int | None, np.ndarray] = {}
        for _ in range(_ROUNDS):
            for side, taken in seconds.items():
                began = time.perf_counter()
                pixels[side] = _INPUT(decode_image(image, smallest_side=side))["pixels"]
                taken.append(time.perf_counter() - began)
        exact, fast = (statistics.median(taken) for taken in seconds.values())
        ratio = statistics.median(a / b for a, b in zip(seconds[None], seconds[448], strict=True))
        apart = np.abs(pixels[None].astype(float) - pixels[448]).mean()
        times = f"{exact * 1e3:.0f} ms | {fast * 1e3:.0f} ms | {ratio:.1f} ×"
        print(f"| {size[0] * size[1] / 1e6:.1f} MP | {times} | {apart:.2f} |")


def _photo(size: tuple[int, int]) -> bytes:
    """Shapes of every size and some noise, which compress about as photographs do."""
    draw = np.random.default_rng(0)
    layers: Any = 0
    for side in (4, 16, 64, 256):
        noise = draw.integers(0, 256, (side, side, 3), dtype=np.uint8)
        layers = layers + np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC), float) / 4
    stream = io.BytesIO()
    Image.fromarray(layers.astype(np.uint8)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


if __name__ == "__main__":
    main()
