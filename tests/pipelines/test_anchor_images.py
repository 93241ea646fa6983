"""Anchor images: which ones a run takes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domainclip.components import WeightedObjectives, build_objectives
from domainclip.config import loading
from domainclip.config.recipe import Recipe
from domainclip.data.batching.pairs import Pairs
from domainclip.data.corpus import Corpus
from domainclip.data.images.digests import image_digests
from domainclip.errors import DataError
from domainclip.evaluation.contamination import record_corpora
from domainclip.models import loading as models_loading
from domainclip.pipelines import anchor_images, early_checks
from domainclip.report.redaction import local_paths, public_settings
from domainclip.training.anchor_images import AnchorImageSource, precompute_anchor_images
from domainclip.training.cache_entry import CacheBudget
from tests.data.made_corpora import corpus_with_held_out, noise_image


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus of images 0 to 3, of which 2 is for validation and 3 for testing."""
    return corpus_with_held_out(tmp_path_factory.mktemp("own"))


@pytest.fixture(scope="module")
def objectives() -> WeightedObjectives:
    return build_objectives({"contrastive": {}, "image_anchor": {}})


def _recipe(recipe_file: Path, *changes: str) -> Recipe:
    return loading.load_recipe(str(recipe_file), changes)


def test_generated_where_no_folder_is_named(
    recipe_file: Path, held_out: Corpus, objectives: WeightedObjectives
) -> None:
    recipe = _recipe(recipe_file, "anchor_images={count: 4, per_step: 2}")
    images = anchor_images.load_anchor_images(recipe, objectives, held_out, None)
    assert images is not None
    assert images.note == "anchor images: 4, generated, since anchor_images.path is null"
    assert len(set(images.digests)) == 4
    again = anchor_images.load_anchor_images(recipe, objectives, held_out, None)
    assert again is not None
    assert again.digests == images.digests
    other = _recipe(recipe_file, "anchor_images={count: 4, per_step: 2}", "train.seed=1")
    assert anchor_images.load_anchor_images(other, objectives, held_out, None).digests != images.digests  # type: ignore[union-attr]
    plain = build_objectives({"contrastive": {}})
    assert anchor_images.load_anchor_images(recipe, plain, held_out, None) is None
    # They count as trained on.
    known = record_corpora("nowhere", [held_out], images.digests)
    assert known is not None
    assert known.items_of([[digest] for digest in images.digests]) == 4
    assert known.items_of([[held_out.digests["3.png"]]] if "3.png" in held_out.digests else []) == 0


def test_a_folder_is_sampled_by_names_alone(
    recipe_file: Path, tmp_path: Path, held_out: Corpus, objectives: WeightedObjectives
) -> None:
    folder = tmp_path / "general"
    for i in range(8):
        noise_image(folder / "below" / f"{i}.png", seed=100 + i)
    (folder / "notes.txt").write_text("no image")
    noise_image(folder / "below" / "empty.png").write_bytes(b"")
    recipe = _recipe(recipe_file, f"anchor_images={{path: {folder}, count: 6, per_step: 4}}")
    images = anchor_images.load_anchor_images(recipe, objectives, held_out, None)
    assert images is not None
    assert len(images.items) in (5, 6)  # without the empty file, where it was among the six
    assert images.note.startswith(f"anchor images: {len(images.items)}, of 9 in the folder")
    assert ("1 missing or empty files left out" in images.note) == (len(images.items) == 5)
    assert images.digests == tuple(image_digests(images.items["image"][:]))
    assert str(folder) in local_paths(recipe, tmp_path)
    assert str(folder) not in str(public_settings(recipe))
    few = _recipe(recipe_file, f"anchor_images={{path: {folder}, per_step: 9}}")
    with pytest.raises(DataError, match=r"^anchor_images\.path: 8 images in it, and a step shows 9: name"):
        anchor_images.load_anchor_images(few, objectives, held_out, None)


def test_measured_images_are_refused(
    recipe_file: Path, tmp_path: Path, held_out: Corpus, objectives: WeightedObjectives
) -> None:
    folder = tmp_path / "general"
    for i in range(4):
        noise_image(folder / f"{i}.png", seed=i)
    recipe = _recipe(recipe_file, f"anchor_images={{path: {folder}, count: 4, per_step: 2}}")
    with pytest.raises(DataError, match=r"of 4 items 1 in the validation, 1 in the test: leave them out"):
        anchor_images.load_anchor_images(recipe, objectives, held_out, None)
    (folder / "2.png").unlink()
    (folder / "3.png").unlink()
    assert anchor_images.load_anchor_images(recipe, objectives, held_out, None) is not None
    with pytest.raises(DataError, match=r"of 2 items 2 in the retention set"):
        anchor_images.load_anchor_images(recipe, objectives, held_out, held_out)


def test_a_wrong_folder_is_named_early(recipe_file: Path) -> None:
    with pytest.raises(DataError, match=r"^anchor_images\.path: .*nowhere is not a folder: name one"):
        early_checks.check_recipe(_recipe(recipe_file, "anchor_images.path=nowhere"))


def test_embeddings_are_those_of_the_base_and_a_step_draws_rows(base: Path, tmp_path: Path) -> None:
    model = models_loading.load_model(base).requires_grad_(False)
    cells = [{"path": str(noise_image(tmp_path / f"{i}.png", seed=i)), "bytes": None} for i in range(5)]
    noise_image(tmp_path / "3.png").write_bytes(b"nothing")
    from domainclip.data.rows import Item, to_dataset

    items = to_dataset(
        [
            Item(f"{i}", cell, [""], [""], [], f"{i}", f"{i}", {}, "train", f"{i}")
            for i, cell in enumerate(cells)
        ]
    )
    source = AnchorImageSource(Pairs(items, model.image_preprocessor), tuple("abcde"), per_step=3)
    settings: Any = loading.load_recipe("quickstart").train
    features = precompute_anchor_images(source, model, CacheBudget(1e9), settings)
    assert features is not None
    assert features.scale == pytest.approx(float(model.scale))
    pixels = features.images([0, 4], {})
    with torch.no_grad():
        expected = model.encode_image(pixels)
    rows = features.embeddings_of([0, 4], torch.device("cpu"))
    assert torch.allclose(rows, expected, atol=1e-6)
    # The broken image is replaced by the next one, and counted.
    assert len(features.unusable) == 1
    assert np.array_equal(features.embeddings[3], features.embeddings[4])
    drawn = [source.drawn_rows(step, 0) for step in range(6)]
    assert drawn[2] == source.drawn_rows(2, 0)
    assert drawn[2] != drawn[3]
    assert all(len(set(rows)) == 3 for rows in drawn)
    assert source.drawn_rows(2, 1) != drawn[2]
