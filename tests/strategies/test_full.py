"""Full tuning: everything learns, each tower at its own rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip.errors import RecipeError
from domainclip.models import loading
from domainclip.strategies.full import Full


def test_factors_by_tower(base: Path) -> None:
    loaded = loading.load_model(base)
    factors = Full(image_lr_factor=0.1, text_lr_factor=2.0, train_logit_scale=False).learning_rates(loaded)
    assert factors.keys() == loaded.weights().keys()
    assert {factors[name] for name in factors if name.startswith("image/")} == {0.1}
    assert {factors[name] for name in factors if name.startswith("text/")} == {2.0}
    assert factors["scale/logit_scale"] == 0.0
    assert {name for name, w in loaded.weights().items() if not w.requires_grad} == {"scale/logit_scale"}


def test_only_the_last_layers_and_what_stands_above_them(base: Path) -> None:
    factors = Full(last_layers=1, text_lr_factor=0.5).learning_rates(loading.load_model(base))
    learns = {name: factor for name, factor in factors.items() if factor > 0}
    assert {factor for name, factor in learns.items() if name.startswith("text/")} == {0.5}
    for part in ("vision", "text"):
        assert not any(
            f"{part}_model.embeddings" in name or f"{part}_model.encoder.layers.0" in name for name in learns
        )
        assert (
            sum(f"{part}_model.encoder.layers.1" in name for name in learns) == 16
        )  # eight modules, two each
    above = {
        "image/vision_model.post_layernorm.weight",
        "image/visual_projection.weight",
        "scale/logit_scale",
    }
    above |= {"text/text_model.final_layer_norm.bias", "text/text_projection.weight"}
    assert above <= learns.keys()
    assert "image/vision_model.pre_layrnorm.weight" not in learns


def test_each_layer_learns_slower_than_the_one_above(base: Path) -> None:
    loaded = loading.load_model(base)
    factors = Full(layer_decay=0.5, text_lr_factor=2.0).learning_rates(loaded)
    assert factors.keys() == loaded.weights().keys()
    for part, side, full in (("vision", "image", 1.0), ("text", "text", 2.0)):
        places = {"embeddings": 0.25, "encoder.layers.0": 0.5, "encoder.layers.1": 1.0}
        for place, share in places.items():
            found = {f for name, f in factors.items() if name.startswith(f"{side}/{part}_model.{place}.")}
            assert found == {full * share}, (part, place)
    assert factors["image/visual_projection.weight"] == 1.0
    assert factors["text/text_model.final_layer_norm.weight"] == 2.0
    assert factors["scale/logit_scale"] == 1.0


def test_layer_decay_above_locked_layers(base: Path) -> None:
    loaded = loading.load_model(base)
    assert Full(layer_decay=0.5, last_layers=1).learning_rates(loaded) == Full(last_layers=1).learning_rates(
        loaded
    )
    factors = Full(layer_decay=0.5, last_layers=2).learning_rates(loaded)
    by_place = {
        place: {f for name, f in factors.items() if name.startswith(f"text/text_model.{place}.")}
        for place in ("embeddings", "encoder.layers.0", "encoder.layers.1")
    }
    assert by_place == {"embeddings": {0.0}, "encoder.layers.0": {0.5}, "encoder.layers.1": {1.0}}
    assert Full(layer_decay=1.0).learning_rates(loaded) == Full().learning_rates(loaded)


@pytest.mark.parametrize("count", [0, 3])
def test_a_number_of_layers_that_no_tower_has(base: Path, count: int) -> None:
    with pytest.raises(RecipeError) as caught:
        Full(last_layers=count).learning_rates(loading.load_model(base))
    assert str(caught.value) == f"last_layers: {count} is not between 1 and 2, the layers of this tower"
