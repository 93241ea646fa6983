"""The filters of captions and pairs by hand, and the reason of each item that is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from domainclip.config import loading
from domainclip.data.curation.quality import Quality, count_relations
from domainclip.data.schema import WRITTEN
from domainclip.data.text.lexicon import find_lexicon
from domainclip.errors import DataError
from domainclip.pipelines.curate import curate
from domainclip.registry import build
from tests.data.curation.curation_inputs import TableEncoder, items, unit

DOG, CAT, GRASS = "a dog on the grass", "dog and cat", "green grass"


@pytest.mark.parametrize(
    ("text", "relations"),
    [
        (DOG, 1),
        (CAT, 0),  # a conjunction relates nothing
        ("a dog and a cat", 0),
        (GRASS, 0),
        ("on the grass", 0),  # nothing before it
        ("a man with a hat on a horse by the sea", 3),
        ("ein Hund auf dem Gras", 1),
    ],
)
def test_relations_by_hand(text: str, relations: int) -> None:
    assert count_relations(text.casefold().split(), find_lexicon(text)) == relations


def test_captions_without_a_relation_are_left_out_and_items_without_captions_stay() -> None:
    before = items([[DOG, CAT], [GRASS], []])
    after = Quality()(before)
    assert after["id"][:] == ["0", "2"]
    assert after["texts"][:] == [[DOG], []]
    assert after["language"][:] == [["en"], []]
    assert Quality().reasons(before) == ["", "fewer than 1 relations", ""]
    assert Quality(min_relations=0)(before)["texts"][:] == before["texts"][:]


def test_a_language_without_function_words_passes() -> None:
    before = items([["\u8349\u5730\u4e0a\u7684\u72d7"]]).map(lambda row: {"language": ["xx"]})
    assert len(Quality(min_relations=3)(before)) == 1


def test_actions() -> None:
    before = items([["a dog running on the grass"], [DOG], ["a dog leaps over the grass"]])
    assert Quality(action=True)(before)["id"][:] == ["0"]
    assert Quality(action=True).reasons(before) == ["", "no action", "no action"]
    assert Quality(action=True, action_words=("Leaps",))(before)["id"][:] == ["2"]


def with_words(*words: str) -> Dataset:
    before = items([["a sign with Stop and Go on it", "a red sign in the street"]])
    return before.map(lambda row: {"meta": json.dumps({WRITTEN: list(words)})})


def test_captions_that_spell_their_image() -> None:
    """Of the words sign, stop and go, two are written in the image; of sign, red and street, none."""
    assert Quality(max_written=0.5)(with_words("STOP", "go"))["texts"][:] == [["a red sign in the street"]]
    assert len(Quality(max_written=0.7)(with_words("STOP", "go"))["texts"][0]) == 2
    assert len(Quality(max_written=0.0)(with_words())["texts"][0]) == 2
    assert len(Quality()(with_words("STOP", "go"))["texts"][0]) == 2  # the filter is off


# The cosines of image and caption are 1, 0.8, 0.6 and 0.
SCORED = items([[f"a thing on number {i}"] for i in range(4)])
ENCODER = TableEncoder(
    np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]]),
    {f"a thing on number {i}": np.array([1.0, 0.0]) for i in range(4)},
)


def test_scores_of_the_base() -> None:
    assert Quality(min_score=0.7)(SCORED, ENCODER)["id"][:] == ["0", "1"]
    assert Quality(fraction=0.75)(SCORED, ENCODER)["id"][:] == ["0", "1", "2"]
    both = Quality(min_score=0.5, fraction=0.34)
    assert both(SCORED, ENCODER)["id"][:] == ["0"]  # one third of the three that are left
    assert both.reasons(SCORED, ENCODER) == [
        "",
        "image-text score not among the best 34%",
        "image-text score not among the best 34%",
        "image-text score below 0.5",
    ]
    assert Quality(min_score=0.5).needs == Quality(fraction=0.5).needs == {"base"}
    assert Quality().needs == frozenset()


def test_the_better_caption_decides_and_equal_scores_by_id() -> None:
    before = items([["cat in box", "cat on box"], ["cat in box"], ["cat in box"]])
    encoder = TableEncoder(
        np.array([[1, 0]] * 3), {"cat in box": unit([0.6, 0.8]), "cat on box": unit([1, 0])}
    )
    assert Quality(fraction=0.34)(before, encoder)["id"][:] == ["0"]
    assert Quality(fraction=0.67)(before, encoder)["id"][:] == ["0", "1"]
    flipped = before.select([2, 1, 0])
    assert sorted(Quality(fraction=0.67)(flipped, encoder)["id"][:]) == ["0", "1"]


def test_every_item_that_is_left_out_is_counted_with_its_reason() -> None:
    before = items([[DOG], [CAT], [GRASS], ["a dog sitting on the grass", CAT]])
    curated = curate(before, {"quality": Quality(action=True)}, None, on_disk=False)
    assert curated.items["id"][:] == ["3"]
    assert curated.warnings == (
        "curation quality: 1 of 4 training items are left (left out: 2 fewer than 1 relations, 1 no action); "
        "1 caption of the items that are left is left out",
    )
    curated = curate(items([[DOG, CAT, GRASS]]), {"quality": Quality()}, None, on_disk=False)
    assert curated.warnings == (
        "curation quality: 1 of 1 training items are left; 2 captions of the items that are left are left out",
    )
    with pytest.raises(DataError) as caught:
        curate(items([[CAT]]), {"quality": Quality()}, None, on_disk=False)
    assert str(caught.value) == (
        "curation.quality: none of 1 training items is left (left out: 1 fewer than 1 relations): "
        "loosen its options"
    )


def test_the_built_in_recipe_uses_it(tmp_path: Path) -> None:
    recipe = loading.load_recipe("noisy_captions", [f"corpus.path={tmp_path}"])
    built = build("curation", "quality", recipe.curation["quality"], "curation.quality")
    assert built == Quality(min_relations=1, fraction=0.9)
