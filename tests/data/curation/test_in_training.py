"""The choice by hand, and the order that follows from it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from domainclip.config import loading
from domainclip.data.batching.order import selected_positions
from domainclip.data.curation.in_training import InTraining
from domainclip.errors import DataError, RecipeError
from domainclip.pipelines.curate import curate
from domainclip.registry import build
from domainclip.training.pair_selection import caption_similarity
from tests.data.curation.curation_inputs import TableEncoder, items

SIMILARITY = np.array([0.9, 0.2, 0.6, 0.55, -1.0, 0.4])


def test_the_choice_by_hand() -> None:
    """Two are above 0.55; a third of six are two, half are three, and a batch of four takes the next best."""
    assert InTraining(min_fraction=0.33).choose(SIMILARITY, 1).tolist() == [0, 2]
    assert InTraining(min_fraction=0.5).choose(SIMILARITY, 1).tolist() == [0, 2, 3]
    assert InTraining(min_fraction=0.33).choose(SIMILARITY, 4).tolist() == [0, 2, 3, 5]
    assert InTraining(min_fraction=0.33, threshold=0.3).choose(SIMILARITY, 1).tolist() == [0, 2, 3, 5]
    assert InTraining().choose(SIMILARITY, 100).tolist() == [0, 1, 2, 3, 4, 5]
    assert InTraining(min_fraction=0.5).choose(np.zeros(6), 1).tolist() == [0, 1, 2]  # equal: the first


def test_the_texts_are_the_prompts_of_the_classes_or_those_that_are_named() -> None:
    classes = {"cat": ["a cat", "one cat"], "dog": ["a dog", "a cat"]}
    assert InTraining().metadata_texts(classes) == ["a cat", "one cat", "a dog"]
    assert InTraining(metadata=("an animal",)).metadata_texts(classes) == ["an animal"]
    with pytest.raises(DataError, match=r"curation\.in_training\.metadata: the corpus has no classes"):
        InTraining().metadata_texts({})


def test_the_best_caption_and_the_best_text_decide() -> None:
    """Cosines of (1, 0), (0.6, 0.8) and (0, 1) with the texts (1, 0) and (0.8, 0.6)."""
    texts = {"x": [1.0, 0.0], "slant": [0.6, 0.8], "y": [0.0, 1.0], "task": [1.0, 0.0], "other": [0.8, 0.6]}
    encoder = TableEncoder(np.eye(2), {name: np.array(row) for name, row in texts.items()})
    found = caption_similarity(encoder, [["y", "x"], ["slant"], [], ["y"]], ["task", "other"])  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([1.0, 0.96, -1.0, 0.6])
    assert caption_similarity(encoder, [[], []], ["task"]).tolist() == [-1, -1]  # type: ignore[arg-type]


def test_batches_are_of_the_chosen_rows_each_once_an_epoch() -> None:
    rows = np.array([3, 5, 8, 13, 21])
    drawn = [p for step in range(10, 15) for p in selected_positions(step, 5, rows, 10, seed=1)]
    assert Counter(index for _, index in drawn) == dict.fromkeys(rows.tolist(), 5)
    for epoch in range(10, 15):
        assert sorted(index for own, index in drawn if own == epoch) == rows.tolist()
    other = [p for step in range(15, 20) for p in selected_positions(step, 5, rows, 15, seed=1)]
    assert {epoch for epoch, _ in drawn}.isdisjoint(epoch for epoch, _ in other)  # other crops and captions
    assert [index for _, index in drawn] != [index for _, index in other]
    assert drawn == [p for step in range(10, 15) for p in selected_positions(step, 5, rows, 10, seed=1)]


def test_it_leaves_the_items_and_refuses_another_order() -> None:
    before = items([["a cat"], ["a dog"]])
    curated = curate(before, {"in_training": InTraining()}, None, on_disk=False)
    assert curated.items["id"][:] == ["0", "1"]
    assert curated.selection == InTraining()
    ordering = build("curation", "cluster_batches", {}, "curation.cluster_batches")
    with pytest.raises(RecipeError, match="in_training and cluster_batches both define the batch order"):
        curate(before, {"in_training": InTraining(), "cluster_batches": ordering}, None, on_disk=False)


def test_the_built_in_recipe_uses_it() -> None:
    recipe = loading.load_recipe("pool_selection")
    built = build("curation", "in_training", recipe.curation["in_training"], "curation.in_training")
    assert isinstance(built, InTraining)
