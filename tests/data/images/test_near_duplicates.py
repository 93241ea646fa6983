from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from domainclip.data.images import near_duplicates, perceptual_hashes
from domainclip.data.images.near_duplicates import score_pairs, select_duplicates
from domainclip.data.images.perceptual_hashes import ORIENTATIONS, THUMBNAIL_SIDE, hash_thumbnail, reorient
from tests.data.image_copies import COPIES, film

FILMS = 16


def _thumbnail(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX))


def _duplicates(
    images: list[Image.Image], colours: np.ndarray | None = None
) -> list[near_duplicates.DuplicatePair]:
    thumbnails = np.stack([_thumbnail(image) for image in images])
    hashes = np.stack([hash_thumbnail(thumbnail) for thumbnail in thumbnails])
    grey = np.full((len(images), 2), 128, np.uint8) if colours is None else colours
    return select_duplicates(score_pairs(thumbnails, hashes), grey)


@pytest.fixture(scope="module")
def films() -> list[Image.Image]:
    return [film(seed) for seed in range(FILMS)]


def test_similar_images_are_not_copies(films: list[Image.Image]) -> None:
    thumbnails = np.stack([_thumbnail(image) for image in films])
    hashes = np.stack([hash_thumbnail(thumbnail) for thumbnail in thumbnails])
    # By their hashes alone many are candidates: otherwise the next line would prove nothing.
    assert len(perceptual_hashes.find_candidates(hashes)) > 10
    assert _duplicates(films) == []


@pytest.mark.parametrize("name", COPIES)
def test_only_the_planted_copy_is_found(films: list[Image.Image], name: str) -> None:
    found = _duplicates([*films, COPIES[name](films[5])])
    assert [(pair.first, pair.second) for pair in found] == [(5, FILMS)]
    assert found[0].orientation == ("mirrored" if "mirrored" in name else "as it is")
    assert found[0].score > near_duplicates.DOUBTFUL_SCORE


@pytest.mark.parametrize("orientation", range(len(ORIENTATIONS)))
def test_a_copy_is_found_in_every_orientation(films: list[Image.Image], orientation: int) -> None:
    reoriented = Image.fromarray(reorient(np.asarray(films[3].convert("L"))[None], orientation)[0])
    (found,) = _duplicates([*films, reoriented])
    assert (found.first, found.second) == (3, FILMS)
    # The orientation that brings the second over the first: each is its own inverse, except quarter turns.
    inverse = {5: 6, 6: 5}.get(orientation, orientation)
    assert found.orientation == ORIENTATIONS[inverse]


def test_each_orientation_by_hand() -> None:
    square = np.array([[[1, 2], [3, 4]]])
    assert [reorient(square, orientation)[0].tolist() for orientation in range(8)] == [
        [[1, 2], [3, 4]],
        [[2, 1], [4, 3]],
        [[3, 4], [1, 2]],
        [[4, 3], [2, 1]],
        [[1, 3], [2, 4]],
        [[2, 4], [1, 3]],
        [[3, 1], [4, 2]],
        [[4, 2], [3, 1]],
    ]


def test_images_without_detail_are_left_out() -> None:
    plain = Image.new("L", (100, 100), 80)
    faint = plain.copy()
    ImageDraw.Draw(faint).rectangle((0, 0, 50, 100), fill=81)
    assert _duplicates([plain, plain, faint, faint]) == []
    assert score_pairs(
        np.zeros((0, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8), np.zeros((0, 8, 2), np.uint64)
    ).shape == (0,)


def test_a_doubtful_pair_needs_equal_colours_and_close_embeddings() -> None:
    found = np.array([(0, 1, 0, 0.95), (2, 3, 0, 0.9), (4, 5, 1, 0.9)], near_duplicates.SCORED_PAIR)
    colours = np.array([[90, 90], [200, 200], [90, 90], [102, 90], [90, 90], [103, 90]], np.uint8)
    # The first is a copy whatever its colour; of the doubtful pairs, a difference of 12 of 255 is allowed.
    assert [pair.first for pair in select_duplicates(found, colours)] == [0, 2]
    embedded: list[list[int]] = []

    def embed(rows: list[int]) -> np.ndarray:
        embedded.append(rows)
        return np.array([[1.0, 0.0], [0.79, np.sqrt(1 - 0.79**2)]])

    assert [pair.first for pair in select_duplicates(found, colours, embed)] == [0]
    assert embedded == [[2, 3]]  # only images of doubtful pairs are embedded


def test_only_the_closest_candidates_of_an_image_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual_hashes, "MAX_CANDIDATES", 2)
    hashes = np.zeros((30, 8, 2), np.uint64)  # all equal: every pair is a candidate, in every orientation
    assert np.bincount(perceptual_hashes.find_candidates(hashes)[:, 0]).tolist() == [2] * 29


def test_blocks_of_hashes_give_the_same_pairs(
    films: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [*films, films[2], films[12].resize((120, 120))]
    whole = _duplicates(images)
    monkeypatch.setattr(perceptual_hashes, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(perceptual_hashes, "_BLOCK_COLUMNS", 3)
    monkeypatch.setattr(near_duplicates, "_CHUNK_PAIRS", 5)
    assert _duplicates(images) == whole
    assert [(pair.first, pair.second) for pair in whole] == [(2, FILMS), (12, FILMS + 1)]


def test_candidates_equal_those_of_a_direct_comparison() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**64, (150, 8, 2), dtype=np.uint64)
    hashes[75:] = hashes[:75]
    for _ in range(13):  # up to 26 of 128 bits apart: some are close enough, some are not
        hashes[75:] ^= np.uint64(1) << generator.integers(0, 64, (75, 8, 2)).astype(np.uint64)
    distance = np.bitwise_count(hashes[:, None, :1] ^ hashes[None]).sum(-1)
    expected = {
        (i, j, t)
        for i, j, t in np.argwhere(distance <= perceptual_hashes.MAX_HASH_DISTANCE).tolist()
        if i < j
    }
    assert 20 < len(expected) < 75
    for workers in (0, 3):
        assert set(map(tuple, perceptual_hashes.find_candidates(hashes, workers).tolist())) == expected


def test_processes_give_the_same_scores(films: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails = np.stack([_thumbnail(image) for image in [*films, films[3].resize((90, 90))]])
    hashes = np.stack([hash_thumbnail(thumbnail) for thumbnail in thumbnails])
    alone = score_pairs(thumbnails, hashes)
    monkeypatch.setattr(near_duplicates, "_MIN_FOR_PROCESSES", 1)
    monkeypatch.setattr(near_duplicates, "_CHUNK_PAIRS", 16)
    assert (score_pairs(thumbnails, hashes, workers=2) == alone).all()
    assert (3, FILMS) in alone[["first", "second"]].tolist()
