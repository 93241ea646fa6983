from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from domainclip.errors import ModelError, RecipeError
from domainclip.models import layers
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from tests.support.tiny_models import tiny_dual_encoder


def test_the_attention_of_a_clip(clip: DualEncoder) -> None:
    names = ["k_proj", "v_proj", "q_proj", "out_proj"]
    assert clip.depth("image") == clip.depth("text") == 2
    assert clip.lora_targets("image", "attention") == [
        f"vision_model.encoder.layers.{layer}.self_attn.{name}" for layer in (0, 1) for name in names
    ]


def test_the_last_layer_with_its_mlp(clip: DualEncoder) -> None:
    assert clip.lora_targets("text", "attention+mlp", 1) == [
        "text_model.encoder.layers.1.self_attn.k_proj",
        "text_model.encoder.layers.1.self_attn.v_proj",
        "text_model.encoder.layers.1.self_attn.q_proj",
        "text_model.encoder.layers.1.self_attn.out_proj",
        "text_model.encoder.layers.1.mlp.fc1",
        "text_model.encoder.layers.1.mlp.fc2",
    ]


def test_bert_and_vit_need_no_list_of_names(tmp_path: Path) -> None:
    model = load_model(tiny_dual_encoder(tmp_path))
    assert model.lora_targets("text", "attention+mlp", 1) == [
        "text_model.encoder.layer.1.attention.self.query",
        "text_model.encoder.layer.1.attention.self.key",
        "text_model.encoder.layer.1.attention.self.value",
        "text_model.encoder.layer.1.attention.output.dense",
        "text_model.encoder.layer.1.intermediate.dense",
        "text_model.encoder.layer.1.output.dense",
    ]
    assert model.lora_targets("image", "attention", 1) == [
        f"vision_model.layers.1.attention.{name}_proj" for name in "qkvo"
    ]


@pytest.mark.parametrize("count", [0, 3, -1])
def test_a_number_of_layers_that_the_tower_does_not_have(clip: DualEncoder, count: int) -> None:
    with pytest.raises(RecipeError) as caught:
        clip.lora_targets("text", "attention", count)
    assert str(caught.value) == f"last_layers: {count} is not between 1 and 2, the layers of this tower"


def test_an_unknown_kind(clip: DualEncoder) -> None:
    with pytest.raises(RecipeError) as caught:
        clip.lora_targets("text", "atention", 1)
    assert str(caught.value) == 'unknown kind of layers "atention": did you mean "attention"?'


def test_a_tower_without_layers() -> None:
    with pytest.raises(ModelError) as caught:
        layers.depth(nn.Linear(2, 2))
    assert str(caught.value) == "Linear has no stack of layers to choose from"
