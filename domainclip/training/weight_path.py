"""The path of a model's weights from the base (α = 0) to the adapted model (α = 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from domainclip.distributed.shared_tensors import SharedTensors
from domainclip.models.parameters import OBJECTIVE_WEIGHTS
from domainclip.models.trainable_layers import TrainableLayers

_LORA = ".lora_"


class Alphas(NamedTuple):
    """How far the image tower moves, and the text tower with scale and bias: 0, the base, to 1."""

    image: float
    text: float


@dataclass(frozen=True)
class WeightPath:
    """The weights that learned, as they were before training and after it, both in main memory.

    Of several processes each holds a share of both; all move the weights together.

    Uniform [arXiv:2109.01903]: every weight is (1 − α) θ₀ + α θ. By layer [arXiv:2410.17146]: layer l of L
    has the share α + (1 − α) l / (L − 1) in the place of α, counted from 0 in each tower, and a weight
    outside the layers (embeddings, projections, norms, scale) has α. First layers hold what is general, and
    change least; the last ones keep their whole update. The image tower may have an α of its own.
    """

    model: TrainableLayers
    weights: Mapping[str, nn.Parameter]
    start: Mapping[str, Tensor]
    end: Mapping[str, Tensor]
    depths: Mapping[str, float]  # in 0 to 1, by name, of the weights inside layers; empty: uniform

    @classmethod
    def between(
        cls, start: Mapping[str, Tensor], model: TrainableLayers, by_layer: bool = False
    ) -> WeightPath:
        """The path from `start` to the present weights of the model; those of objectives are left out."""
        weights = {
            name: weight
            for name, weight in model.weights().items()
            if name in start and not name.startswith(OBJECTIVE_WEIGHTS)
        }
        return cls(model, weights, start, SharedTensors(weights), model.relative_depths() if by_layer else {})

    def share(self, name: str, alphas: Alphas) -> float:
        """The share of a weight's update at α; 0 at α = 0 and 1 at α = 1 for all."""
        alpha = alphas.image if name.startswith("image/") else alphas.text
        return alpha + (1 - alpha) * self.depths.get(name, 0.0) if alpha else 0.0

    def set_alpha(self, alpha: float) -> None:
        """Move all weights to one α; see `set_alphas`."""
        self.set_alphas(Alphas(alpha, alpha))

    @torch.no_grad()
    def set_alphas(self, alphas: Alphas) -> None:
        """Move the model's weights to the α of their tower, in place.

        An adapter's update is the product B A with B = 0 at the start: scaling B alone scales the update.
        """
        rescaled = {name.split(_LORA)[0] for name in self.weights if f"{_LORA}magnitude_vector." in name}
        for name, weight in self.weights.items():
            share = self.share(name, alphas)
            if share == 0.0:
                weight.copy_(self.start[name])
            elif f"{_LORA}A." in name or share == 1.0 or name.split(_LORA)[0] in rescaled:
                weight.copy_(self.end[name])
            else:
                weight.copy_(torch.lerp(self.start[name], self.end[name], share))
        if rescaled:
            self._rescale(alphas)

    def _rescale(self, alphas: Alphas) -> None:
        """Move DoRA's layers from 1 to their share s: (1 − s) W + s m (W + U) / ‖W + U‖, with U = B A.

        Row by row: a row is a mixture of W and U again, so a factor on B's row and a new length express it
        exactly.
        """
        names = {id(weight): name for name, weight in self.weights.items()}
        layers: list[Any] = [
            layer for layer in self.model.modules() if hasattr(layer, "lora_magnitude_vector")
        ]
        for layer in layers:
            for adapter, dora in layer.lora_magnitude_vector.items():
                a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
                if (share := self.share(names[id(b)], alphas)) in (0.0, 1.0):
                    continue
                base, update = layer.base_layer.weight, layer.scaling[adapter] * (b @ a)
                of_update = share * dora.weight / (base + update).norm(dim=1)
                of_base = 1 - share + of_update
                factor = (of_update / of_base)[:, None]
                b.mul_(factor)
                dora.weight.copy_(of_base * (base + factor * update).norm(dim=1))
