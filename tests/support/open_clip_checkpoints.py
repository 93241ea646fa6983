"""Checkpoints of open_clip, written by hand with random weights, and what plain torch makes of them.

Two layers a tower, width 32, embedding width 16, images of 32 pixels in patches of 8.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from domainclip.models.dual_encoder import DualEncoder
from tests.support import tiny_models
from tests.support.tiny_models import noise, stack

WIDTH, HEADS, LAYERS, EMBEDDING = 32, 4, 2, 16
CONTEXT = 24  # tokens of a text of a captioner, without its class token
TEXTS = ["a red circle!", "x", "a small round spot of galaxy " * 20, "no effusion"]
VISION = {"image_size": 32, "patch_size": 8, "layers": LAYERS, "width": WIDTH, "head_width": WIDTH // HEADS}
TEXT: dict[str, Any] = {"context_length": 77, "width": WIDTH, "heads": HEADS, "layers": LAYERS}


def draw(*shape: int) -> Tensor:
    return 0.2 * torch.randn(*shape)


def norm(weights: dict[str, Tensor], name: str, width: int = WIDTH) -> None:
    weights |= {f"{name}.weight": 1 + draw(width), f"{name}.bias": draw(width)}


def linears(weights: dict[str, Tensor], block: str, sizes: dict[str, tuple[int, int]]) -> None:
    for name, (out, wide) in sizes.items():
        weights |= {f"{block}.{name}weight": draw(out, wide), f"{block}.{name}bias": draw(out)}


def blocks(weights: dict[str, Tensor], prefix: str) -> None:
    for i in range(LAYERS):
        block = f"{prefix}transformer.resblocks.{i}"
        norm(weights, f"{block}.ln_1")
        norm(weights, f"{block}.ln_2")
        sizes = {"attn.in_proj_": (3 * WIDTH, WIDTH), "attn.out_proj.": (WIDTH, WIDTH)}
        sizes |= {"mlp.c_fc.": (4 * WIDTH, WIDTH), "mlp.c_proj.": (WIDTH, 4 * WIDTH)}
        linears(weights, block, sizes)


def image_weights() -> dict[str, Tensor]:
    weights = {
        "visual.class_embedding": draw(WIDTH),
        "visual.conv1.weight": draw(WIDTH, 3, 8, 8),
        "visual.positional_embedding": draw(17, WIDTH),
        "visual.proj": draw(WIDTH, EMBEDDING),
        "logit_scale": torch.tensor(3.0),
    }
    norm(weights, "visual.ln_pre")
    norm(weights, "visual.ln_post")
    blocks(weights, "visual.")
    return weights


def text_weights(words: int, prefix: str = "", positions: int = 77) -> dict[str, Tensor]:
    weights = {
        f"{prefix}token_embedding.weight": draw(words, WIDTH),
        f"{prefix}positional_embedding": draw(positions, WIDTH),
        f"{prefix}text_projection": draw(WIDTH, EMBEDDING),
    }
    norm(weights, f"{prefix}ln_final")
    blocks(weights, prefix)
    return weights


def write(
    folder: Path, model: dict[str, Any], weights: dict[str, Tensor], tokenizer: Any, **more: Any
) -> Path:
    tokenizer.save_pretrained(folder)
    save_file(
        {name: value.contiguous() for name, value in weights.items()}, folder / "open_clip_model.safetensors"
    )
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, **more}))
    return folder


def clip(folder: Path, *, causal: bool = True, quick_gelu: bool = False, prefix: str = "") -> Path:
    """open_clip's ViT and text transformer."""
    torch.manual_seed(0)
    tokenizer = tiny_models._clip_tokenizer(77)
    weights = image_weights() | text_weights(len(tokenizer), prefix)
    text = {**TEXT, "vocab_size": len(tokenizer), "no_causal_mask": not causal}
    model = {"embed_dim": EMBEDDING, "vision_cfg": VISION, "text_cfg": text, "quick_gelu": quick_gelu}
    return write(folder, model, weights, tokenizer)


def biomedical(folder: Path, *, pool: str = "cls_last_hidden_state_pooler", projection: str = "mlp") -> Path:
    """timm's ViT and a BERT of transformers, as BiomedCLIP has them."""
    torch.manual_seed(0)
    tokenizer = tiny_models._bert_tokenizer(64)
    config = transformers.BertConfig(**tiny_models._text(tokenizer, max_position_embeddings=64))
    encoder = transformers.BertModel(config, add_pooling_layer=False)
    config.save_pretrained(folder / "bert")
    trunk = {"cls_token": draw(1, 1, 192), "pos_embed": draw(1, 17, 192)}
    trunk |= {"patch_embed.proj.weight": draw(192, 3, 8, 8), "patch_embed.proj.bias": draw(192)}
    for name, out, wide in (
        ("attn.qkv", 576, 192),
        ("attn.proj", 192, 192),
        ("mlp.fc1", 48, 192),
        ("mlp.fc2", 192, 48),
    ):
        trunk |= {f"blocks.0.{name}.weight": draw(out, wide), f"blocks.0.{name}.bias": draw(out)}
    for name in ("blocks.0.norm1", "blocks.0.norm2", "norm"):
        trunk |= {f"{name}.weight": 1 + draw(192), f"{name}.bias": draw(192)}
    weights = {f"visual.trunk.{name}": value for name, value in trunk.items()}
    weights |= {"visual.head.proj.weight": draw(EMBEDDING, 192), "logit_scale": torch.tensor([3.0])}
    weights |= {f"text.transformer.{name}": value for name, value in encoder.state_dict().items()}
    weights["text.transformer.embeddings.position_ids"] = torch.arange(64)[None]  # of older versions
    middle = (WIDTH + EMBEDDING) // 2
    if projection == "mlp":
        weights |= {
            "text.proj.0.weight": draw(middle, WIDTH),
            "text.proj.2.weight": draw(EMBEDDING, middle),
        }
    else:
        weights["text.proj.weight"] = draw(EMBEDDING, WIDTH)
    vision = {
        "timm_model_name": "vit_tiny_patch8_32",
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 32,
    }
    bert = str(folder / "bert")
    text = {
        "hf_model_name": bert,
        "hf_tokenizer_name": bert,
        "hf_proj_type": projection,
        "hf_pooler_type": pool,
    }
    model = {"embed_dim": EMBEDDING, "vision_cfg": vision, "text_cfg": {**text, "context_length": 48}}
    preprocess = {"size": 32, "resize_mode": "squash", "mean": [0.5] * 3, "std": [0.25] * 3}
    return write(folder, model, weights, tokenizer, preprocess_cfg=preprocess)


def captioner(folder: Path, *, width: int = EMBEDDING) -> Path:
    """A CoCa of open_clip: pooling by attention, a class token behind the text, and a caption decoder.

    Image tower and embedding are equally wide with a `width` of 32: torch then fuses the projections.
    """
    torch.manual_seed(0)
    tokenizer = tiny_models._clip_tokenizer(CONTEXT)
    weights = image_weights() | text_weights(len(tokenizer), "text.", CONTEXT + 1)
    attention_pool(weights, "visual.attn_pool", width, queries=5)
    norm(weights, "visual.ln_post", width)
    weights |= {"visual.proj": draw(width, width), "text.text_projection": draw(WIDTH, width)}
    weights |= {"text.cls_emb": draw(WIDTH), "text_decoder.text_projection": draw(WIDTH, len(tokenizer))}
    blocks(weights, "text_decoder.")
    vision = {**VISION, "attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 4}
    text = {**TEXT, "context_length": CONTEXT, "vocab_size": len(tokenizer), "embed_cls": True}
    decoder = {"context_length": CONTEXT, "layers": LAYERS, "width": WIDTH, "heads": HEADS}
    tokens = {"output_tokens": True}
    model = {"embed_dim": width, "vision_cfg": vision | tokens, "text_cfg": text | tokens}
    return write(folder, model | {"multimodal_cfg": decoder, "custom_text": True}, weights, tokenizer)


def conch(folder: Path) -> Path:
    """A CONCH as it is published: the names of its own package, and weights without the decoder."""
    torch.manual_seed(0)
    tokenizer = byte_pairs()
    trunk = {"cls_token": draw(1, 1, WIDTH), "pos_embed": draw(1, 17, WIDTH)}
    trunk |= {"patch_embed.proj.weight": draw(WIDTH, 3, 8, 8), "patch_embed.proj.bias": draw(WIDTH)}
    norm(trunk, "norm")
    for i in range(LAYERS):
        norm(trunk, f"blocks.{i}.norm1")
        norm(trunk, f"blocks.{i}.norm2")
        sizes = {"attn.qkv.": (3 * WIDTH, WIDTH), "attn.proj.": (WIDTH, WIDTH)}
        sizes |= {"mlp.fc1.": (4 * WIDTH, WIDTH), "mlp.fc2.": (WIDTH, 4 * WIDTH)}
        linears(trunk, f"blocks.{i}", sizes)
    weights = {f"visual.trunk.{name}": value for name, value in trunk.items()}
    weights |= text_weights(tokenizer.get_vocab_size(), "text.", CONTEXT + 1)
    attention_pool(weights, "visual.attn_pool_contrast", EMBEDDING, queries=1)
    attention_pool(weights, "visual.attn_pool_caption", 24, queries=5)
    norm(weights, "visual.ln_contrast", EMBEDDING)
    norm(weights, "visual.ln_caption", 24)
    weights |= {"visual.proj_contrast": draw(EMBEDDING, EMBEDDING), "text.cls_emb": draw(WIDTH)}
    weights["logit_scale"] = torch.tensor(3.0)
    vision = {"image_size": 32, "patch_size": 8, "layers": LAYERS, "width": WIDTH, "num_heads": HEADS}
    vision |= {"attentional_pool_caption": True, "attentional_pool_contrast": True, "attn_pooler_heads": 4}
    vision |= {"n_queries_contrast": 1, "n_queries_caption": 5, "output_tokens": True}
    text = {**TEXT, "context_length": CONTEXT + 1, "vocab_size": tokenizer.get_vocab_size()}
    decoder = dict(text)
    text |= {"embed_cls": True, "output_tokens": True}
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.save(weights, folder / "pytorch_model.bin")
    config = {"embed_dim": EMBEDDING, "embed_dim_caption": 24, "vision_cfg": vision, "text_cfg": text}
    config |= {"multimodal_cfg": decoder, "custom_text": True}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def byte_pairs() -> Tokenizer:
    """Byte pairs as CONCH's package has them: lower case, 0 pads, 1 begins and 2 ends a text."""
    marks = ["<pad>", "<start_of_text>", "<end_of_text>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(marks + letters)}, merges=[]))
    backend.add_special_tokens(marks)
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{marks[1]} $A {marks[2]}", special_tokens=[(marks[1], 1), (marks[2], 2)]
    )
    return backend


def attention_pool(weights: dict[str, Tensor], name: str, out: int, queries: int) -> None:
    """torch's MultiheadAttention of learned queries, whose keys are `WIDTH` wide."""
    norm(weights, f"{name}.ln_q", out)
    norm(weights, f"{name}.ln_k")
    weights |= {f"{name}.query": draw(queries, out), f"{name}.attn.in_proj_bias": draw(3 * out)}
    weights |= {f"{name}.attn.out_proj.weight": draw(out, out), f"{name}.attn.out_proj.bias": draw(out)}
    if out == WIDTH:
        weights[f"{name}.attn.in_proj_weight"] = draw(3 * out, out)
    else:
        shapes = {"q": (out, out), "k": (out, WIDTH), "v": (out, WIDTH)}
        weights |= {f"{name}.attn.{part}_proj_weight": draw(*shape) for part, shape in shapes.items()}


def attend(
    rows: Tensor, weights: dict[str, Tensor], names: tuple[str, str], heads: int, mask: Tensor | None
) -> Tensor:
    """Multi-head attention, each score by hand."""
    joined, out = names
    query, key, value = F.linear(rows, weights[f"{joined}weight"], weights[f"{joined}bias"]).chunk(3, dim=-1)
    parts = []
    for one in range(heads):
        part = slice(one * rows.shape[-1] // heads, (one + 1) * rows.shape[-1] // heads)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / (rows.shape[-1] // heads) ** 0.5
        parts.append((scores if mask is None else scores + mask).softmax(-1) @ value[..., part])
    return F.linear(torch.cat(parts, -1), weights[f"{out}.weight"], weights[f"{out}.bias"])


def layer_norm(rows: Tensor, weights: dict[str, Tensor], name: str, eps: float = 1e-5) -> Tensor:
    return F.layer_norm(rows, rows.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def forward_blocks(
    rows: Tensor, weights: dict[str, Tensor], prefix: str, mask: Tensor | None, act: Any
) -> Tensor:
    for i in range(LAYERS):
        block = f"{prefix}transformer.resblocks.{i}"
        normed = layer_norm(rows, weights, f"{block}.ln_1")
        rows = rows + attend(
            normed, weights, (f"{block}.attn.in_proj_", f"{block}.attn.out_proj"), HEADS, mask
        )
        hidden = layer_norm(rows, weights, f"{block}.ln_2")
        for name in ("c_fc", "c_proj"):
            hidden = F.linear(
                hidden, weights[f"{block}.mlp.{name}.weight"], weights[f"{block}.mlp.{name}.bias"]
            )
            hidden = act(hidden) if name == "c_fc" else hidden
        rows = rows + hidden
    return rows


@torch.no_grad()
def outputs(model: DualEncoder) -> tuple[Tensor, Tensor]:
    """Embeddings of four images of noise and of TEXTS."""
    images = stack(model.image_preprocessor(noise(40 + i, 50, i)) for i in range(4))
    return model.encode_image(images), model.encode_text(model.text_tokenizer(TEXTS))
