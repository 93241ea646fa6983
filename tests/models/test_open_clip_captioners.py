"""CoCa and CONCH: their towers against plain torch, without the decoder, saved, and refused.

`make peers` compares a CoCa with open_clip itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from domainclip.errors import ModelError
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.image_resolution import set_image_size
from domainclip.models.loading import load_model
from domainclip.models.saving import save_model
from domainclip.pipelines.export.export import _joined_refusal
from domainclip.pipelines.export.open_clip_form import OpenClipForm
from tests.support.open_clip_checkpoints import (
    CONTEXT,
    EMBEDDING,
    HEADS,
    LAYERS,
    TEXTS,
    WIDTH,
    attend,
    captioner,
    conch,
    forward_blocks,
    layer_norm,
    outputs,
)
from tests.support.tiny_models import noise, stack

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"


def _pooled(rows: Tensor, weights: dict[str, Tensor], name: str, norm: str) -> Tensor:
    """What all queries read, by torch's own attention; the first one is compared with texts."""
    out = weights[f"{name}.query"].shape[1]
    attention = nn.MultiheadAttention(out, 4, kdim=WIDTH, vdim=WIDTH, batch_first=True)
    prefix = f"{name}.attn."
    attention.load_state_dict({n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)})
    queries = layer_norm(weights[f"{name}.query"], weights, f"{name}.ln_q").expand(len(rows), -1, -1)
    keys = layer_norm(rows, weights, f"{name}.ln_k")
    return layer_norm(attention(queries, keys, keys, need_weights=False)[0], weights, norm)[:, 0]


def _captioner_image(pixels: Tensor, weights: dict[str, Tensor]) -> Tensor:
    patches = F.conv2d(pixels, weights["visual.conv1.weight"], stride=8).flatten(2).transpose(1, 2)
    rows = torch.cat([weights["visual.class_embedding"].expand(len(pixels), 1, -1), patches], dim=1)
    rows = layer_norm(rows + weights["visual.positional_embedding"], weights, "visual.ln_pre")
    rows = forward_blocks(rows, weights, "visual.", None, F.gelu)
    return _pooled(rows, weights, "visual.attn_pool", "visual.ln_post") @ weights["visual.proj"]


def _conch_image(pixels: Tensor, weights: dict[str, Tensor]) -> Tensor:
    trunk = {name.removeprefix("visual.trunk."): value for name, value in weights.items()}
    rows = F.conv2d(pixels, trunk["patch_embed.proj.weight"], trunk["patch_embed.proj.bias"], stride=8)
    rows = torch.cat([trunk["cls_token"].expand(len(pixels), -1, -1), rows.flatten(2).transpose(1, 2)], 1)
    rows = rows + trunk["pos_embed"]
    for i in range(LAYERS):
        normed = layer_norm(rows, trunk, f"blocks.{i}.norm1", 1e-6)
        names = (f"blocks.{i}.attn.qkv.", f"blocks.{i}.attn.proj")
        rows = rows + attend(normed, trunk, names, HEADS, None)
        hidden = layer_norm(rows, trunk, f"blocks.{i}.norm2", 1e-6)
        hidden = F.gelu(F.linear(hidden, *(trunk[f"blocks.{i}.mlp.fc1.{k}"] for k in ("weight", "bias"))))
        rows = rows + F.linear(hidden, *(trunk[f"blocks.{i}.mlp.fc2.{k}"] for k in ("weight", "bias")))
    rows = layer_norm(rows, trunk, "norm", 1e-6)
    return (
        _pooled(rows, weights, "visual.attn_pool_contrast", "visual.ln_contrast")
        @ weights["visual.proj_contrast"]
    )


def _text(ids: Tensor, weights: dict[str, Tensor], shift: int) -> Tensor:
    """Texts padded to the whole context, the class token behind them; it reads what lies behind a word.

    With a `shift` of 1 the mask of the class token stands one position too far right, as in open_clip.
    """
    padded = F.pad(ids, (0, CONTEXT - ids.shape[1]))
    token = weights["text.cls_emb"].expand(len(ids), 1, -1)
    rows = torch.cat([weights["text.token_embedding.weight"][padded], token], dim=1)
    mask = torch.full((len(ids), CONTEXT + 1, CONTEXT + 1), -torch.inf).triu(1)
    for one, words in zip(mask, padded != 0, strict=True):
        marks = [True, *words.tolist()] if shift else [*words.tolist(), True]
        for position, readable in enumerate(marks):
            one[-1, position] = 0 if readable else -torch.inf
    rows = forward_blocks(rows + weights["text.positional_embedding"], weights, "text.", mask, F.gelu)
    return layer_norm(rows[:, -1], weights, "text.ln_final") @ weights["text.text_projection"]


def _unpadded(model: DualEncoder) -> Tensor:
    """(b, l) ids with zeros behind the end of each text."""
    ids = model.text_tokenizer(TEXTS)["input_ids"]
    ends = (ids == model.text_tokenizer.hf_tokenizer.eos_token_id).long()
    return ids.masked_fill(ends.cumsum(1) - ends > 0, 0)


def _wide(folder: Path) -> Path:
    return captioner(folder, width=WIDTH)


@pytest.mark.parametrize("make", [captioner, _wide, conch])
def test_the_embeddings_are_those_of_plain_torch(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path)
    model = load_model(folder)
    file = folder / WEIGHTS
    weights = load_file(file) if file.is_file() else torch.load(folder / "pytorch_model.bin")
    assert (model.family, model.objective, model.max_tokens) == ("open_clip", "contrastive", CONTEXT)
    assert model.scale.item() == pytest.approx(torch.tensor(3.0).exp().item())
    images = stack(model.image_preprocessor(noise(40 + i, 50, i)) for i in range(4))
    pixels = model.pixel_inputs(images)["pixel_values"]
    ids = _unpadded(model)
    assert ids.shape[1] == CONTEXT  # one text fills it, the others are shorter
    with torch.no_grad():
        image = (_conch_image if make is conch else _captioner_image)(pixels, weights)
        text, straight = (_text(ids, weights, shift) for shift in (1, 0))
    for ours, theirs in zip(outputs(model), (image, text), strict=True):
        assert torch.allclose(ours, F.normalize(theirs, dim=-1), atol=1e-5)
    assert not torch.allclose(text[0], straight[0], atol=1e-3)  # the control: another mask


@pytest.mark.parametrize("make", [captioner, conch])
def test_a_text_has_the_same_embedding_beside_longer_ones(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    model = load_model(make(tmp_path))
    with torch.no_grad():
        alone = torch.cat([model.encode_text(model.text_tokenizer([text])) for text in TEXTS])
        beside = model.encode_text(model.text_tokenizer(TEXTS))
    assert torch.allclose(alone, beside, atol=1e-5)


def test_the_decoder_is_left_out_with_a_warning_and_open_clip_builds_two_towers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = captioner(tmp_path / "base")
    with caplog.at_level(logging.WARNING, "domainclip"):
        model = load_model(folder)
        load_model(folder)
    assert caplog.messages == [
        f'base "{folder}": its caption decoder is left out, since it does not fit adapted towers: for '
        "captions, add the objective captioning"
    ]
    save_model(model, tmp_path / "saved")
    weights, before = load_file(tmp_path / "saved" / WEIGHTS), load_file(folder / WEIGHTS)
    assert set(weights) == {name for name in before if not name.startswith("text_decoder.")}
    assert torch.equal(weights["visual.attn_pool.query"], before["visual.attn_pool.query"][:1])
    config = json.loads((tmp_path / "saved" / CONFIG).read_text())["model_cfg"]
    assert set(config) == {"embed_dim", "vision_cfg", "text_cfg", "custom_text"}
    assert config["custom_text"] is True
    assert config["vision_cfg"]["attn_pooler_queries"] == 1
    assert "output_tokens" not in config["vision_cfg"] | config["text_cfg"]
    assert config["text_cfg"]["context_length"] == CONTEXT
    with caplog.at_level(logging.WARNING, "domainclip"):
        again = load_model(tmp_path / "saved")
    assert len(caplog.messages) == 1
    for ours, theirs in zip(outputs(again), outputs(model), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_conch_is_saved_under_the_names_of_its_package(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = conch(tmp_path / "base")
    model = load_model(folder)
    assert not caplog.messages  # it is published without its decoder
    save_model(model, tmp_path / "saved")
    before = torch.load(folder / "pytorch_model.bin")
    caption = ("visual.attn_pool_caption.", "visual.ln_caption.")
    assert set(load_file(tmp_path / "saved" / WEIGHTS)) == {n for n in before if not n.startswith(caption)}
    config = json.loads((tmp_path / "saved" / CONFIG).read_text())
    assert config["multimodal_cfg"]["layers"] == 0
    assert config["vision_cfg"]["attentional_pool_caption"] is False
    assert config["text_cfg"]["context_length"] == CONTEXT + 1
    source: Any = SimpleNamespace(model=model)
    assert _joined_refusal(OpenClipForm(), source) == (
        "family open_clip: no other library has the towers of CONCH: use the run itself"
    )


@pytest.mark.parametrize("make", [captioner, conch])
def test_patches_and_words_have_embeddings(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """That of a patch is what the query reads in it alone."""
    model = load_model(make(tmp_path))
    images = stack(model.image_preprocessor(noise(40, 50, i)) for i in range(2))
    with torch.no_grad():
        out = model(images, model.text_tokenizer(TEXTS[:2]), tokens=True)
        base = model.hf_base
        hidden = base.vision_model(model.pixel_inputs(images)["pixel_values"]).last_hidden_state
        first = base.visual_projection(base.vision_model.head(hidden[:, 1:2]))
    assert out.image_tokens.shape == (2, 16, EMBEDDING)
    assert torch.allclose(out.image_tokens[:, 0], F.normalize(first, dim=-1), atol=1e-5)
    assert out.text_tokens.shape == (*model.text_tokenizer(TEXTS[:2])["input_ids"].shape, EMBEDDING)


def test_another_image_size_is_saved(tmp_path: Path) -> None:
    model = load_model(captioner(tmp_path / "base"))
    set_image_size(model, 48)
    save_model(model, tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.image_size == (48, 48)
    for ours, theirs in zip(outputs(again), outputs(model), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "section", "changes", "expected"),
    [
        (
            captioner,
            "text_cfg",
            {"no_causal_mask": True},
            "text_cfg.embed_cls: with no_causal_mask it is not",
        ),
        (captioner, "text_cfg", {"pad_id": 1}, "text_cfg.pad_id: 1 is not the padding of its tokenizer"),
        (captioner, "text_cfg", {"correct_cls_mask": True}, "text_cfg.correct_cls_mask: true is not supp"),
        (conch, "text_cfg", {"pad_id": 1}, "text_cfg.pad_id: 1 is not the padding of its tokenizer: correct"),
        (conch, "text_cfg", {"embed_cls": False}, "a CONCH without vision_cfg.attentional_pool_contrast and"),
        (conch, "vision_cfg", {"num_heads": "a"}, 'vision_cfg.head_width: "a" is no int: correct it'),
        (conch, "vision_cfg", {"depth": 2}, "vision_cfg.depth is not an option that is known"),
    ],
)
def test_what_is_not_supported_is_named(
    tmp_path: Path, make: Callable[[Path], Path], section: str, changes: dict[str, Any], expected: str
) -> None:
    folder = make(tmp_path)
    config = json.loads((folder / CONFIG).read_text())
    config.get("model_cfg", config)[section] |= changes
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert str(caught.value).startswith(f'base "{folder}": {CONFIG}: {expected}')


def test_missing_files_and_weights_are_named(tmp_path: Path) -> None:
    folder = conch(tmp_path / "conch")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(
        ModelError, match=r"its tokenizer is missing: copy conch/open_clip_custom/tokenizers/"
    ):
        load_model(folder)
    folder = captioner(tmp_path / "captioner")
    weights = load_file(folder / WEIGHTS)
    del weights["visual.attn_pool.query"]
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(ModelError, match=r'its file has no weight "visual\.attn_pool\.query": download'):
        load_model(folder)
