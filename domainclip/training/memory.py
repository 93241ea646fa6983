"""What objectives remember between steps: a moving average of the weights, and tensors of their own.

The moving average encodes the batch as a second model, which changes slowly [arXiv:1911.05722]. Only weights
that learn are averaged: all others are the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from domainclip.components import WeightedObjectives
from domainclip.models.dual_encoder import DualEncoder
from domainclip.objectives.base import Sizes

_AVERAGES = "averages"  # part of the names in a checkpoint, in front of the weight's name
ByObjective = Mapping[str, Mapping[str, Tensor]]


@dataclass
class Memory:
    """The state of the objectives after a step."""

    averages: dict[str, Tensor]  # of each weight that learns in any stage; empty: no objective reads them
    momentum: float  # the share of an average that a step leaves unchanged
    objectives: ByObjective  # tensors of each objective, by its name
    device: torch.device

    @classmethod
    def initial(
        cls,
        terms: WeightedObjectives,
        sizes: Sizes,
        seed: int,
        weights: Mapping[str, Tensor],
        device: torch.device,
    ) -> Memory:
        """The memory before the first step, where the averages are the `weights` that learn."""
        momentum = terms.momentum
        averages = {} if momentum is None else {n: w.detach().clone() for n, w in weights.items()}
        objectives = {
            name: {key: tensor.to(device) for key, tensor in objective.initial_memory(sizes, seed).items()}
            for name, objective in terms.by_name.items()
        }
        return cls(averages, 0.0 if momentum is None else momentum, objectives, device)

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], objectives: ByObjective) -> None:
        """Take over the weights and the tensors of a step."""
        for name, average in self.averages.items():
            average.lerp_(weights[name], 1 - self.momentum)
        self.objectives = {**self.objectives, **objectives}

    @contextmanager
    def averaged(self, model: DualEncoder) -> Iterator[None]:
        """Inside, the model has the moving averages as its weights, and no dropout."""
        training = [module for module in model.modules() if module.training]
        for module in training:
            module.training = False
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)
            for module in training:
                module.training = True

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """The tensors to save as a group of the checkpoint; no group where there are none."""
        tensors = {f"{_AVERAGES}/{name}": average for name, average in self.averages.items()}
        for name, own in self.objectives.items():
            tensors |= {f"{name}/{key}": tensor for key, tensor in own.items()}
        return {"memory": tensors} if tensors else {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the memory to the tensors that `groups` returned."""
        for name, average in self.averages.items():
            average.copy_(tensors[f"{_AVERAGES}/{name}"])
        self.objectives = {
            name: {key: tensors[f"{name}/{key}"].to(self.device) for key in own}
            for name, own in self.objectives.items()
        }

    def _exchange(self, model: DualEncoder) -> None:
        weights = model.weights()
        for name, average in self.averages.items():
            weights[name].data, average.data = average.data, weights[name].data
