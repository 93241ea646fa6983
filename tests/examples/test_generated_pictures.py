"""The generated pictures: reproducible, balanced, and said in words that describe them."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import generated_pictures
from examples.generated_pictures import CLASSES, HELD_OUT_SEED, PLACES, Picture, Scene, _describe, _draw, make

WORDS = "left right large small bright dark round spot line upper lower both no normal clear"


def digest(pictures: list[Picture]) -> str:
    """One hash of all pixels and words."""
    whole = hashlib.blake2b()
    for picture in pictures:
        whole.update(picture.image.tobytes() + picture.caption.encode() + picture.name.encode())
    return whole.hexdigest()


def test_same_seed_same_pictures_other_seed_others() -> None:
    assert digest(make(3, 80)) == digest(make(3, 80))
    assert digest(make(3, 80)) != digest(make(4, 80))


def test_a_run_can_be_continued_anywhere() -> None:
    assert digest(make(3, 50)) == digest(make(3, 17) + make(3, 33, start=17))


def test_classes_are_balanced_and_pictures_are_small_rgb() -> None:
    pictures = make(5, 3 * len(CLASSES))
    assert len(CLASSES) == 40
    assert set(Counter(picture.name for picture in pictures).values()) == {3}
    assert {(picture.image.size, picture.image.mode) for picture in pictures} == {((64, 64), "RGB")}


def test_captions_hold_the_everyday_words_that_a_domain_needs() -> None:
    captions = [picture.caption for picture in make(6, 2000)]
    known = Counter(word for caption in captions for word in re.findall(r"[a-z]+", caption.lower()))
    assert [word for word in WORDS.split() if known[word] < 5] == []
    assert len(set(captions)) > 1800  # hardly any caption twice


@pytest.mark.parametrize("place", PLACES)
def test_what_a_caption_says_is_drawn(place: tuple[int, int]) -> None:
    """A white circle on black: the light lies where the scene has it, and the caption says no other place."""
    scene = Scene("circle", "white", "black", "medium", (place,), "filled", "normal")
    grey = np.asarray(_draw(scene, np.random.default_rng(0)).convert("L"), dtype=float)
    rows, columns = np.nonzero(grey > 128)
    assert (np.sign(round((columns.mean() - 31.5) / 9)), np.sign(round((rows.mean() - 31.5) / 9))) == place
    captions = [_describe(scene, np.random.default_rng(k)) for k in range(60)]
    said = {wording for wordings in PLACES.values() for wording in wordings.split("|")}
    own = set(PLACES[place].split("|"))
    for caption in captions:
        first = caption.split(".")[0]
        longest = max((wording for wording in said if wording in first), key=len, default=None)
        assert longest is None or longest in own
        assert " black circle" not in first
    assert all(any(wording in caption for caption in captions) for wording in own)


def test_the_folder_names_its_files_and_classes(tmp_path: Path) -> None:
    table = generated_pictures.write(tmp_path / "set", 80)
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    wanted = make(HELD_OUT_SEED, 80)
    assert table == tmp_path / "set" / "metadata.csv"
    assert [(row["text"], row["label"], row["split"]) for row in rows] == [
        (picture.caption, picture.name, "test") for picture in wanted
    ]
    with Image.open(tmp_path / "set" / rows[7]["file_name"]) as image:
        assert np.array_equal(np.asarray(image), np.asarray(wanted[7].image))


@pytest.mark.parametrize("name", ["circle", "digit eight", "stripes"])
def test_pictures_of_one_class_differ(name: str) -> None:
    index = CLASSES.index(name)
    pictures = [make(8, 1, start=index + 40 * k)[0] for k in range(8)]
    assert {picture.name for picture in pictures} == {name}
    assert len({picture.image.tobytes() for picture in pictures}) == 8
