from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from domainclip.data.images import near_duplicates, perceptual_hashes
from domainclip.data.images.near_duplicates import score_pairs, select_duplicates
from domainclip.data.images.perceptual_hashes import ORIENTATIONS, THUMBNAIL_SIDE, hash_thumbnail, reorient
from tests.data.image_copies import COPIES, film

FILMS = 16


def _thumbnail(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX))


def _found(
    pictures: list[Image.Image], colours: np.ndarray | None = None
) -> list[near_duplicates.DuplicatePair]:
    thumbnails = np.stack([_thumbnail(picture) for picture in pictures])
    hashed = np.stack([hash_thumbnail(thumbnail) for thumbnail in thumbnails])
    grey = np.full((len(pictures), 2), 128, np.uint8) if colours is None else colours
    return select_duplicates(score_pairs(thumbnails, hashed), grey)


@pytest.fixture(scope="module")
def films() -> list[Image.Image]:
    return [film(seed) for seed in range(FILMS)]


def test_pictures_that_look_alike_are_no_copies(films: list[Image.Image]) -> None:
    thumbnails = np.stack([_thumbnail(picture) for picture in films])
    hashed = np.stack([hash_thumbnail(thumbnail) for thumbnail in thumbnails])
    # The hashes alone would take many of them for copies: what follows would else prove nothing.
    assert len(perceptual_hashes.find_candidates(hashed)) > 10
    assert _found(films) == []


@pytest.mark.parametrize("name", COPIES)
def test_a_planted_copy_is_found_and_nothing_else(films: list[Image.Image], name: str) -> None:
    found = _found([*films, COPIES[name](films[5])])
    assert [(pair.first, pair.second) for pair in found] == [(5, FILMS)]
    assert found[0].orientation == ("mirrored" if "mirrored" in name else "as it is")
    assert found[0].score > near_duplicates.DOUBTFUL_SCORE


@pytest.mark.parametrize("turn", range(len(ORIENTATIONS)))
def test_every_way_to_lie_is_found(films: list[Image.Image], turn: int) -> None:
    lying = Image.fromarray(reorient(np.asarray(films[3].convert("L"))[None], turn)[0])
    (found,) = _found([*films, lying])
    assert (found.first, found.second) == (3, FILMS)
    # The second, turned like this, lies over the first: the turn undoes itself, except the two quarters.
    undone = {5: 6, 6: 5}.get(turn, turn)
    assert found.orientation == ORIENTATIONS[undone]


def test_turning_is_what_its_name_says() -> None:
    square = np.array([[[1, 2], [3, 4]]])
    assert [reorient(square, turn)[0].tolist() for turn in range(8)] == [
        [[1, 2], [3, 4]],
        [[2, 1], [4, 3]],
        [[3, 4], [1, 2]],
        [[4, 3], [2, 1]],
        [[1, 3], [2, 4]],
        [[2, 4], [1, 3]],
        [[3, 1], [4, 2]],
        [[4, 2], [3, 1]],
    ]


def test_plain_pictures_are_left_out() -> None:
    plain = Image.new("L", (100, 100), 80)
    faint = plain.copy()
    ImageDraw.Draw(faint).rectangle((0, 0, 50, 100), fill=81)
    assert _found([plain, plain, faint, faint]) == []
    assert score_pairs(
        np.zeros((0, THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8), np.zeros((0, 8, 2), np.uint64)
    ).shape == (0,)


def test_a_doubtful_pair_needs_a_witness() -> None:
    found = np.array([(0, 1, 0, 0.95), (2, 3, 0, 0.9), (4, 5, 1, 0.9)], near_duplicates.SCORED_PAIR)
    colours = np.array([[90, 90], [200, 200], [90, 90], [102, 90], [90, 90], [103, 90]], np.uint8)
    # The first is sure whatever its colour; of the doubtful ones, 12 of 255 apart is one colour, 13 is not.
    assert [pair.first for pair in select_duplicates(found, colours)] == [0, 2]
    asked: list[list[int]] = []

    def embed(rows: list[int]) -> np.ndarray:
        asked.append(rows)
        return np.array([[1.0, 0.0], [0.79, np.sqrt(1 - 0.79**2)]])

    assert [pair.first for pair in select_duplicates(found, colours, embed)] == [0]
    assert asked == [[2, 3]]  # only the pictures in doubt are embedded


def test_few_candidates_of_a_picture_are_laid_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual_hashes, "MAX_CANDIDATES", 2)
    hashed = np.zeros((30, 8, 2), np.uint64)  # all equal: every pair is a candidate, in every turn
    assert np.bincount(perceptual_hashes.find_candidates(hashed)[:, 0]).tolist() == [2] * 29


def test_blocks_of_hashes_give_what_the_whole_gives(
    films: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [*films, films[2], films[12].resize((120, 120))]
    whole = _found(pictures)
    monkeypatch.setattr(perceptual_hashes, "_BLOCK_ROWS", 7)
    monkeypatch.setattr(perceptual_hashes, "_BLOCK_COLUMNS", 3)
    monkeypatch.setattr(near_duplicates, "_CHUNK_PAIRS", 5)
    assert _found(pictures) == whole
    assert [(pair.first, pair.second) for pair in whole] == [(2, FILMS), (12, FILMS + 1)]


def test_candidates_are_those_of_plain_comparison() -> None:
    generator = np.random.default_rng(0)
    hashed = generator.integers(0, 2**64, (150, 8, 2), dtype=np.uint64)
    hashed[75:] = hashed[:75]
    for _ in range(13):  # up to 26 bits apart in the two of 64: some are near enough, some are not
        hashed[75:] ^= np.uint64(1) << generator.integers(0, 64, (75, 8, 2)).astype(np.uint64)
    distance = np.bitwise_count(hashed[:, None, :1] ^ hashed[None]).sum(-1)
    expected = {
        (i, j, t)
        for i, j, t in np.argwhere(distance <= perceptual_hashes.MAX_HASH_DISTANCE).tolist()
        if i < j
    }
    assert 20 < len(expected) < 75
    for workers in (0, 3):
        assert set(map(tuple, perceptual_hashes.find_candidates(hashed, workers).tolist())) == expected


def test_processes_score_as_one_does(films: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    thumbnails = np.stack([_thumbnail(picture) for picture in [*films, films[3].resize((90, 90))]])
    hashed = np.stack([hash_thumbnail(thumbnail) for thumbnail in thumbnails])
    alone = score_pairs(thumbnails, hashed)
    monkeypatch.setattr(near_duplicates, "_MIN_FOR_PROCESSES", 1)
    monkeypatch.setattr(near_duplicates, "_CHUNK_PAIRS", 16)
    assert (score_pairs(thumbnails, hashed, workers=2) == alone).all()
    assert (3, FILMS) in alone[["first", "second"]].tolist()
