"""The pixel cache gives the bytes that decoding gives, and is whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domainclip import disk_cache
from domainclip.data.batching import pixel_cache
from domainclip.data.batching.batch import Batch
from domainclip.data.batching.loader import batches
from domainclip.data.batching.pairs import Pairs
from domainclip.data.rows import Item, to_dataset
from domainclip.distributed import collectives
from domainclip.models.image_preprocessor import ImagePreprocessor
from tests.data.made_corpora import noise_image
from tests.support.processes import started

SQUARE = ImagePreprocessor((8, 8), None, 3, 1 / 255, (0.5,) * 3, (0.5,) * 3)
PATCHES = ImagePreprocessor(None, None, 2, 1 / 255, (0.5,) * 3, (0.5,) * 3, patch=4, max_patches=9)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _pairs(
    folder: Path, preprocess: Any = SQUARE, n: int = 10, broken: tuple[int, ...] = (), **more: Any
) -> Pairs:
    rows = []
    for i in range(n):
        file = noise_image(folder / f"{i}.png", seed=i, size=(12 + i, 10))
        if i in broken:
            file.write_bytes(b"nothing")
        rows.append(
            Item(
                f"id{i}",
                {"path": str(file), "bytes": None},
                [f"t{i}"],
                [""],
                [],
                f"g{i}",
                f"{i}",
                {},
                "train",
                "",
            )
        )
    return Pairs(to_dataset(rows), preprocess, **more)


def _kept(pairs: Pairs, said: list[str] | None = None, **more: Any) -> Pairs:
    settings = {"limit_gb": 1.0, "workers": 0, "report": (said if said is not None else []).append, **more}
    return pixel_cache.with_pixel_cache(pairs, {f"id{i}": f"digest {i}" for i in range(99)}, **settings)


def _all(pairs: Pairs, workers: int = 0) -> list[Batch]:
    return list(batches(pairs, 0, 7, 4, workers=workers))


def _same(a: list[Batch], b: list[Batch]) -> bool:
    for one, other in zip(a, b, strict=True):
        assert one.image is not None
        assert other.image is not None
        assert one.image.keys() == other.image.keys()
        for key, value in one.image.items():
            assert value.dtype == other.image[key].dtype
            if not torch.equal(value, other.image[key]):
                return False
        assert (one.texts, one.ids, one.unusable) == (other.texts, other.ids, other.unusable)
        assert torch.equal(one.index, other.index)
    return True


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("preprocess", [SQUARE, PATCHES], ids=["square", "patches"])
def test_batches_are_those_of_decoding(tmp_path: Path, preprocess: ImagePreprocessor, workers: int) -> None:
    plain = _pairs(tmp_path, preprocess, broken=(2, 7))
    kept = _kept(plain, workers=workers)
    assert kept.cached_pixels is not None
    assert plain.cached_pixels is None
    before = _all(plain)
    assert any(batch.unusable for batch in before)  # bad images are told of and replaced as ever
    assert _same(before, _all(kept, workers))


def test_images_are_not_read_again(tmp_path: Path) -> None:
    pairs = _pairs(tmp_path)
    before = _all(pairs)
    _kept(pairs)
    for file in tmp_path.glob("*.png"):
        file.unlink()
    again = _kept(pairs, build=False)  # as a later run finds it
    assert _same(before, _all(again))
    (entry,) = disk_cache.entries("pixels")
    assert entry.description == "10 training images as the model takes them"
    assert 10 * (1 + 8 * 8 * 3) < entry.size < 10 * (1 + 8 * 8 * 3) + 1000


def test_what_the_pixels_are_made_from_tells_entries_apart(tmp_path: Path) -> None:
    _kept(_pairs(tmp_path))
    other = ImagePreprocessor((8, 8), None, 2, 1 / 255, (0.5,) * 3, (0.5,) * 3)
    assert _kept(_pairs(tmp_path, other), build=False).cached_pixels is None
    digests = {f"id{i}": f"another {i}" for i in range(10)}
    assert (
        pixel_cache.with_pixel_cache(
            _pairs(tmp_path), digests, limit_gb=1, workers=0, report=print, build=False
        ).cached_pixels
        is None
    )
    assert _kept(_pairs(tmp_path), build=False).cached_pixels is not None


def test_size_is_given_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    pairs = _pairs(tmp_path)
    assert _kept(pairs, said, limit_gb=1e-6).cached_pixels is None
    assert _kept(pairs, said, limit_gb=0).cached_pixels is None
    with monkeypatch.context() as patch:
        patch.setattr(disk_cache, "free_bytes", lambda: 2**30)
        assert _kept(pairs, said).cached_pixels is None
    assert disk_cache.entries() == []
    assert _kept(pairs, said).cached_pixels is not None
    assert said == [
        "pixel cache: 1.9 kB, more than train.pixel_cache_gb=1e-06: images are decoded in every epoch",
        f"pixel cache: 1.9 kB, but {tmp_path / 'cache'} has 1.1 GB left: images are decoded in every epoch",
        f"pixel cache: 1.9 kB at {tmp_path / 'cache'}",
    ]


@pytest.mark.parametrize("change", [{"augmentation": "crop"}, {"pixels": False}])
def test_what_changes_is_not_kept(tmp_path: Path, change: dict[str, Any]) -> None:
    assert _kept(_pairs(tmp_path, **change)).cached_pixels is None
    assert disk_cache.entries() == []


def test_a_failure_leaves_nothing_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pixel_cache, "_fill", full)
    pairs = _pairs(tmp_path)
    assert _kept(pairs, said).cached_pixels is None
    assert said[-1] == "pixel cache: not written (No space left on device): images are decoded in every epoch"
    assert list((tmp_path / "cache" / "pixels").iterdir()) == []


def _one_of_two(folder: Path) -> bool:
    """Whether what it keeps, made together with the other process, is what it decodes."""
    pairs = _pairs(folder / str(collectives.rank()), broken=(2,))
    kept = _kept(pairs)
    return kept.cached_pixels is not None and _same(_all(pairs), _all(kept))


def test_two_processes_make_one_entry(tmp_path: Path) -> None:
    assert started(2, tmp_path, _one_of_two, tmp_path) == [True, True]
    (entry,) = disk_cache.entries("pixels")
    rows = disk_cache.read("pixels", entry.name)
    assert rows is not None
    assert np.asarray(rows[:, 0]).tolist() == [1, 1, 0, 1, 1, 1, 1, 1, 1, 1]
