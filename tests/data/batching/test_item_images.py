"""Each image of an item is decoded once, and JPEG files at a fraction of their size only where that is enough."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from domainclip.data.batching import item_images, pixel_cache
from domainclip.data.batching.extras import ExtraSpec
from domainclip.data.batching.item_images import ItemImages
from domainclip.data.batching.pairs import Pairs
from domainclip.data.images.decode import decode_image
from domainclip.data.rows import Item, to_dataset
from domainclip.errors import UnreadableImage
from domainclip.models.image_preprocessor import ImagePreprocessor

SQUARE = ImagePreprocessor((4, 4), None, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3)


def _smooth(width: int, height: int, **options: Any) -> bytes:
    """A gradient in every channel, as a JPEG file."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    stream = io.BytesIO()
    pixels = np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("side", "size"), [(100, (125, 100)), (101, (250, 200)), (400, (500, 400)), (401, (1000, 800))]
)
def test_the_smallest_fraction_that_is_large_enough(side: int, size: tuple[int, int]) -> None:
    decoded = decode_image({"path": None, "bytes": _smooth(1000, 800)}, smallest_side=side)
    assert decoded.size == size


def test_without_a_side_a_file_is_decoded_whole() -> None:
    assert decode_image({"path": None, "bytes": _smooth(1000, 800)}).size == (1000, 800)


def test_other_formats_are_decoded_whole() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (1000, 800)).save(stream, "PNG")
    assert decode_image({"path": None, "bytes": stream.getvalue()}, smallest_side=10).size == (1000, 800)


def test_a_rotated_file_is_upright() -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6  # a quarter turn
    image = {"path": None, "bytes": _smooth(1000, 800, exif=rotated)}
    assert decode_image(image, smallest_side=100).size == (100, 125)


def test_twice_the_input_of_the_model_is_close_to_the_whole_file() -> None:
    image = {"path": None, "bytes": _smooth(1600, 1200)}
    exact, fast = (
        np.asarray(
            decode_image(image, smallest_side=side).resize((224, 224), Image.Resampling.BICUBIC), float
        )
        for side in (None, 448)
    )
    assert np.abs(exact - fast).mean() < 1
    assert (exact != fast).any()


def _row(folder: Path, views: int = 1) -> dict[str, Any]:
    cells = []
    for number in range(1 + views):
        file = folder / f"{number}.jpg"
        file.write_bytes(_smooth(40 + number, 30))
        cells.append({"path": str(file), "bytes": None})
    return {"image": cells[0], "views": cells[1:]}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were decoded."""
    files: list[str] = []

    def counted(image: Any, **options: Any) -> Image.Image:
        files.append(Path(image["path"]).name)
        return decode_image(image, **options)

    monkeypatch.setattr(item_images, "decode_image", counted)
    return files


def test_a_view_is_decoded_once_also_when_it_cannot_be(tmp_path: Path, decoded: list[str]) -> None:
    row = _row(tmp_path)
    (tmp_path / "1.jpg").write_bytes(b"nothing")
    images = ItemImages(row)
    assert (images.is_readable(0), images.is_readable(1), len(images)) == (True, False, 2)
    assert images.decode(0) is images.decode(0)
    for _ in range(2):
        with pytest.raises(UnreadableImage):
            images.decode(1)
    assert decoded == ["0.jpg", "1.jpg"]


def _pairs(folder: Path, **more: Any) -> Pairs:
    row = _row(folder, views=0)
    item = Item("id0", row["image"], ["a"], [""], [], "g", "t", {}, "train", "row 0")
    return Pairs(to_dataset([item]), SQUARE, **more)


def test_an_image_and_its_second_view_decode_the_file_once(tmp_path: Path, decoded: list[str]) -> None:
    pair = _pairs(tmp_path, extra_spec=ExtraSpec(second_view="strong"))[0, 0]
    assert pair.second_view is not None
    assert decoded == ["0.jpg"]


def test_pixels_of_the_two_ways_of_decoding_are_cached_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    names = set()
    for side in (None, 8, 8, 16):
        cached = pixel_cache.with_pixel_cache(
            _pairs(tmp_path, smallest_side=side),
            {"id0": "d"},
            limit_gb=1,
            workers=0,
            report=lambda line: None,
        )
        assert cached.cached_pixels is not None
        names.add(cached.cached_pixels.name)  # type: ignore[attr-defined]
    assert len(names) == 3
