"""Embeddings of patches and words: their definition, the mask of words, and families without them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from domainclip.errors import ModelError
from domainclip.models import token_embeddings
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.models.token_embeddings import EncoderOutput
from domainclip.strategies.full import Full
from domainclip.strategies.lora import Lora
from tests.support import tiny_models

TEXTS = ["a red circle", "two small squares on the left of a green dog", "cat"]
FAMILIES = [make for make in tiny_models.FAMILIES if make is not tiny_models.tiny_siglip2_naflex]


def _loaded(family: Callable[..., Path], folder: Path) -> DualEncoder:
    model = load_model(family(folder / "base"))
    model.eval()
    return model


def _images(model: DualEncoder, count: int = 3) -> dict[str, Tensor]:
    return tiny_models.stack(
        [model.image_preprocessor(tiny_models.noise(30 + 9 * i, 40, seed=i)) for i in range(count)]
    )


def _groups(model: DualEncoder) -> list[dict[str, Tensor]]:
    return [model.text_tokenizer(TEXTS[2:]), model.text_tokenizer(TEXTS[:2])]


@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_lengths_and_pooled_rows(family: Callable[..., Path], tmp_path: Path) -> None:
    model = _loaded(family, tmp_path)
    image, groups = _images(model), _groups(model)
    out = model(image, groups, tokens=True)
    assert type(out) is EncoderOutput
    longest = max(group["input_ids"].shape[1] for group in groups)
    d = model.width
    assert out.image_tokens.shape == (3, 16, d)
    assert out.text_tokens.shape == (3, longest, d)
    assert out.text_mask.shape == (3, longest)
    assert out.text_mask.dtype == torch.bool
    assert torch.allclose(out.image_tokens.norm(dim=-1), torch.ones(3, 16), atol=1e-5)
    lengths = out.text_tokens.norm(dim=-1)[out.text_mask]
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)
    for mine, hf_model in zip(out[:4], model(image, groups), strict=True):
        assert mine is hf_model is None or torch.allclose(mine, hf_model, atol=1e-5)
    for given in ((image, None), (None, groups)):
        other = model(*given, tokens=True)
        assert [name for name, value in zip(other._fields, other, strict=True) if value is None] == [
            name
            for name, value in zip(out._fields, out, strict=True)
            if value is None or name.startswith("text" if given[1] is None else "image")
        ]


def _clip(hf_model: Any, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    hidden = hf_model.vision_model(image).last_hidden_state[:, 1:]
    words = hf_model.text_model(text).last_hidden_state
    return hf_model.visual_projection(hf_model.vision_model.post_layernorm(hidden)), hf_model.text_projection(
        words
    )


def _siglip(hf_model: Any, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    hidden = hf_model.vision_model(image).last_hidden_state
    each = [hf_model.vision_model.head(hidden[:, i : i + 1]) for i in range(16)]
    return torch.stack(each, dim=1), hf_model.text_model.head(hf_model.text_model(text).last_hidden_state)


def _dual(hf_model: Any, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    hidden = hf_model.vision_model(image).last_hidden_state[:, 1:]
    words = hf_model.text_model(text, attention_mask=(text != 0).long()).last_hidden_state
    pooled = [
        torch.tanh(part.pooler.dense(rows))
        for part, rows in ((hf_model.vision_model, hidden), (hf_model.text_model, words))
    ]
    return hf_model.visual_projection(pooled[0]), hf_model.text_projection(pooled[1])


@pytest.mark.parametrize(
    ("family", "by_hand"),
    [
        (tiny_models.tiny_clip, _clip),
        (tiny_models.tiny_siglip, _siglip),
        (tiny_models.tiny_dual_encoder, _dual),
    ],
)
def test_each_token_is_pooled_and_projected(
    family: Callable[..., Path], by_hand: Callable[..., tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    model = _loaded(family, tmp_path)
    image, text = _images(model), model.text_tokenizer(TEXTS)
    out = model(image, text, tokens=True)
    rows, words = by_hand(model.hf_base, model.pixel_inputs(image)["pixel_values"], text["input_ids"])
    assert torch.allclose(out.image_tokens, F.normalize(rows, dim=-1), atol=1e-5)
    mine, theirs = out.text_tokens[out.text_mask], F.normalize(words, dim=-1)[out.text_mask]
    assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("family", [tiny_models.tiny_clip, tiny_models.tiny_metaclip_2])
def test_the_pooled_token_equals_the_embedding(family: Callable[..., Path], tmp_path: Path) -> None:
    """At the end of the text, which the mask excludes, is the embedding itself."""
    model = _loaded(family, tmp_path)
    text = model.text_tokenizer(TEXTS)
    out = model(None, text, tokens=True)
    ends = (text["input_ids"] == model.hf_base.config.text_config.eos_token_id).int().argmax(dim=1)
    at_end = out.text_tokens[torch.arange(3), ends]
    assert torch.allclose(at_end, out.text, atol=1e-5)
    assert not out.text_mask[torch.arange(3), ends].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mask_covers_the_words_of_each_text(family: Callable[..., Path], tmp_path: Path) -> None:
    model = _loaded(family, tmp_path)
    groups = _groups(model)
    mask = model(None, groups, tokens=True).text_mask
    for row, text in zip(mask, [TEXTS[2], *TEXTS[:2]], strict=True):
        pieces = model.text_tokenizer.hf_tokenizer(
            model.text_tokenizer.normalize([text]), add_special_tokens=False
        )["input_ids"][0]
        assert row.sum() == len(pieces)
        positions = row.nonzero().flatten()
        assert (positions.diff() == 1).all()  # without a gap, from the first word on
        assert positions[0] == (
            0 if model.text_tokenizer.hf_tokenizer.bos_token is None and "siglip" in model.family else 1
        )


def test_an_unknown_word_is_a_word_and_an_empty_text_has_none(tmp_path: Path) -> None:
    model = _loaded(tiny_models.tiny_dual_encoder, tmp_path)
    text = model.text_tokenizer(["a Ω cat", ""])
    assert model.text_tokenizer.hf_tokenizer.unk_token_id in text["input_ids"][0]
    assert model(None, text, tokens=True).text_mask.sum(dim=1).tolist() == [3, 0]


@pytest.mark.parametrize("strategy", [Full(last_layers=1), Lora(rank=2, last_layers=1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_from_frozen_hidden_states_they_are_the_same(
    family: Callable[..., Path], strategy: Any, tmp_path: Path
) -> None:
    model = _loaded(family, tmp_path)
    strategy.learning_rates(model)
    model.eval()
    image, text = _images(model), model.text_tokenizer(TEXTS)
    whole = model(image, text, tokens=True)
    text_with_hidden = {**text, "hidden": model.frozen_hidden_states("text", text)}
    from_hidden = model({"hidden": model.frozen_hidden_states("image", image)}, text_with_hidden, tokens=True)
    assert from_hidden.objective_weights == whole.objective_weights == {}
    for mine, theirs in zip(from_hidden, whole, strict=True):
        if isinstance(mine, torch.Tensor):
            assert torch.allclose(mine.float(), theirs.float(), atol=1e-5)
        else:
            assert not mine
            assert not theirs


def test_gradients_reach_the_towers_through_the_tokens(tmp_path: Path) -> None:
    model = load_model(tiny_models.tiny_clip(tmp_path / "base"))
    out = model(_images(model), model.text_tokenizer(TEXTS), tokens=True)
    (out.image_tokens.sum() + out.text_tokens[out.text_mask].sum()).backward()
    without = {name for name, weight in model.weights().items() if weight.grad is None}
    assert without == {"scale/logit_scale"}


def test_a_tower_for_images_of_any_shape_has_words_but_no_patches(tmp_path: Path) -> None:
    model = _loaded(tiny_models.tiny_siglip2_naflex, tmp_path)
    assert model.has_token_embeddings("text")
    assert not model.has_token_embeddings("image")
    assert model(None, model.text_tokenizer(TEXTS), tokens=True).text_tokens.shape == (3, 64, 32)
    with pytest.raises(ModelError) as error:
        model(_images(model, 1), None, tokens=True)
    assert str(error.value) == (
        f'base "{tmp_path / "base"}": family siglip2 has no token embeddings of images; leave out the '
        "objective that needs image_tokens"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_all_others_have_both(family: Callable[..., Path], tmp_path: Path) -> None:
    model = _loaded(family, tmp_path)
    assert model.has_token_embeddings("image")
    assert model.has_token_embeddings("text")


def test_a_second_token_in_front_is_refused(tmp_path: Path) -> None:
    """With registers or a distillation token, the patches begin elsewhere."""
    model = _loaded(tiny_models.tiny_dual_encoder, tmp_path)
    model.hf_base.vision_model.embeddings.distillation_token = torch.nn.Parameter(torch.zeros(1, 1, 32))
    assert not model.has_token_embeddings("image")


def test_a_study_of_several_images_has_no_single_grid(tmp_path: Path) -> None:
    model = _loaded(tiny_models.tiny_clip, tmp_path)
    model.frames = 2
    assert not model.has_token_embeddings("image")
    assert model.has_token_embeddings("text")


def test_groups_are_padded_to_the_longest() -> None:
    ones = torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    short = 2 * torch.ones(1, 2, 4), torch.tensor([[True, False]])
    rows, mask = token_embeddings.pad_and_join([short, ones])
    assert rows[..., 0].tolist() == [[2, 2, 0], [1, 1, 1], [1, 1, 1]]
    assert mask.tolist() == [[True, False, False], [True] * 3, [True] * 3]
