"""A checkpoint of open_clip as an equal model of transformers, or else as two joined towers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers.initialization import no_init_weights

from domainclip.errors import ModelError
from domainclip.models import folder_checks, layers
from domainclip.models.open_clip import coca, key_map, tables
from domainclip.models.open_clip.config import OpenClipConfig
from domainclip.models.open_clip.image_tower import ImagePart, image_part
from domainclip.models.open_clip.joined_model import JoinedConfig, JoinedModel
from domainclip.models.open_clip.key_map import Entry
from domainclip.models.open_clip.text_tower import TextPart, text_part

# Buffers that are computed, not trained.
_COMPUTED = re.compile(r".*(position_ids|attn_mask|num_batches_tracked|token_type_ids)")


def build(base: str, config: OpenClipConfig, file: Path, end_of_text: int | None) -> Any:
    """The model, with the weights of a file of safetensors, in fp32.

    Raises: ModelError when a weight is missing, has another shape, or belongs to no part of the model.
    """
    stored = load_file(file)
    weights = tables.normalized(stored)
    weights = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    try:
        weights = coca.contrastive_weights(base, config, weights)
        image = image_part(base, config, weights)
        text = text_part(base, config, weights, end_of_text)
    except KeyError as error:
        folder_checks.refuse(base, f'its file has no weight "{error.args[0]}": download it again')
    config = replace(config, has_bias="logit_bias" in weights)
    with no_init_weights():
        model, table = _model(base, config, image, text)
    if isinstance(model, JoinedModel):
        model.plain_names = tables.is_plain(stored) and text.kind != "class_token"
    table = [*table, *tables.calibration(weights)]
    _load(base, model, table, weights)
    return model


def _model(base: str, config: OpenClipConfig, image: ImagePart, text: TextPart) -> tuple[Any, list[Entry]]:
    towers = {"vision_config": image.config.to_dict(), "text_config": text.config.to_dict()}
    plain = (image.projection, text.projection) == ("linear", "linear") and not config.has_bias
    # transformers reads the id 2 of a CLIP as the highest id, which only argmax means.
    by_end = text.pool == "argmax" or text.config.eos_token_id != 2
    if plain and image.kind == "clip" and text.kind == "causal" and text.pool in ("argmax", "eos") and by_end:
        clip = transformers.CLIPConfig(**towers, projection_dim=config.width)
        return transformers.CLIPModel(clip), [*image.table, *text.table]
    if plain and image.kind == "clip" and text.kind == "causal" and text.pool == "eos":
        metaclip = transformers.MetaClip2Config(**towers, projection_dim=config.width)
        return transformers.MetaClip2Model(metaclip), [*image.table, *text.table]
    head = (text.kind, text.pool, text.projection)
    if image.kind == "siglip" and head == ("bidirectional", "last", "linear+bias") and config.has_bias:
        siglip = transformers.SiglipConfig(**towers)
        text_table = [*text.table[: -len(tables.text_projection(True))]]
        projection = tables.text_projection(True, "text_model.head")
        return transformers.SiglipModel(siglip), [*image.table, *text_table, *projection]
    return _joined(base, config, image, text)


def _joined(
    base: str, config: OpenClipConfig, image: ImagePart, text: TextPart
) -> tuple[JoinedModel, list[Entry]]:
    joined = JoinedConfig(
        vision_config=image.config,
        text_config=text.config,
        projection_dim=config.width,
        image_projection=image.projection,
        text_projection=text.projection,
        text_kind=text.kind,
        text_pool=text.pool,
        layout=config.layout,
        has_bias=config.has_bias,
    )
    try:
        model = JoinedModel(joined)
        layers.layer_stack(model.vision_model)
    except ModelError as error:
        folder_checks.refuse(base, str(error))
    model.table, model.source = [*image.table, *text.table], coca.saved_source(config.source, config.layout)
    names = ("logit_scale", "logit_bias")[: 1 + config.has_bias]
    model.table += tables.calibration(names)
    return model, [*image.table, *text.table]


@torch.no_grad()
def _load(base: str, model: Any, table: Iterable[Entry], weights: dict[str, Tensor]) -> None:
    table = list(table)
    used = {name for entry in table for name in entry.theirs}
    for name in sorted(used - set(weights)):
        folder_checks.refuse(base, f'its file has no weight "{name}": download it again')
    for name in sorted(set(weights) - used):
        if not _COMPUTED.fullmatch(name):
            folder_checks.refuse(base, f'its weight "{name}" belongs to no part that its config describes')
    ours = key_map.to_ours([entry for entry in table if not entry.ours[0].startswith("logit_")], weights)
    expected = model.state_dict()
    for entry in tables.calibration(weights):  # a scalar in some checkpoints, a vector in others
        ours[entry.ours[0]] = weights[entry.theirs[0]].reshape(expected[entry.ours[0]].shape)
    for name in sorted(set(expected) - set(ours)):
        if not _COMPUTED.fullmatch(name):
            folder_checks.refuse(
                base, f'its file has no weight for "{name}": its config describes another model'
            )
    for name, value in sorted(ours.items()):
        if name not in expected:
            folder_checks.refuse(base, f'its weight "{name}" belongs to no part that its config describes')
        if value.shape != expected[name].shape:
            shapes = (
                f"has the shape {list(value.shape)}, but its config requires {list(expected[name].shape)}"
            )
            folder_checks.refuse(base, f'its weight "{name}" {shapes}')
    model.load_state_dict(ours, strict=False)
