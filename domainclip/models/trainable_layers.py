"""The weights of a dual encoder: their names, which of them are trained, and the layers below those."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from domainclip.models import frozen_prefix, layers, onednn, parameters
from domainclip.models.captioner import Captioner
from domainclip.models.evidence_scorer import EvidenceScorer
from domainclip.models.frame_pooling import FramePooling
from domainclip.models.hyperbolic_space import HyperbolicSpace
from domainclip.models.layers import MODALITIES, TOWER_MODULES, Modality
from domainclip.models.patch_dropout import PatchDropout


class TrainableLayers(nn.Module):
    """An image tower and a text tower, of which any set of weights can be trained."""

    hf_model: Any  # a PreTrainedModel, or a PeftModel around one; a strategy may replace it
    added_modules: nn.ModuleDict  # what a strategy or an objective adds to the model; empty for most
    frames: int = 1  # images of an item that are encoded as one
    frame_pooling: FramePooling | None = None  # how they are pooled, where the model defines it
    patch_dropout: PatchDropout | None = None  # where training leaves out a share of the patches of an image
    scorer: EvidenceScorer | None = None  # class scores beside the prompts, where the model has them
    captioner: Captioner | None = None  # that the objective `captioning` has trained
    space: HyperbolicSpace | None = None  # around the embeddings, that the objective `hyperbolic` has trained

    def with_frames(self, frames: int) -> Self:
        """A view of the same weights that encodes this many images of an item as one."""
        if frames == self.frames:
            return self
        view = copy.copy(self)
        view.frames = frames
        return view

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As in torch; a CPU with a number is the CPU.

        Accelerate numbers it by the process, and torch would copy the weights from one number to another,
        where they are mapped from the file of the base.
        """
        return super().to(*map(_without_number, args), **{k: _without_number(v) for k, v in kwargs.items()})

    @property
    def hf_base(self) -> Any:
        """The transformers model, with or without adapter layers inside."""
        return self.hf_model if isinstance(self.hf_model, PreTrainedModel) else self.hf_model.get_base_model()

    def tower(self, modality: Modality) -> nn.Module:
        """The image tower or the text tower, without its projection."""
        tower: nn.Module = getattr(self.hf_base, TOWER_MODULES[modality])
        return tower

    def weights(self) -> dict[str, nn.Parameter]:
        """All weights as modality/name, the same with and without an adapter; those of added modules last."""
        weights = {parameters.parameter_name(name): w for name, w in self.hf_model.named_parameters()}
        added = self.added_modules.named_parameters()
        return weights | {parameters.added_parameter_name(name): w for name, w in added}

    def set_trainable(self, patterns: list[tuple[str, float]]) -> dict[str, float]:
        """Train the weights whose first matching pattern has a factor above 0, and freeze the others.

        Returns the factor on the learning rate by weight name. A pattern matches whole names.

        Raises: RecipeError for a weight that no pattern covers, and for a pattern without effect.
        """
        # The own weights of objectives have their own rate, whatever the strategy.
        own = parameters.OBJECTIVE_WEIGHTS
        named = {name: w for name, w in self.weights().items() if not name.startswith(own)}
        factors = parameters.match_patterns(named, patterns)
        for name, weight in named.items():
            weight.requires_grad_(factors[name] > 0)
        return factors

    def add_objective_weights(self, objective: str, start: Mapping[str, Tensor]) -> None:
        """Add the own weights of an objective, by name, which learn beside those of the model."""
        device = next(self.parameters()).device
        own = {name: nn.Parameter(tensor.to(device)) for name, tensor in start.items()}
        if "objectives" not in self.added_modules:
            self.added_modules["objectives"] = nn.ModuleDict()
        self.added_modules["objectives"].add_module(
            parameters.objective_key(objective), nn.ParameterDict(own)
        )

    def weights_of_objective(self, objective: str) -> dict[str, nn.Parameter]:
        """The own weights of an objective, by name."""
        prefix = parameters.objective_weight_name(objective, "")
        weights = self.weights()
        return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}

    def uses_weight_decay(self, name: str) -> bool:
        """Whether weight decay applies to this weight."""
        return parameters.uses_weight_decay(name, self.weights()[name])

    def set_train_mode(self, modalities: set[str]) -> None:
        """Enable dropout in the trained layers of these towers and above; frozen ones stay deterministic."""
        for modality in MODALITIES:
            tower = self.tower(modality)
            tower.train(modality in modalities)
            for module in frozen_prefix.frozen_modules(tower, self.first_trainable_layer(modality) or 0):
                module.eval()

    def depth(self, modality: Modality) -> int:
        """Number of layers of a tower."""
        return layers.depth(self.tower(modality))

    def first_trainable_layer(self, modality: Modality) -> int | None:
        """Index of a tower's lowest layer that is trained; 0 also for weights below it, None when none is."""
        first = frozen_prefix.first_trainable_layer(self.tower(modality))
        if first is None and any(
            weight.requires_grad for name, weight in self.weights().items() if name.startswith(f"{modality}/")
        ):
            return self.depth(modality) - 1  # only the projection is trained
        return first

    def weights_below(self, modality: Modality, last_layers: int) -> list[str]:
        """Names, as in `weights`, of a tower's weights below its last layers.

        Raises: RecipeError for a number of layers that the tower does not have.
        """
        first = self.depth(modality) - layers.check_last_layers(self.tower(modality), last_layers)
        return self._names_below(modality, first)

    def norm_weights(self) -> list[str]:
        """Names, as in `weights`, of the weights of the layer norms of both towers."""
        norms = [module for module in self.hf_base.modules() if isinstance(module, nn.LayerNorm)]
        identities = {id(weight) for module in norms for weight in module.parameters()}
        return [name for name, weight in self.weights().items() if id(weight) in identities]

    def relative_depths(self) -> dict[str, float]:
        """By name, as in `weights`: 0 in a tower's first layer, 1 in the last; none outside the layers."""
        return {
            parameters.parameter_name(f"{TOWER_MODULES[modality]}.{name}"): depth
            for modality in MODALITIES
            for name, depth in frozen_prefix.relative_depths(self.tower(modality)).items()
        }

    def lora_targets(self, modality: Modality, kind: str, last_layers: int | None = None) -> list[str]:
        """Full names of a tower's linear layers, as peft's `target_modules` expects them.

        `kind` is "attention" or "attention+mlp".

        Raises: RecipeError for an unknown kind, and a number of layers that the tower does not have.
        """
        names = layers.lora_target_names(self.tower(modality), kind, last_layers)
        return [f"{TOWER_MODULES[modality]}.{name}" for name in names]

    def fingerprint(self, part: Literal["image", "text", "all"]) -> str:
        """Cache key of outputs of these weights: equal exactly when config and bytes are equal."""
        key = parameters.fingerprint(self.hf_model, self.hf_base.config, part)
        if part == "text":
            return key
        key = parameters.fingerprint_with_pooling(key, self.frames, self.added_modules)
        return f"{key} {self.scorer.fingerprint}" if part == "all" and self.scorer is not None else key

    def frozen_fingerprint(self, modality: Modality) -> str:
        """Cache key of the layers below the lowest trained one: independent of what is trained above them."""
        first = self.first_trainable_layer(modality)
        if first is None:
            return self.fingerprint(modality)
        only = set(self._names_below(modality, first))
        return f"{first} {parameters.fingerprint(self.hf_model, self.hf_base.config, modality, only)}"

    def _names_below(self, modality: Modality, first: int) -> list[str]:
        names = frozen_prefix.parameters_below(self.tower(modality), first)
        return [parameters.parameter_name(f"{TOWER_MODULES[modality]}.{name}") for name in names]

    def _started_at_hidden(
        self, modality: Modality, batch: dict[str, Tensor]
    ) -> AbstractContextManager[None]:
        """Inside, a tower starts at its lowest trained layer where the batch has `hidden`, its input."""
        if "hidden" not in batch:
            return nullcontext()
        first = self.first_trainable_layer(modality)
        assert first is not None
        return frozen_prefix.start_at_layer(
            self.tower(modality), first, batch["hidden"], skip_embeddings=modality == "image"
        )

    def _patches_read(self, image: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Inside, the image tower reads the patches that the input of the images names."""
        return nullcontext() if self.patch_dropout is None else self.patch_dropout.reading(image)

    def _onednn(self, modality: Modality) -> AbstractContextManager[Any]:
        """Inside, the matrix products of an eager tower on the CPU run where they are fastest."""
        tower = self.tower(modality)
        _, stack = layers.layer_stack(tower)
        compiled = any(layer._compiled_call_impl is not None for layer in stack)  # the compiler chooses
        on_cpu = next(tower.parameters()).device.type == "cpu"
        return onednn.enabled() if on_cpu and not compiled else nullcontext()


def _without_number(given: Any) -> Any:
    """The CPU for any number of it; anything else unchanged."""
    return torch.device("cpu") if isinstance(given, torch.device) and given.type == "cpu" else given
