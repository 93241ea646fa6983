"""The tables of weights of each kind of tower that open_clip has, and transformers too.

Names of text weights begin with `text.`, as in open_clip's models with an encoder of another library;
`normalized` gives those of its plain models the same form.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

from torch import Tensor

from domainclip.models.open_clip.key_map import Entry, both, one

_PLAIN_TEXT = (
    *("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection", "cls_emb"),
)


def normalized(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with all text weights under `text.`."""
    return {f"text.{name}" if name.startswith(_PLAIN_TEXT) else name: value for name, value in theirs.items()}


def is_plain(theirs: Iterable[str]) -> bool:
    """Whether these are the names of a plain model: one without `text.` before them."""
    return any(name.startswith(_PLAIN_TEXT) for name in theirs)


def plain(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `normalized`: open_clip loads a plain model by these names alone."""
    return {name.removeprefix("text."): value for name, value in theirs.items()}


def clip_image(layers: int, norm: str = "vision_model.post_layernorm") -> list[Entry]:
    """open_clip's ViT as a CLIPVisionModel with its projection; `norm` is that behind its pooling."""
    theirs, ours = "visual", "vision_model"
    return [
        one(f"{theirs}.class_embedding", f"{ours}.embeddings.class_embedding"),
        one(f"{theirs}.conv1.weight", f"{ours}.embeddings.patch_embedding.weight"),
        one(f"{theirs}.positional_embedding", f"{ours}.embeddings.position_embedding.weight"),
        *both(f"{theirs}.ln_pre", f"{ours}.pre_layrnorm"),
        *both(f"{theirs}.ln_post", norm),
        one(f"{theirs}.proj", "visual_projection.weight", transposed=True),
        *_blocks(theirs, ours, layers),
    ]


def clip_text(layers: int) -> list[Entry]:
    """open_clip's text transformer as a CLIPTextModel or SiglipTextModel, without its projection."""
    theirs, ours = "text", "text_model"
    return [
        one(f"{theirs}.token_embedding.weight", f"{ours}.embeddings.token_embedding.weight"),
        one(f"{theirs}.positional_embedding", f"{ours}.embeddings.position_embedding.weight"),
        *both(f"{theirs}.ln_final", f"{ours}.final_layer_norm"),
        *_blocks(theirs, ours, layers),
    ]


def attention_pool(theirs: str, names: Container[str]) -> list[Entry]:
    """A pooling by attention as an AttentionPool, without the norm behind it.

    `names` are those of all weights: torch stores query, key and value as one matrix where image tower and
    embeddings are equally wide.
    """
    ours = "vision_model.head"
    weights, biases = (tuple(f"{ours}.{part}_proj.{kind}" for part in "qkv") for kind in ("weight", "bias"))
    fused = f"{theirs}.attn.in_proj_weight"
    apart = [
        one(f"{theirs}.attn.{part}_proj_weight", name) for part, name in zip("qkv", weights, strict=True)
    ]
    return [
        one(f"{theirs}.query", f"{ours}.query"),
        *([Entry((fused,), weights)] if fused in names else apart),
        Entry((f"{theirs}.attn.in_proj_bias",), biases),
        *both(f"{theirs}.attn.out_proj", f"{ours}.out_proj"),
        *both(f"{theirs}.ln_q", f"{ours}.query_norm"),
        *both(f"{theirs}.ln_k", f"{ours}.key_norm"),
    ]


def text_projection(has_bias: bool, ours: str = "text_projection") -> list[Entry]:
    """The projection of open_clip's text transformer."""
    if has_bias:
        return both("text.text_projection", ours)
    return [one("text.text_projection", f"{ours}.weight", transposed=True)]


def timm_vit(layers: int) -> list[Entry]:
    """timm's ViT as a ViTModel."""
    theirs, ours = "visual.trunk", "vision_model"
    table = [
        one(f"{theirs}.cls_token", f"{ours}.embeddings.cls_token"),
        one(f"{theirs}.pos_embed", f"{ours}.embeddings.position_embeddings"),
        *both(f"{theirs}.patch_embed.proj", f"{ours}.embeddings.patch_embeddings.projection"),
        *both(f"{theirs}.norm", f"{ours}.layernorm"),
    ]
    names = ("layernorm_before", "layernorm_after", "attention", "o_proj")
    return [*table, *_timm_blocks(f"{ours}.layers", layers, names)]


def timm_clip(layers: int) -> list[Entry]:
    """timm's ViT with a norm before its layers as a CLIPVisionModel."""
    theirs, ours = "visual.trunk", "vision_model"
    return [
        one(f"{theirs}.cls_token", f"{ours}.embeddings.class_embedding", leading=2),
        one(f"{theirs}.pos_embed", f"{ours}.embeddings.position_embedding.weight", leading=1),
        one(f"{theirs}.patch_embed.proj.weight", f"{ours}.embeddings.patch_embedding.weight"),
        *both(f"{theirs}.norm_pre", f"{ours}.pre_layrnorm"),
        *both(f"{theirs}.norm", f"{ours}.post_layernorm"),
        *_timm_blocks(f"{ours}.encoder.layers", layers, _CLIP_NAMES),
    ]


def timm_siglip(layers: int) -> list[Entry]:
    """timm's ViT with a pooling head as a SiglipVisionModel."""
    theirs, ours = "visual.trunk", "vision_model"
    pool, head = f"{theirs}.attn_pool", f"{ours}.head"
    return [
        one(f"{theirs}.pos_embed", f"{ours}.embeddings.position_embedding.weight", leading=1),
        *both(f"{theirs}.patch_embed.proj", f"{ours}.embeddings.patch_embedding"),
        *both(f"{theirs}.norm", f"{ours}.post_layernorm"),
        *_timm_blocks(f"{ours}.encoder.layers", layers, _CLIP_NAMES),
        one(f"{pool}.latent", f"{head}.probe"),
        *(
            Entry(
                (f"{pool}.q.{kind}", f"{pool}.kv.{kind}"),
                (f"{head}.attention.in_proj_{kind}",),
                shares=(1, 2),
            )
            for kind in ("weight", "bias")
        ),
        *both(f"{pool}.proj", f"{head}.attention.out_proj"),
        *both(f"{pool}.norm", f"{head}.layernorm"),
        *both(f"{pool}.mlp.fc1", f"{head}.mlp.fc1"),
        *both(f"{pool}.mlp.fc2", f"{head}.mlp.fc2"),
    ]


def calibration(names: Iterable[str]) -> list[Entry]:
    """Scale and bias."""
    return [one(name, name) for name in ("logit_scale", "logit_bias") if name in names]


_CLIP_NAMES = ("layer_norm1", "layer_norm2", "self_attn", "out_proj")


def _blocks(theirs: str, ours: str, layers: int) -> list[Entry]:
    table = []
    for i in range(layers):
        block, layer = f"{theirs}.transformer.resblocks.{i}", f"{ours}.encoder.layers.{i}"
        for their_name, our_name in (
            *(("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"), ("attn.out_proj", "self_attn.out_proj")),
            *(("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")),
        ):
            table += both(f"{block}.{their_name}", f"{layer}.{our_name}")
        table += _attention(f"{block}.attn.in_proj_", f"{layer}.self_attn")
    return table


def _timm_blocks(ours: str, layers: int, names: tuple[str, str, str, str]) -> list[Entry]:
    table = []
    norm1, norm2, attention, out = names
    for i in range(layers):
        block, layer = f"visual.trunk.blocks.{i}", f"{ours}.{i}"
        for their_name, our_name in (
            *(("norm1", norm1), ("norm2", norm2), ("attn.proj", f"{attention}.{out}")),
            *(("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")),
        ):
            table += both(f"{block}.{their_name}", f"{layer}.{our_name}")
        table += _attention(f"{block}.attn.qkv.", f"{layer}.{attention}")
    return table


def _attention(theirs: str, ours: str) -> list[Entry]:
    return [
        Entry((f"{theirs}{kind}",), tuple(f"{ours}.{part}_proj.{kind}" for part in "qkv"))
        for kind in ("weight", "bias")
    ]
