"""Several dual encoders as one: their embeddings side by side, each by the square root of its weight.

Shapes: b items, K members, d_k the width of member k, d their sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.layers import embedding_width

MODEL_TYPE = "clip_ensemble"


class EnsembleConfig(PreTrainedConfig):
    """The configs of the members; what is asked of one tower is that of the first."""

    model_type = MODEL_TYPE
    members: Any = None  # of each its config, as a mapping
    member_family: str = "clip"  # model type of all of them
    has_bias: bool = False  # of families trained with the sigmoid objective

    @property
    def vision_config(self) -> PreTrainedConfig:
        """Of the first member, with those of all: an embedding depends on them."""
        return self._tower("vision_config")

    @property
    def text_config(self) -> PreTrainedConfig:
        """As `vision_config`."""
        return self._tower("text_config")

    @property
    def widths(self) -> list[int]:
        """(K,) the widths of the embeddings."""
        return [embedding_width(config) for config in self.member_configs()]

    @property
    def projection_dim(self) -> int:
        """d."""
        return sum(self.widths)

    def member_configs(self) -> list[PreTrainedConfig]:
        """The configs as transformers builds the members from them."""
        configs: list[PreTrainedConfig] = [
            transformers.AutoConfig.for_model(**member) for member in self.members or ()
        ]
        return configs

    def _tower(self, name: str) -> PreTrainedConfig:
        towers: list[PreTrainedConfig] = [getattr(config, name) for config in self.member_configs()]
        towers[0].ensemble = [tower.to_dict() for tower in towers[1:]]
        return towers[0]


class EnsembleModel(PreTrainedModel):
    """Cosine of two rows: Σ_k w_k cos_k, with the weights w of the members, whose sum is 1."""

    config_class = EnsembleConfig
    base_model_prefix = "ensemble"

    def __init__(self, config: EnsembleConfig) -> None:
        super().__init__(config)
        built = [transformers.AutoModel.from_config(member) for member in config.member_configs()]
        self.members = nn.ModuleList(built)
        # Named as the projections of other models, so that each belongs to its side: the square roots of w.
        start = torch.full((len(built),), len(built) ** -0.5)
        self.visual_projection = nn.Parameter(start.clone())
        self.text_projection = nn.Parameter(start.clone())
        self.logit_scale = nn.Parameter(torch.zeros(()))
        if config.has_bias:
            self.logit_bias = nn.Parameter(torch.zeros(()))
        self.post_init()

    @property
    def models(self) -> list[Any]:
        """(K,) the members, the base first."""
        return list(self.members)

    @property
    def vision_model(self) -> nn.Module:
        """The image tower of the first member."""
        tower: nn.Module = self.models[0].vision_model
        return tower

    @property
    def text_model(self) -> nn.Module:
        """The text tower of the first member."""
        tower: nn.Module = self.models[0].text_model
        return tower

    def get_image_features(self, **inputs: Tensor) -> BaseModelOutputWithPooling:
        """(b, d) rows of unit length as the pooled output."""
        rows = [member.get_image_features(**inputs).pooler_output for member in self.models]
        return BaseModelOutputWithPooling(pooler_output=_joined(rows, self.visual_projection))

    def get_text_features(self, **inputs: Tensor) -> BaseModelOutputWithPooling:
        """(b, d) rows of unit length as the pooled output."""
        rows = [member.get_text_features(**inputs).pooler_output for member in self.models]
        return BaseModelOutputWithPooling(pooler_output=_joined(rows, self.text_projection))

    @torch.no_grad()
    def set_shares(self, shares: Sequence[float]) -> None:
        """Logits become Σ_k u_k (s_k cos_k + b_k): shares u (K,), scales s and biases b of the members."""
        roots = torch.from_numpy(self.roots_of(shares))
        for weight in (self.visual_projection, self.text_projection):
            weight.copy_(roots)
        self.logit_scale.fill_(math.log(sum(self._scaled(shares))))
        if self.config.has_bias:
            biases = [member.logit_bias.item() for member in self.models]
            self.logit_bias.fill_(sum(share * bias for share, bias in zip(shares, biases, strict=True)))

    def roots_of(self, shares: Sequence[float]) -> np.ndarray:
        """(K,) float64 √w, with w_k = u_k s_k / Σ_j u_j s_j of shares u and the members' scales s."""
        scaled = self._scaled(shares)
        return np.sqrt(np.array(scaled) / sum(scaled))

    def _scaled(self, shares: Sequence[float]) -> list[float]:
        scales = [member.logit_scale.detach().exp().item() for member in self.models]
        return [share * scale for share, scale in zip(shares, scales, strict=True)]


def join_members(members: Sequence[DualEncoder]) -> EnsembleModel:
    """An ensemble with equal shares, which holds the transformers models of the members themselves."""
    hf_models = [member.hf_base for member in members]
    config = EnsembleConfig(
        members=[_public(model.config.to_dict()) for model in hf_models],
        member_family=members[0].family,
        has_bias=members[0].bias is not None,
    )
    with torch.random.fork_rng(devices=[]):  # the drawn weights are replaced
        joined = EnsembleModel(config)
    for number, model in enumerate(hf_models):
        joined.members[number] = model
    joined.set_shares([1 / len(hf_models)] * len(hf_models))
    return joined


def _public(config: dict[str, Any]) -> dict[str, Any]:
    """Without the folder that a model was read from, which may name a person or a project."""
    return {key: value for key, value in config.items() if key not in ("_name_or_path", "name_or_path")}


def _joined(rows: Sequence[Tensor], roots: Tensor) -> Tensor:
    units = [F.normalize(row.float(), dim=-1) * root for row, root in zip(rows, roots, strict=True)]
    return torch.cat(units, dim=-1)


transformers.AutoConfig.register(MODEL_TYPE, EnsembleConfig, exist_ok=True)
transformers.AutoModel.register(EnsembleConfig, EnsembleModel, exist_ok=True)
