"""What the training loop remembers between two steps: exactly this is saved in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from domainclip.training import fsdp
from domainclip.training import optimizer as training_optimizer
from domainclip.training.checkpointing import sharded_files
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
    selected: Tensor | None = None  # (k,) int64, the rows that batches are drawn from; None: all

    def groups(self, *, whole: bool = True) -> dict[str, dict[str, Tensor]]:
        """Return the tensors to save: weights, their average, and the optimizer's moments as `NAME:MOMENT`.

        All processes call it. If `whole`, sharded weights are gathered, and only the first process gets any.
        """
        moments = {}
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state.get(weight, {}).items():
                moments[f"{name}:{key}"] = torch.as_tensor(value)
        gathered = fsdp.full_tensors_on_rank0 if whole else dict
        groups = {
            "weights": gathered(self.weights),
            "optimizer": gathered(moments),
            **({} if self.memory is None else self.memory.groups()),
        }
        if self.selected is not None:
            groups["selection"] = {"rows": self.selected}
        return groups if self.average is None else groups | {AVERAGE: self.average.average}

    def restore(self, groups: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
        """Set the state to the tensors that `groups` returned after `step` steps."""
        self.step = step
        self._restore_weights(groups["weights"])
        self._restore_moments(groups.get("optimizer", {}))
        if self.memory is not None and "memory" in groups:
            self.memory.restore(groups["memory"])
        if "selection" in groups:
            self.selected = groups["selection"]["rows"]
        if self.average is not None and AVERAGE in groups:
            self.average.restore(groups[AVERAGE])

    def restore_shards(self, path: Path, step: int) -> None:
        """Set the state to a checkpoint of sharded files; each process reads the shards that it holds."""
        self.step = step
        moments: dict[str, Tensor] = {}
        for name in sharded_files.names(path, "optimizer"):
            weight, key = self.weights[name.rpartition(":")[0]], name.rpartition(":")[2]
            if id(weight) in self._learning():
                moments[name] = torch.zeros(()) if key == "step" else torch.zeros_like(weight.detach())
        sharded_files.read_into(path, {"weights": self.weights, "optimizer": moments})
        for name, value in moments.items():
            self._set_moment(name, value)
        if self.memory is not None and sharded_files.names(path, "memory"):
            self.memory.restore(sharded_files.read(path, "memory")["memory"])

    def measured_weights(self) -> AbstractContextManager[None]:
        """A context in which the model has the weights that the run would end with now."""
        return nullcontext() if self.average is None else self.average.applied()

    def _restore_weights(self, tensors: Mapping[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            with torch.no_grad():
                weight.copy_(fsdp.local_shard(tensors[name], weight))

    def _restore_moments(self, tensors: Mapping[str, Tensor]) -> None:
        learning = self._learning()
        for full_name, value in tensors.items():
            name, _, key = full_name.rpartition(":")
            weight = self.weights[name]
            if id(weight) not in learning:  # it learned in the previous stage only
                continue
            self._set_moment(full_name, value if key == "step" else fsdp.local_shard(value, weight).clone())

    def _learning(self) -> set[int]:
        """Return the identities of the weights that learn in this stage."""
        return {id(weight) for group in self.optimizer.param_groups for weight in group["params"]}

    def _set_moment(self, full_name: str, value: Tensor) -> None:
        name, _, key = full_name.rpartition(":")
        self.optimizer.state[self.weights[name]][key] = training_optimizer.moment(self.optimizer, key, value)
