"""The training steps of other projects, on the same weights: each as its own code does it.

They are given tensors that lie ready in memory, so none of them pays for input. What they do with the length
of texts by themselves, as their sources say:

- transformers' example pads every caption to `max_seq_length`, 77 for a CLIP (padding="max_length" in its
  tokenize_captions).
- open_clip's tokenizer fills every text up to its context length with zeros, and its encode_text adds the
  whole table of positions, so that shorter texts are not even taken.
- sentence-transformers pads to the longest text of the batch ("padding": True in Transformer.preprocess), so
  it trims by itself.
"""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RATE = 1e-5
OPTIONS = {"lr": RATE, "betas": (0.9, 0.98), "weight_decay": 0.0, "fused": True}
Step = Callable[[Any], float]  # a prepared batch in, its loss out


def optimizer_of(model: nn.Module) -> torch.optim.AdamW:
    """The same optimizer for all."""
    return torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], **OPTIONS)


def finish(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """What every one of them does after its backward pass."""
    nn.utils.clip_grad_norm_([w for w in model.parameters() if w.grad is not None], 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def transformers_step(model: Any, autocast: Any) -> Step:
    """The example contrastive-image-text: `CLIPModel` with `return_loss`, by transformers' Trainer.

    Its step without the Trainer's book-keeping, which favours it. [transformers
    examples/pytorch/contrastive-image-text/run_clip.py]
    """
    optimizer = optimizer_of(model)

    def step(batch: dict[str, Tensor]) -> float:
        with autocast():
            loss = model(**batch, return_loss=True).loss
        loss.backward()
        finish(model, optimizer)
        return loss.item()

    return step


def open_clip_step(reference: Any, locked: bool, trims: bool, autocast: Any, device: Any) -> Step:
    """open_clip's own towers and loss with `reference`'s weights, as in its train_one_epoch.

    `trims` lets it take texts cut to the longest of the batch, which by itself it cannot.
    """
    model, loss_of = _open_clip(reference)
    model.to(device)
    if locked:
        model.lock_image_tower()
    if trims:
        model.encode_text = types.MethodType(_trimmed, model)
    optimizer = optimizer_of(model)

    def step(batch: dict[str, Tensor]) -> float:
        with autocast():
            image, text, scale = model(batch["pixel_values"], batch["input_ids"])
        loss = loss_of(image, text, scale)
        loss.backward()
        finish(model, optimizer)
        return loss.item()

    return step


def sentence_transformers_step(model: Any, micro: int, autocast: Any) -> Step:
    """CachedMultipleNegativesRankingLoss of sentence-transformers, in both directions, scale fixed."""
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    embedding = _Embedding(model, autocast)
    loss_of = CachedMultipleNegativesRankingLoss(
        embedding,  # type: ignore[arg-type]
        scale=model.logit_scale.detach().exp().item(),
        mini_batch_size=micro,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    optimizer = optimizer_of(model)

    def step(batch: dict[str, Tensor]) -> float:
        image = {"pixel_values": batch["pixel_values"]}
        text = {"input_ids": batch["input_ids"]}
        loss = loss_of([image, text], torch.empty(0))
        loss.backward()
        finish(model, optimizer)
        return loss.item()

    return step


class _Embedding(nn.Module):
    """The towers as a SentenceTransformer: features in, features with their embedding out."""

    def __init__(self, model: Any, autocast: Any) -> None:
        super().__init__()
        self.model, self.autocast = model, autocast

    def __getitem__(self, index: int) -> nn.Module:
        return self

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        with self.autocast():
            if "pixel_values" in features:
                rows = self.model.get_image_features(pixel_values=features["pixel_values"]).pooler_output
            else:
                rows = self.model.get_text_features(input_ids=features["input_ids"]).pooler_output
        return {"sentence_embedding": F.normalize(rows.float(), dim=-1)}


def _trimmed(self: Any, text: Tensor, normalize: bool = False) -> Tensor:
    """open_clip's encode_text with its position table and mask cut to the length of the batch."""
    length = text.shape[1]
    rows = self.token_embedding(text) + self.positional_embedding[:length]
    rows = self.ln_final(self.transformer(rows, attn_mask=self.attn_mask[:length, :length]))
    rows = rows[torch.arange(len(rows)), text.argmax(dim=-1)] @ self.text_projection
    return F.normalize(rows, dim=-1) if normalize else rows


def _open_clip(reference: Any) -> tuple[Any, Any]:
    with _torchvision_by_name():
        import open_clip
    config = reference.config
    vision, text = config.vision_config, config.text_config
    model = open_clip.CLIP(
        config.projection_dim,
        open_clip.CLIPVisionCfg(
            layers=vision.num_hidden_layers,
            width=vision.hidden_size,
            head_width=vision.hidden_size // vision.num_attention_heads,
            patch_size=vision.patch_size,
            image_size=vision.image_size,
        ),
        open_clip.CLIPTextCfg(
            context_length=text.max_position_embeddings,
            vocab_size=text.vocab_size,
            width=text.hidden_size,
            heads=text.num_attention_heads,
            layers=text.num_hidden_layers,
        ),
        quick_gelu=text.hidden_act == "quick_gelu",
    )
    weights = _renamed(reference.state_dict(), vision.num_hidden_layers, text.num_hidden_layers)
    missing, unknown = model.load_state_dict(weights, strict=False)
    assert not unknown
    assert set(missing) <= {"attn_mask"}
    return model, open_clip.ClipLoss()


def _renamed(ours: dict[str, Tensor], image_layers: int, text_layers: int) -> dict[str, Tensor]:
    """transformers' names of a CLIP's weights as open_clip's."""
    theirs = {
        "logit_scale": ours["logit_scale"],
        "visual.class_embedding": ours["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": ours["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": ours["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": ours["visual_projection.weight"].T,
        "token_embedding.weight": ours["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": ours["text_model.embeddings.position_embedding.weight"],
        "text_projection": ours["text_projection.weight"].T,
    }
    norms = {"visual.ln_pre": "vision_model.pre_layrnorm", "visual.ln_post": "vision_model.post_layernorm"}
    norms["ln_final"] = "text_model.final_layer_norm"
    for side, layers in (("vision", image_layers), ("text", text_layers)):
        for i in range(layers):
            new = f"{'visual.' if side == 'vision' else ''}transformer.resblocks.{i}"
            old = f"{side}_model.encoder.layers.{i}"
            norms |= {f"{new}.ln_1": f"{old}.layer_norm1", f"{new}.ln_2": f"{old}.layer_norm2"}
            norms |= {f"{new}.mlp.c_fc": f"{old}.mlp.fc1", f"{new}.mlp.c_proj": f"{old}.mlp.fc2"}
            norms[f"{new}.attn.out_proj"] = f"{old}.self_attn.out_proj"
            for kind in ("weight", "bias"):
                parts = [ours[f"{old}.self_attn.{name}_proj.{kind}"] for name in ("q", "k", "v")]
                theirs[f"{new}.attn.in_proj_{kind}"] = torch.cat(parts)
    for new, old in norms.items():
        theirs |= {f"{new}.{kind}": ours[f"{old}.{kind}"] for kind in ("weight", "bias")}
    return {name: value.detach().clone().contiguous() for name, value in theirs.items()}


class _torchvision_by_name:
    """open_clip imports torchvision for its image transforms, which a training step never calls."""

    NAMES = ("", ".transforms", ".transforms.functional", ".ops", ".ops.misc")

    def __enter__(self) -> None:
        # Whatever asks whether torchvision is there must have asked already.
        import transformers  # noqa: F401

        self.added = [f"torchvision{name}" for name in self.NAMES if f"torchvision{name}" not in sys.modules]
        for name in self.added:
            module: Any = types.ModuleType(name)
            module.__spec__, module.__path__ = ModuleSpec(name, None), []
            module.__getattr__ = _placeholder
            sys.modules[name] = module

    def __exit__(self, *_: object) -> None:
        for name in self.added:
            del sys.modules[name]


class _Anything(type):
    def __getattr__(cls, name: str) -> Any:
        return _placeholder(name)


def _placeholder(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything(name, (), {})


def copied(model: Any) -> Any:
    """The same weights for another contender."""
    return copy.deepcopy(model)
