"""Checkpoints of open_clip of every kind: our embeddings are those of open_clip itself, to 1e-5.

Tiny configs with random weights; the models of timm have the sizes that their names fix.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch.nn.functional import normalize

from domainclip.errors import RecipeError
from domainclip.models.base_loading import load_base_model
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.models.saving import save_model
from domainclip.strategies.full import Full
from domainclip.strategies.locked_image import LockedImage
from domainclip.strategies.lora import Lora
from tests.support import tiny_models
from tests.support.tiny_models import noise, stack

TEXTS = ["a red circle", "no effusion, 1.5 cm!", "a small round spot of galaxy " * 20, "x"]
_VIT = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 32, "head_width": 8}
_TEXT = {"context_length": 77, "width": 32, "heads": 4, "layers": 2}


def _timm(name: str, **options: Any) -> dict[str, Any]:
    return {"timm_model_name": name, "timm_model_pretrained": False, "image_size": 224, **options}


_SIGLIP = {
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "context_length": 64,
}
_SIGLIP_HEAD = {"timm_pool": "map", "timm_proj": "none"}
_BERT = {"hf_pooler_type": "cls_last_hidden_state_pooler", "hf_proj_type": "mlp", "context_length": 48}
# Name: the model's config, and the family that it becomes.
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "CLIP, RemoteCLIP, BioCLIP, Marqo": ({"vision_cfg": _VIT, "text_cfg": _TEXT}, "clip"),
    "OpenAI CLIP, MetaCLIP, QuiltNet": ({"vision_cfg": _VIT, "text_cfg": _TEXT, "quick_gelu": True}, "clip"),
    "MetaCLIP worldwide": (
        {
            "vision_cfg": _VIT,
            "text_cfg": {**_TEXT, "pool_type": "eos", "eos_id": 2, "hf_tokenizer_name": "xlmr"},
        },
        "metaclip_2",
    ),
    "CLIP in a custom text model": (
        {"vision_cfg": _VIT, "text_cfg": _TEXT, "custom_text": True},
        "clip",
    ),
    "SigLIP": (
        {
            "vision_cfg": _timm("vit_base_patch16_siglip_224", **_SIGLIP_HEAD),
            "text_cfg": {**_TEXT, **_SIGLIP, "width": 768, "heads": 12, "hf_tokenizer_name": "siglip"},
            "custom_text": True,
            "init_logit_bias": -10,
            "embed_dim": 768,
        },
        "siglip",
    ),
    "SigLIP 2": (
        {
            "vision_cfg": _timm("vit_base_patch32_siglip_256", **_SIGLIP_HEAD, image_size=256),
            "text_cfg": {
                **_TEXT,
                **_SIGLIP,
                "width": 768,
                "heads": 12,
                "hf_tokenizer_name": "siglip",
                "act_kwargs": {"approximate": "tanh"},
            },
            "custom_text": True,
            "init_logit_bias": -10,
            "embed_dim": 768,
        },
        "siglip",
    ),
    "BiomedCLIP": (
        {
            "vision_cfg": _timm("vit_tiny_patch16_224", timm_pool="", timm_proj="linear"),
            "text_cfg": {**_BERT, "hf_model_name": "bert", "hf_tokenizer_name": "bert"},
        },
        "open_clip",
    ),
    "QuiltNet with PubMedBERT": (
        {"vision_cfg": _VIT, "text_cfg": {**_BERT, "hf_model_name": "bert", "hf_tokenizer_name": "bert"}},
        "open_clip",
    ),
    "a mean of XLM-R": (
        {
            "vision_cfg": _VIT,
            "text_cfg": {
                "hf_model_name": "xlmr",
                "hf_tokenizer_name": "xlmr",
                "hf_pooler_type": "mean_pooler",
                "hf_proj_type": "linear",
                "context_length": 40,
            },
        },
        "open_clip",
    ),
    "BERT with its pooler": (
        {
            "vision_cfg": _VIT,
            "text_cfg": {
                **_BERT,
                "hf_model_name": "bert",
                "hf_tokenizer_name": "bert",
                "hf_pooler_type": "cls_pooler",
            },
        },
        "open_clip",
    ),
    "MobileCLIP-S": (
        {
            "vision_cfg": _timm("fastvit_mci0", timm_pool="avg", timm_proj=None, image_size=256),
            "text_cfg": {**_TEXT, "no_causal_mask": True},
            "custom_text": True,
        },
        "open_clip",
    ),
    "MobileCLIP-B": (
        {
            "vision_cfg": _timm("vit_base_mci_224", timm_pool="token", timm_proj=None),
            "text_cfg": _TEXT,
            "custom_text": True,
        },
        "open_clip",
    ),
    "MobileCLIP2-L": (
        {
            "vision_cfg": _timm("vit_base_patch32_clip_224", timm_pool="token", timm_proj=None),
            "text_cfg": {**_TEXT, "no_causal_mask": True},
            "custom_text": True,
        },
        "open_clip",
    ),
    "Perception Encoder": (
        {
            "vision_cfg": _timm(
                "vit_pe_core_tiny_patch16_384", timm_pool="map", timm_proj=None, image_size=384
            ),
            "text_cfg": {**_TEXT, "context_length": 32},
            "custom_text": True,
        },
        "open_clip",
    ),
    "ConvNeXt of LAION": (
        {
            "vision_cfg": _timm("convnext_tiny", timm_pool="", timm_proj="linear"),
            "text_cfg": _TEXT,
        },
        "open_clip",
    ),
    "CoCa": (
        {
            "vision_cfg": {
                **_VIT,
                "attentional_pool": True,
                "attn_pooler_heads": 4,
                "attn_pooler_queries": 6,
                "output_tokens": True,
            },
            "text_cfg": {**_TEXT, "context_length": 40, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {**_TEXT, "context_length": 40},
            "custom_text": True,
        },
        "open_clip",
    ),
    "CoCa as wide as its image tower": (
        {
            "vision_cfg": {**_VIT, "attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
            "text_cfg": {**_TEXT, "context_length": 40, "embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {**_TEXT, "context_length": 40},
            "custom_text": True,
            "embed_dim": 32,
        },
        "open_clip",
    ),
    "CoCa with RoBERTa": (
        {
            "vision_cfg": {**_VIT, "output_tokens": True},
            "text_cfg": {
                "hf_model_name": "xlmr",
                "hf_tokenizer_name": "xlmr",
                "hf_proj_type": "linear",
                "context_length": 40,
                "output_tokens": True,
            },
            "multimodal_cfg": {**_TEXT, "context_length": 40},
            "custom_text": True,
        },
        "open_clip",
    ),
    "timm with an MLP": (
        {
            "vision_cfg": _timm("vit_tiny_patch16_224", timm_pool="token", timm_proj="mlp"),
            "text_cfg": _TEXT,
        },
        "open_clip",
    ),
}


def _encoder(folder: Path, name: str) -> tuple[str, Any]:
    """A folder with the config and the tokenizer of a tiny encoder of transformers, and its tokenizer."""
    place = folder / name
    if name == "bert":
        tokenizer = tiny_models._bert_tokenizer(64)
        config: Any = transformers.BertConfig(**tiny_models._text(tokenizer, max_position_embeddings=64))
    elif name == "xlmr":
        tokenizer = tiny_models._xlmr_tokenizer(77)
        config = transformers.XLMRobertaConfig(**tiny_models._text(tokenizer, max_position_embeddings=79))
    else:
        tokenizer, config = tiny_models._siglip_tokenizer(), None
    tokenizer.save_pretrained(place)
    if config is not None:
        config.save_pretrained(place)
    return str(place), tokenizer


def _model(cfg: dict[str, Any]) -> Any:
    """As open_clip builds it of a config."""
    kind = open_clip.CLIP
    if "custom_text" in cfg or "hf_model_name" in cfg["text_cfg"]:
        kind = open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP
    return kind(**{key: value for key, value in cfg.items() if key != "custom_text"}).eval()


def _write(kind: str, folder: Path) -> tuple[Any, Path]:
    """A model of open_clip with random weights, and its checkpoint."""
    cfg: dict[str, Any] = copy.deepcopy(KINDS[kind][0])
    cfg.setdefault("embed_dim", 16)
    text = cfg["text_cfg"]
    if name := text.get("hf_tokenizer_name"):
        place, tokenizer = _encoder(folder, name)
        text["hf_tokenizer_name"] = place
    else:
        tokenizer = tiny_models._clip_tokenizer(text["context_length"])
    if "hf_model_name" in text:
        text |= {"hf_model_name": place, "hf_model_pretrained": False}
    else:
        text["vocab_size"] = len(tokenizer)
    torch.manual_seed(0)
    model = _model(cfg)
    with (
        torch.no_grad()
    ):  # its initial norms, tokens and running statistics are too even to show a wrong weight
        for parameter in model.parameters():
            if parameter.ndim and not parameter.any():
                parameter.normal_(0, 0.1)
            parameter.add_(0.02 * torch.randn(parameter.shape))
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    base = folder / "base"
    tokenizer.save_pretrained(base)
    (base / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": {}}))
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, base / "open_clip_model.safetensors")
    return model, base


@pytest.fixture(scope="module", params=KINDS, ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Path]:
    kind: str = request.param
    model, base = _write(kind, tmp_path_factory.mktemp("peer"))
    return kind, model, base


def _inputs(ours: DualEncoder) -> tuple[dict[str, torch.Tensor], torch.Tensor, dict[str, torch.Tensor]]:
    """Images, their normalized pixels, and texts, as both libraries take them."""
    images = stack(ours.image_preprocessor(noise(300 + 20 * i, 280, i)) for i in range(4))
    return images, ours.pixel_inputs(images)["pixel_values"], ours.text_tokenizer(TEXTS)


@torch.no_grad()
def _theirs(model: Any, ours: DualEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    _, pixels, text = _inputs(ours)
    ids = text["input_ids"]
    hf = getattr(getattr(model, "text", None), "config", None)
    # Their own padding: with zeros, or with the id of the encoder.
    length, pad = (model.context_length, 0) if hf is None else (ids.shape[1], hf.pad_token_id)
    if ours.fixed_length or hf is not None:
        padded = ids
    else:
        padded = torch.full((len(ids), length), pad)
        for row, one, end in zip(padded, ids, text["input_ids"].argmax(-1), strict=True):
            stop = int(end) + 1 if model.text_pool == "argmax" else len(one)
            row[:stop] = one[:stop]
    return normalize(model.encode_image(pixels), dim=-1), normalize(model.encode_text(padded), dim=-1)


@torch.no_grad()
def _ours(model: DualEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    images, _, text = _inputs(model)
    return model.encode_image(images), model.encode_text(text)


def _pool_of(model: Any) -> str:
    return str(
        getattr(model, "text_pool_type", None) or getattr(getattr(model, "text", None), "pool_type", "")
    )


def assert_parity(model: Any, ours: DualEncoder, name: str) -> None:
    model.text_pool = _pool_of(model)
    for theirs, mine in zip(_theirs(model, ours), _ours(ours), strict=True):
        difference = (theirs - mine).abs().max().item()
        print(f"{name}: {difference:.1e}")
        assert difference < 1e-5
        assert (theirs[0] - theirs[1]).abs().max() > 1e-4  # items differ, or nothing is compared


def test_embeddings_are_those_of_open_clip(pair: tuple[str, Any, Path]) -> None:
    kind, model, base = pair
    ours = load_model(base)
    assert ours.family.replace("-", "_") == KINDS[kind][1]
    assert_parity(model, ours, kind)
    assert ours.scale.item() == pytest.approx(model.logit_scale.exp().item(), rel=1e-6)
    assert (ours.bias is None) == (model.logit_bias is None)
    # Negative control: other weights.
    with torch.no_grad():
        weight = next(w for n, w in ours.weights().items() if n.startswith("image/") and w.ndim > 1)
        weight.add_(0.5 * torch.randn(weight.shape))
    assert (_ours(ours)[0] - _theirs(model, ours)[0]).abs().max() > 1e-4


@pytest.mark.parametrize("strategy", [Lora(rank=2), LockedImage(), Full()], ids=lambda s: type(s).__name__)
def test_one_step_then_saved_and_merged(pair: tuple[str, Any, Path], tmp_path: Path, strategy: Any) -> None:
    """What was trained is what is loaded, and as plain weights of open_clip's form it is what open_clip computes."""
    kind, model, base = pair
    ours = load_base_model(base)
    before = _ours(ours)
    if kind == "ConvNeXt of LAION" and isinstance(strategy, Lora):
        with pytest.raises(RecipeError, match=r"^strategy\.lora\.targets: attention: the image tower"):
            strategy.learning_rates(ours)
        strategy = replace(strategy, targets="attention+mlp")
    factors = strategy.learning_rates(ours)
    assert any(factor > 0 for factor in factors.values())
    ours.set_train_mode({"image", "text"} if not isinstance(strategy, LockedImage) else {"text"})
    optimizer = torch.optim.SGD([w for w in ours.parameters() if w.requires_grad], lr=0.05)
    images, _, text = _inputs(ours)
    for _ in range(2):  # the first moves B of an adapter alone
        optimizer.zero_grad()
        image_rows, text_rows, *_ = ours(images, text)
        torch.nn.functional.cross_entropy(8 * image_rows @ text_rows.T, torch.arange(4)).backward()
        optimizer.step()
    ours.eval()
    after = _ours(ours)
    assert (after[1] - before[1]).abs().max() > 1e-6
    if isinstance(strategy, LockedImage):  # its projection is trained
        tower = load_base_model(base).tower("image").state_dict()
        assert all(
            torch.equal(value, tower[name]) for name, value in ours.tower("image").state_dict().items()
        )
    save_model(ours, tmp_path / "saved")
    again = load_base_model(tmp_path / "saved")
    save_model(again, tmp_path / "merged")
    merged = load_model(tmp_path / "merged")
    for mine, loaded, plain in zip(after, _ours(again), _ours(merged), strict=True):
        assert torch.allclose(mine, loaded, atol=1e-5)
        assert torch.allclose(mine, plain, atol=1e-5)
    if (tmp_path / "merged" / "open_clip_config.json").is_file():
        cfg = json.loads((tmp_path / "merged" / "open_clip_config.json").read_text())["model_cfg"]
        # Without its decoder a CoCa is another model of open_clip.
        twin = _model(cfg) if isinstance(model, open_clip.CoCa) else copy.deepcopy(model)
        assert cfg["embed_dim"] == merged.width
        from safetensors.torch import load_file

        open_clip.factory.load_checkpoint(
            twin, str(tmp_path / "merged" / "open_clip_model.safetensors"), strict=True
        )
        assert load_file(tmp_path / "merged" / "open_clip_model.safetensors").keys()
        twin.text_pool = _pool_of(twin)
        for theirs, mine in zip(_theirs(twin, merged), after, strict=True):
            assert torch.allclose(theirs, mine, atol=1e-5)
