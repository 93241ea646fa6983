"""Checkpoints of open_clip, written by hand: against a forward pass in plain torch, saved, and refused.

`make peers` compares every kind with open_clip itself.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from domainclip import components
from domainclip.errors import ModelError, RecipeError
from domainclip.models.base_loading import load_base_model
from domainclip.models.loading import load_model
from domainclip.models.open_clip import key_map, tables
from domainclip.models.patch_embeddings import encode_patches
from domainclip.models.saving import save_model
from domainclip.strategies.full import Full
from domainclip.strategies.locked_image import LockedImage
from domainclip.strategies.lora import Lora
from domainclip.training import objective_inputs
from tests.support import tiny_models
from tests.support.open_clip_checkpoints import (
    TEXTS,
    attend,
    biomedical,
    captioner,
    clip,
    conch,
    forward_blocks,
    layer_norm,
    outputs,
)
from tests.support.tiny_models import noise, stack


def clip_by_hand(
    folder: Path, pixels: Tensor, ids: Tensor, *, causal: bool, quick_gelu: bool, prefix: str
) -> tuple[Tensor, Tensor]:
    weights = load_file(folder / "open_clip_model.safetensors")
    act = (lambda rows: rows * torch.sigmoid(1.702 * rows)) if quick_gelu else F.gelu
    patches = F.conv2d(pixels, weights["visual.conv1.weight"], stride=8).flatten(2).transpose(1, 2)
    rows = torch.cat([weights["visual.class_embedding"].expand(len(pixels), 1, -1), patches], dim=1)
    rows = layer_norm(rows + weights["visual.positional_embedding"], weights, "visual.ln_pre")
    rows = layer_norm(forward_blocks(rows, weights, "visual.", None, act), weights, "visual.ln_post")
    image = rows[:, 0] @ weights["visual.proj"]
    mask = torch.full((ids.shape[1], ids.shape[1]), -torch.inf).triu(1) if causal else None
    rows = (
        weights[f"{prefix}token_embedding.weight"][ids]
        + weights[f"{prefix}positional_embedding"][: ids.shape[1]]
    )
    rows = layer_norm(forward_blocks(rows, weights, prefix, mask, act), weights, f"{prefix}ln_final")
    text = rows[torch.arange(len(ids)), ids.argmax(-1)] @ weights[f"{prefix}text_projection"]
    return F.normalize(image, dim=-1), F.normalize(text, dim=-1)


def _zeros_behind_the_end(ids: Tensor) -> Tensor:
    """As open_clip's own tokenizer pads: up to the context, with id 0."""
    padded = torch.zeros(len(ids), 77, dtype=torch.long)
    for row, one in zip(padded, ids, strict=True):
        stop = int(one.argmax()) + 1
        row[:stop] = one[:stop]
    return padded


@pytest.mark.parametrize(
    ("causal", "quick_gelu", "prefix", "family"),
    [
        (True, False, "", "clip"),
        (True, True, "", "clip"),
        (True, False, "text.", "clip"),
        (False, False, "text.", "open_clip"),  # MobileCLIP
    ],
)
def test_the_embeddings_are_those_of_plain_torch(
    tmp_path: Path, causal: bool, quick_gelu: bool, prefix: str, family: str
) -> None:
    folder = clip(tmp_path, causal=causal, quick_gelu=quick_gelu, prefix=prefix)
    model = load_model(folder)
    assert (model.family, model.objective) == (family, "contrastive")
    assert model.scale.item() == pytest.approx(torch.tensor(3.0).exp().item())
    images = stack(model.image_preprocessor(noise(40 + i, 50, i)) for i in range(4))
    ids = _zeros_behind_the_end(model.text_tokenizer(TEXTS)["input_ids"])
    expected = clip_by_hand(
        folder,
        model.pixel_inputs(images)["pixel_values"],
        ids,
        causal=causal,
        quick_gelu=quick_gelu,
        prefix=prefix,
    )
    for mine, theirs in zip(outputs(model), expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    # Negative control: the other activation.
    other = clip_by_hand(
        folder,
        model.pixel_inputs(images)["pixel_values"],
        ids,
        causal=causal,
        quick_gelu=not quick_gelu,
        prefix=prefix,
    )
    assert not torch.allclose(expected[0], other[0], atol=1e-4)


def test_a_text_without_a_causal_mask_is_padded_with_zeros_and_no_word_changes(tmp_path: Path) -> None:
    model = load_model(clip(tmp_path / "a", causal=False))
    causal = load_model(clip(tmp_path / "b"))
    for _ in range(2):  # and after it was saved
        ids = model.text_tokenizer(TEXTS)["input_ids"]
        assert torch.equal(ids, _zeros_behind_the_end(causal.text_tokenizer(TEXTS)["input_ids"]))
        save_model(model, tmp_path / "saved")
        model = load_model(tmp_path / "saved")


def test_timm_and_bert_by_hand(tmp_path: Path) -> None:
    """BiomedCLIP: the trunk in plain torch, the encoder as transformers loads it, and a projection of two layers."""
    folder = biomedical(tmp_path)
    model = load_model(folder)
    weights = load_file(folder / "open_clip_model.safetensors")
    images = stack(model.image_preprocessor(noise(40 + i, 50, i)) for i in range(4))
    text = model.text_tokenizer(TEXTS)
    assert text["input_ids"].shape[1] == model.max_tokens == 48
    trunk = {name.removeprefix("visual.trunk."): value for name, value in weights.items()}
    pixels = model.pixel_inputs(images)["pixel_values"]
    assert pixels.min() >= -2
    rows = F.conv2d(pixels, trunk["patch_embed.proj.weight"], trunk["patch_embed.proj.bias"], stride=8)
    rows = (
        torch.cat([trunk["cls_token"].expand(4, 1, -1), rows.flatten(2).transpose(1, 2)], 1)
        + trunk["pos_embed"]
    )
    normed = layer_norm(rows, trunk, "blocks.0.norm1", 1e-6)
    rows = rows + attend(normed, trunk, ("blocks.0.attn.qkv.", "blocks.0.attn.proj"), 3, None)
    hidden = layer_norm(rows, trunk, "blocks.0.norm2", 1e-6)
    hidden = F.gelu(F.linear(hidden, trunk["blocks.0.mlp.fc1.weight"], trunk["blocks.0.mlp.fc1.bias"]))
    rows = rows + F.linear(hidden, trunk["blocks.0.mlp.fc2.weight"], trunk["blocks.0.mlp.fc2.bias"])
    pooled = layer_norm(rows, trunk, "norm", 1e-6)[:, 0]
    image = F.normalize(pooled @ weights["visual.head.proj.weight"].T, dim=-1)
    encoder = transformers.BertModel(
        transformers.BertConfig.from_pretrained(folder / "bert"), add_pooling_layer=False
    ).eval()
    inner = {
        n.removeprefix("text.transformer."): v
        for n, v in weights.items()
        if n.startswith("text.transformer.")
    }
    encoder.load_state_dict(inner, strict=False)
    with torch.no_grad():
        first = encoder(text["input_ids"], attention_mask=text["attention_mask"]).last_hidden_state[:, 0]
    rows = F.gelu(first @ weights["text.proj.0.weight"].T) @ weights["text.proj.2.weight"].T
    for mine, theirs in zip(outputs(model), (image, F.normalize(rows, dim=-1)), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_a_mean_over_the_tokens_leaves_out_padding(tmp_path: Path) -> None:
    model = load_model(biomedical(tmp_path, pool="mean_pooler", projection="linear"))
    with torch.no_grad():
        alone = model.encode_text(model.text_tokenizer(TEXTS[:1]))
        beside = model.encode_text(model.text_tokenizer(TEXTS))[:1]
    assert torch.allclose(alone, beside, atol=1e-5)


def mobile(folder: Path) -> Path:
    """A MobileCLIP: its text tower reads a text in both directions."""
    return clip(folder, causal=False, prefix="text.")


@pytest.mark.parametrize("make", [clip, biomedical, mobile, captioner, conch])
@pytest.mark.parametrize(
    "strategy", [Lora(rank=2), LockedImage(), Full()], ids=lambda one: type(one).__name__
)
def test_trained_saved_and_merged(tmp_path: Path, make: Any, strategy: Any) -> None:
    folder = make(tmp_path / "base")
    model = load_base_model(folder)
    before = outputs(model)
    factors = strategy.learning_rates(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.weights().items():
            if factors[name] > 0 and ".lora_A." not in name:
                weight.add_(0.05 * torch.randn(weight.shape))
    after = outputs(model.eval())
    assert not torch.allclose(after[1], before[1], atol=1e-3)
    save_model(model, tmp_path / "saved")
    again = load_base_model(tmp_path / "saved")
    assert again.scale.item() == pytest.approx(model.scale.item())
    save_model(again, tmp_path / "merged")
    shutil.rmtree(tmp_path / "saved")  # what is merged needs nothing beside it
    (folder / "bert").exists() and shutil.rmtree(folder / "bert")
    for mine, merged in zip(after, outputs(load_model(tmp_path / "merged")), strict=True):
        assert torch.allclose(mine, merged, atol=1e-5)


def test_the_tables_are_read_in_both_directions() -> None:
    """Every kind of entry: fused, transposed, with leading dimensions, and two of theirs in one of ours."""
    table = [
        *tables.timm_siglip(1),
        *tables.timm_clip(1),
        *tables.clip_image(1),
        *tables.text_projection(False),
    ]
    shapes = {
        "attn_pool.q.": (4, 4),
        "attn_pool.kv.": (8, 4),
        "qkv": (12, 4),
        "in_proj": (12, 4),
        "cls_token": (1, 1, 4),
    }
    theirs = {
        name: torch.randn(
            next(
                (shape for key, shape in shapes.items() if key in name),
                (1, 5, 4) if "pos_embed" in name else (4, 4),
            )
        )
        for entry in table
        for name in entry.theirs
    }
    for part in (
        tables.timm_siglip(1),
        tables.timm_clip(1),
        tables.clip_image(1),
        tables.text_projection(False),
    ):
        ours = key_map.to_ours(part, theirs)
        back = key_map.to_theirs(part, ours)
        assert all(torch.equal(value, theirs[name]) for name, value in back.items())
        assert set(back) == {name for entry in part for name in entry.theirs}
    ours = key_map.to_ours(tables.timm_siglip(1), theirs)
    fused = ours["vision_model.head.attention.in_proj_weight"]
    assert torch.equal(fused[:4], theirs["visual.trunk.attn_pool.q.weight"])
    assert torch.equal(fused[4:], theirs["visual.trunk.attn_pool.kv.weight"])
    key = ours["vision_model.encoder.layers.0.self_attn.k_proj.weight"]
    assert torch.equal(key, theirs["visual.trunk.blocks.0.attn.qkv.weight"][4:8])


def test_a_pickle_of_open_clip(tmp_path: Path) -> None:
    expected = outputs(load_model(clip(tmp_path)))
    weights = load_file(tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_model.safetensors").unlink()
    for name in ("open_clip_pytorch_model.bin", "RemoteCLIP-ViT-B-32.pt"):
        torch.save(
            {"state_dict": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / name
        )
        for mine, theirs in zip(outputs(load_model(tmp_path)), expected, strict=True):
            assert torch.equal(mine, theirs)
        (tmp_path / name).unlink()
    with pytest.raises(
        ModelError, match=r"no weights in the folder, such as open_clip_model\.safetensors: copy"
    ):
        load_model(tmp_path)


def _edited(folder: Path, section: str, **changes: Any) -> str:
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    config.get("model_cfg", config).setdefault(section, {}).update(changes)
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f'base "{folder}": ')


@pytest.mark.parametrize(
    ("section", "changes", "expected"),
    [
        (
            "vision_cfg",
            {"attentional_pool": "parallel"},
            'open_clip_config.json: vision_cfg.attentional_pool: "parallel" is not supported: name',
        ),
        (
            "vision_cfg",
            {"layers": [3, 4, 6, 3]},
            "open_clip_config.json: vision_cfg.layers: a ResNet of CLIP, which",
        ),
        (
            "vision_cfg",
            {"no_ln_pre": True},
            "open_clip_config.json: vision_cfg.no_ln_pre: true is not supported: name",
        ),
        (
            "vision_cfg",
            {"patch_szie": 8},
            "open_clip_config.json: vision_cfg.patch_szie is not an option that is known",
        ),
        (
            "vision_cfg",
            {"width": "big"},
            'open_clip_config.json: vision_cfg.width: "big" is no int: correct it',
        ),
        (
            "vision_cfg",
            {"pool_type": "avg"},
            "open_clip_config.json: vision_cfg.pool_type: avg is not supported",
        ),
        ("vision_cfg", {"layers": 3}, 'its file has no weight "visual.transformer.resblocks.2.'),
        (
            "vision_cfg",
            {"layers": 1},
            'its weight "visual.transformer.resblocks.1.attn.in_proj_bias" belongs to no',
        ),
        (
            "vision_cfg",
            {"patch_size": 16},
            'its weight "vision_model.embeddings.patch_embedding.weight" has the shape',
        ),
        (
            "text_cfg",
            {"pool_type": "none"},
            "open_clip_config.json: text_cfg.pool_type: none is not supported",
        ),
        (
            "text_cfg",
            {"tokenizer_kwargs": {"clean": "lower"}},
            "open_clip_config.json: text_cfg.tokenizer_kwargs.clean",
        ),
        (
            "text_cfg",
            {"tokenizer_kwargs": {"strip_sep_token": True}},
            "open_clip_config.json: text_cfg.tokenizer_kwargs.s",
        ),
        (
            "vision_cfg",
            {"timm_model_name": "fastvit_mci0"},
            "its image tower is fastvit_mci0 of timm, which is not",
        ),
        (
            "vision_cfg",
            {"timm_model_name": "a", "timm_pool": "rot_attn"},
            "open_clip_config.json: vision_cfg.timm_pool",
        ),
    ],
)
def test_what_is_not_supported_is_named(
    tmp_path: Path, section: str, changes: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    assert _edited(clip(tmp_path), section, **changes).startswith(expected)


def test_preprocessing_that_is_not_supported(tmp_path: Path) -> None:
    folder = clip(tmp_path)
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    for options, expected in (
        ({"resize_mode": "longest"}, 'preprocess_cfg.resize_mode: "longest" is not shortest or squash'),
        ({"interpolation": "box"}, 'preprocess_cfg.interpolation: "box" is not bicubic or bilinear'),
        ({"size": 64}, "preprocess_cfg.size: 64 is not vision_cfg.image_size: correct one"),
    ):
        file.write_text(json.dumps({**config, "preprocess_cfg": options}))
        with pytest.raises(ModelError) as caught:
            load_model(folder)
        assert str(caught.value) == f'base "{folder}": open_clip_config.json: {expected}'


def test_an_encoder_whose_config_is_nowhere(tmp_path: Path) -> None:
    folder = biomedical(tmp_path)
    shutil.rmtree(folder / "bert")
    message = _edited(folder, "text_cfg", hf_model_name="lab/bert")
    assert message.startswith(
        "its text tower is lab/bert, whose config.json cannot be read: no such folder, "
    )
    assert message.endswith("where the Hub can be reached, run: hf download lab/bert config.json")


def test_a_broken_config(tmp_path: Path) -> None:
    folder = clip(tmp_path)
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 128}}')
    with pytest.raises(
        ModelError, match=r"open_clip_config\.json: 'vision_cfg' is missing: download it again"
    ):
        load_model(folder)
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"open_clip_config\.json: it cannot be read: download it again"):
        load_model(folder)


def test_a_text_that_is_pooled_at_an_id_is_a_clip_unless_the_id_is_2(tmp_path: Path) -> None:
    """And sizes may be height and width, as `export --to open_clip` writes them."""
    folder = clip(tmp_path)
    expected = outputs(load_model(folder))
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["text_cfg"] |= {
        "pool_type": "eos",
        "eos_id": load_model(folder).text_tokenizer.hf_tokenizer.eos_token_id,
    }
    config["model_cfg"]["vision_cfg"]["image_size"] = [32, 32]
    file.write_text(json.dumps(config))
    model = load_model(folder)
    assert model.family == "clip"
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(outputs(model), expected, strict=True))


def test_the_form_of_an_export(tmp_path: Path) -> None:
    """Two joined towers are exported to open_clip alone, and load again."""
    from types import SimpleNamespace

    from domainclip.pipelines.export.export import _joined_refusal
    from domainclip.pipelines.export.open_clip_form import OpenClipForm
    from domainclip.pipelines.export.transformers_form import TransformersForm

    source: Any = SimpleNamespace(model=load_model(biomedical(tmp_path / "base")))
    assert _joined_refusal(TransformersForm(), source) == (
        "family open_clip: transformers has no class for its towers: use --to open_clip"
    )
    assert _joined_refusal(OpenClipForm(), source) == OpenClipForm().refusal(source) == ""
    OpenClipForm().write(source, tmp_path / "out")
    for mine, theirs in zip(outputs(load_model(tmp_path / "out")), outputs(source.model), strict=True):
        assert torch.equal(mine, theirs)


def test_the_names_of_a_plain_model_come_back() -> None:
    stored = dict.fromkeys(("visual.proj", "transformer.x", "ln_final.bias", "logit_scale"), torch.ones(1))
    assert tables.is_plain(stored)
    assert tables.plain(tables.normalized(stored)).keys() == stored.keys()
    assert not tables.is_plain(["visual.proj", "text.transformer.x", "logit_scale"])


def test_a_tower_without_attention_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny_models.tiny_clip(tmp_path / "clip"))
    monkeypatch.setattr(type(model), "lora_targets", lambda self, side, *_: [] if side == "image" else ["x"])
    with pytest.raises(RecipeError) as error:
        Lora().learning_rates(model)
    assert str(error.value) == (
        "strategy.lora.targets: attention: the image tower of this base has no such layers: set "
        "strategy.lora.targets=attention+mlp, or strategy.lora.towers=text"
    )


class _Trunk(torch.nn.Module):
    """A tower of timm with one class token in front, as that of MobileCLIP-B, which returns pooled rows."""

    num_features = 192

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = torch.nn.Parameter(torch.zeros(1, 1, 192))
        self.patch_embed = torch.nn.Module()
        self.patch_embed.proj = torch.nn.Conv2d(3, 192, 8, 8)
        self.blocks = torch.nn.ModuleList(torch.nn.LayerNorm(192, elementwise_affine=False) for _ in range(2))

    def reset_classifier(self, *_: Any, **__: Any) -> None:
        pass

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = self.patch_embed.proj(pixels).flatten(2).mean(dim=2)
        return self.blocks[1](self.blocks[0](self.cls_token[:, 0] + rows))


def test_a_tower_of_timm_with_a_class_token_has_no_patches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hidden states are not returned, so an objective that needs patches is refused before training."""
    plain = load_model(biomedical(tmp_path / "plain"))
    assert plain.has_token_embeddings("image")  # the control: the same checkpoint as a tower of transformers
    library = types.SimpleNamespace(create_model=lambda *_, **__: _Trunk())
    monkeypatch.setitem(sys.modules, "timm", library)
    folder = biomedical(tmp_path / "timm")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["timm_model_name"] = "vit_base_mci_224"
    config["model_cfg"]["vision_cfg"]["timm_pool"] = "token"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = load_file(folder / "open_clip_model.safetensors")
    unused = [name for name in weights if "trunk" in name and not re.search("cls_token|patch_embed", name)]
    save_file(
        {name: weights[name] for name in weights.keys() - unused}, folder / "open_clip_model.safetensors"
    )
    model = load_model(folder)
    assert outputs(model)[0].shape[1] == model.width
    assert not model.has_token_embeddings("image")
    assert model.has_token_embeddings("text")
    terms = components.build_objectives({"token_alignment": {}})
    with pytest.raises(
        RecipeError, match=r"^objectives.token_alignment: family open_clip gives no image tokens"
    ):
        objective_inputs.check_objectives(terms, model, stream=False)
    images = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    with pytest.raises(ModelError, match="has no token embeddings of images"):
        model({"pixels": images}, None, tokens=True)
    with pytest.raises(ModelError, match="it has no map of patches"):
        encode_patches(model, {"pixels": images})
