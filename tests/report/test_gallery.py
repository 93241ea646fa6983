"""Example images of a report: none unless allowed; hardest items; position of heat maps."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainclip.config.loading import load_recipe
from domainclip.config.recipe import Recipe
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import evaluate_pair
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.protocol import Protocol
from domainclip.models.loading import load_model
from domainclip.report import gallery
from tests.evaluation.example_sets import samples
from tests.evaluation.probes.array_encoder import evaluation_set
from tests.support.tiny_models import tiny_clip


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(str(recipe_file), ["report.examples=true"])


@pytest.fixture
def encoder(tmp_path: Path) -> CachedEncoder:
    return CachedEncoder(load_model(tiny_clip(tmp_path / "clip")))


def test_no_examples_unless_allowed(recipe_file: Path, encoder: CachedEncoder) -> None:
    assert (
        gallery.gallery_examples(load_recipe(str(recipe_file)), evaluation_set(samples(4)), [encoder]) == []
    )


def test_the_hardest_items_are_those_with_the_worst_rank(recipe: Recipe, encoder: CachedEncoder) -> None:
    data = evaluation_set(samples(20, broken=[1]))
    shown = gallery.gallery_examples(recipe, data, [encoder, encoder])
    first = [example for example in shown if example.kind == "First items"]
    hardest = [example for example in shown if example.kind == "Hardest items"]
    assert (len(first), len(hardest)) == (8, 8)
    captions = [row["texts"][0] for row in samples(20) if row["id"] != "001"]
    assert [example.caption for example in first] == captions[:8]
    ranks = [example.adapted_rank for example in hardest]
    assert ranks == sorted(ranks, key=lambda rank: -(rank or 0))
    items = data.items.select([row for row in range(20) if row != 1])
    scores = encoder.images(items) @ encoder.texts(captions).T
    expected = [1 + int((row > row[i]).sum()) for i, row in enumerate(scores)]
    assert max(expected) == ranks[0] == hardest[0].base_rank
    nearest = captions[int(scores[0].argmax())]
    assert first[0].nearest == f"base: {nearest}; adapted: {nearest}"
    assert first[0].heat is not None
    image, heat = (Image.open(io.BytesIO(data)) for data in (first[0].image, first[0].heat))
    assert image.size == heat.size
    assert image.tobytes() != heat.tobytes()


@pytest.mark.parametrize("broken", [[], [1]])
def test_measured_images_are_not_encoded_again(
    recipe: Recipe, encoder: CachedEncoder, monkeypatch: pytest.MonkeyPatch, broken: list[int]
) -> None:
    data = evaluation_set(list(reversed(samples(20, broken=broken))))
    evaluate_pair(encoder, None, Protocol([data], {"retrieval": Retrieval()}, 20))
    monkeypatch.setattr(
        CachedEncoder, "encode_image_chunk", lambda *_: pytest.fail("an image was encoded again")
    )
    shown = gallery.gallery_examples(recipe, data, [encoder])
    captions = [row["texts"][0] for row in samples(20, broken=broken)]
    first = [text for i, text in enumerate(captions) if i not in broken][:8]
    assert [example.caption for example in shown if example.kind == "First items"] == first


def test_heat_is_drawn_in_its_window() -> None:
    """A map of two cells over the right half of a grey image: the right quarter is coloured, the left half is not."""
    grey = Image.new("RGB", (80, 40), (50, 50, 50))
    overlay = np.asarray(gallery._overlay(grey, np.array([[0.0, 1.0]]), np.array([40.0, 0.0, 80.0, 40.0])))
    assert (overlay[:, :40] == 50).all()
    assert (overlay[:, 79, 0] > 150).all()
    assert (overlay[:, 41] == overlay[:, 41, :1]).all()  # the lowest cell is transparent
    flat = np.asarray(gallery._overlay(grey, np.ones((1, 2)), np.array([0.0, 0.0, 80.0, 40.0])))
    assert (flat == 50).all()  # a constant map colours nothing
