"""What the training loop remembers between two steps: exactly this is saved in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from domainclip.training import fsdp
from domainclip.training import optimizer as training_optimizer
from domainclip.training.memory import Memory
from domainclip.training.weight_average import WeightAverage

AVERAGE = "average"  # the group of tensors in a checkpoint


@dataclass
class TrainingState:
    """The state of the loop after `step` steps; the order of items and all randomness follow from `step`."""

    step: int
    weights: Mapping[str, Tensor]  # every weight that learns in any stage, by name
    optimizer: torch.optim.Optimizer
    micro_batch_size: int | Literal["auto"] | None = None  # pairs held at once; "auto" until it is measured
    scaler: torch.amp.GradScaler | None = None  # the loss scale of fp16, which adapts from step to step
    memory: Memory | None = None  # of the objectives
    average: WeightAverage | None = None  # where the recipe asks for one

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """Return the tensors to save: weights, their average, and the optimizer's moments as `NAME:MOMENT`.

        All processes call it; of sharded weights, only the first process gets any.
        """
        moments = {}
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state.get(weight, {}).items():
                moments[f"{name}:{key}"] = torch.as_tensor(value)
        groups = {
            "weights": fsdp.full_tensors_on_rank0(self.weights),
            "optimizer": fsdp.full_tensors_on_rank0(moments),
            **({} if self.memory is None else self.memory.groups()),
        }
        return groups if self.average is None else groups | {AVERAGE: self.average.average}

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
        """Set the state to the tensors that `groups` returned after `step` steps."""
        self.step = step
        self._restore_weights(groups["weights"])
        self._restore_moments(groups.get("optimizer", {}))
        if self.memory is not None and "memory" in groups:
            self.memory.restore(groups["memory"])
        if self.average is not None and AVERAGE in groups:
            self.average.restore(groups[AVERAGE])

    def measured_weights(self) -> AbstractContextManager[None]:
        """A context in which the model has the weights that the run would end with now."""
        return nullcontext() if self.average is None else self.average.applied()

    def _restore_weights(self, tensors: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            with torch.no_grad():
                weight.copy_(fsdp.local_shard(tensors[name], weight))

    def _restore_moments(self, tensors: Mapping[str, Tensor]) -> None:
        learning = {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}
        for full_name, value in tensors.items():
            name, _, key = full_name.rpartition(":")
            weight = self.weights[name]
            if id(weight) not in learning:  # it learned in the previous stage only
                continue
            local = value if key == "step" else fsdp.local_shard(value, weight)
            self.optimizer.state[weight][key] = training_optimizer.moment(self.optimizer, key, local.clone())
