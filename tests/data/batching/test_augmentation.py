"""Augmentation: curves worked by hand, pure functions of seed, epoch and item, and grey that stays grey."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from domainclip.data.batching.augmentation import augment, radiograph, tone_curve


def _image(size: tuple[int, int] = (96, 64)) -> Image.Image:
    rows = np.random.default_rng(0).integers(0, 256, (*size[::-1], 1), np.uint8)
    return Image.fromarray(np.repeat(rows, 3, axis=2))


def test_the_tone_curve_by_hand() -> None:
    """Levels 0, 0, 51, 204: F is 1/2, 1/2, 3/4 and 1."""
    image = Image.fromarray(np.array([[0, 0], [51, 204]], np.uint8))

    def levels(equalised: float, gamma: float) -> list[int]:
        return np.asarray(tone_curve(image, equalised, gamma)).ravel().tolist()

    assert levels(0, 1) == [0, 0, 51, 204]
    assert levels(1, 1) == [128, 128, 191, 255]
    assert levels(0.5, 1) == [64, 64, 121, 230]  # (0 + 127.5) / 2, (51 + 191.25) / 2, (204 + 255) / 2
    assert levels(0, 2) == [0, 0, 10, 163]  # 255 · 0.2², 255 · 0.8²


def test_a_radiograph_is_a_function_of_seed_epoch_and_item() -> None:
    image = _image()
    shown = {(s, e, i): augment(image, "radiograph", s, e, i) for s in (0, 1) for e in (0, 1) for i in (0, 1)}
    assert len({(each.size, each.tobytes()) for each in shown.values()}) == 8
    assert augment(image, "radiograph", 1, 0, 1).tobytes() == shown[1, 0, 1].tobytes()
    assert augment(image, "none", 1, 0, 1) is image  # control
    for each in shown.values():
        pixels = np.asarray(each)
        assert (pixels == pixels[..., :1]).all()  # grey stays grey
        assert 96 * 0.75 < each.width <= 96
        assert 64 * 0.75 < each.height <= 64


def test_each_change_occurs_and_nothing_is_mirrored() -> None:
    ramp = Image.fromarray(np.repeat(np.linspace(0, 255, 128, dtype=np.uint8)[None], 128, axis=0))
    shown = [np.asarray(radiograph(ramp, np.random.default_rng(i))).astype(int) for i in range(60)]
    assert all((np.diff(rows[rows.shape[0] // 2]) >= -2).all() for rows in shown)  # brighter to the right
    means = [rows.mean() for rows in shown]
    assert max(means) - min(means) > 40  # the grey scale changes
    assert len({rows.shape for rows in shown}) > 40
    checks = Image.fromarray((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8))
    detail = [np.asarray(radiograph(checks, np.random.default_rng(i)), float).std() for i in range(60)]
    assert max(detail) > 100  # some as sharp as before …
    assert 15 <= sum(value < 50 for value in detail) <= 57  # … and most blurred or coarse


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_the_smallest_images_stay_images(size: tuple[int, int]) -> None:
    for i in range(10):
        assert min(radiograph(Image.new("RGB", size), np.random.default_rng(i)).size) >= 1
