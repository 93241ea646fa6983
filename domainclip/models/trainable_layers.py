"""Where the two towers begin to learn, and what can be computed once below it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from transformers import PreTrainedModel

from domainclip.models import frozen_prefix, layers, onednn, parameters
from domainclip.models.layers import MODALITIES, TOWER_MODULES, Modality


class TrainableLayers(nn.Module):
    """The weights of two towers, and the layers at which they begin to learn."""

    accepts_hidden_states: ClassVar[tuple[Modality, ...]] = (
        "image",
        "text",
    )  # towers that can begin with `Encoding.lower`

    # A PreTrainedModel or a PeftModel around one; a strategy may replace it.
    hf_model: Any
    added_modules: nn.ModuleDict  # what a strategy adds beside the model, such as a head; empty for most
    # How many pictures of an item are seen as one, and how they are pooled; see `towers/pooling.py`.
    frames: int = 1
    pooled_by: dict[str, Any] | None = None

    @property
    def hf_base(self) -> Any:
        """The transformers model, with or without adapter layers inside."""
        return self.hf_model if isinstance(self.hf_model, PreTrainedModel) else self.hf_model.get_base_model()

    def weights(self) -> dict[str, nn.Parameter]:
        """All weights as part/name, the same with and without an adapter around the model; `extra` last."""
        weights = {parameters.parameter_name(name): w for name, w in self.hf_model.named_parameters()}
        added = self.added_modules.named_parameters()
        return weights | {parameters.added_parameter_name(name): w for name, w in added}

    def fingerprint(self, part: Literal["image", "text", "all"]) -> str:
        """A key for what is computed with these weights: equal exactly when config and bytes are."""
        key = parameters.fingerprint(self.hf_model, self.hf_base.config, part)
        if part == "text":
            return key
        return parameters.fingerprint_with_pooling(key, self.frames, self.added_modules)

    def frozen_fingerprint(self, part: Modality) -> str:
        """A key for what stands below the lowest layer that learns: equal for whatever learns above it."""
        first = self.first_trainable_layer(part)
        if first is None:
            return self.fingerprint(part)
        names = [
            f"{TOWER_MODULES[part]}.{name}"
            for name in frozen_prefix.parameters_below(self._tower(part), first)
        ]
        only = {parameters.parameter_name(name) for name in names}
        return f"{first} {parameters.fingerprint(self.hf_model, self.hf_base.config, part, only)}"

    def depth(self, part: Modality) -> int:
        """How many layers a tower has."""
        return layers.depth(self._tower(part))

    def first_trainable_layer(self, part: Modality) -> int | None:
        """The lowest layer of a tower that learns; 0 also for what stands below it, None when none does."""
        first = frozen_prefix.first_trainable_layer(self._tower(part))
        if first is None and any(
            weight.requires_grad for name, weight in self.weights().items() if name.startswith(f"{part}/")
        ):
            return self.depth(part) - 1  # only its projection learns
        return first

    def weights_below(self, part: Modality, last_layers: int) -> list[str]:
        """Names of a tower's weights that stand below its last layers, as `weights` calls them.

        Raises: RecipeError for a number of layers that there is not.
        """
        first = self.depth(part) - layers.check_last_layers(self._tower(part), last_layers)
        return [
            parameters.parameter_name(f"{TOWER_MODULES[part]}.{name}")
            for name in frozen_prefix.parameters_below(self._tower(part), first)
        ]

    def set_train_mode(self, parts: set[str]) -> None:
        """Dropout acts in the layers that learn and above; what is locked below says the same every time."""
        for part in MODALITIES:
            tower = self._tower(part)
            tower.train(part in parts)
            for module in frozen_prefix.frozen_modules(tower, self.first_trainable_layer(part) or 0):
                module.eval()

    def _begun(self, part: Modality, batch: dict[str, Tensor]) -> AbstractContextManager[None]:
        """Inside, a tower begins with the `hidden` of `lower`, where a batch has it."""
        if "hidden" not in batch:
            return nullcontext()
        first = self.first_trainable_layer(part)
        assert first is not None
        return frozen_prefix.start_at_layer(
            self._tower(part), first, batch["hidden"], pictures=part == "image"
        )

    def _products(self, part: Modality) -> AbstractContextManager[Any]:
        tower = self._tower(part)
        _, stack = layers.layer_stack(tower)
        compiled = any(layer._compiled_call_impl is not None for layer in stack)  # the compiler's affair
        here = next(tower.parameters()).device.type == "cpu"
        return onednn.enabled() if here and not compiled else nullcontext()

    def _tower(self, part: Modality) -> nn.Module:
        tower: nn.Module = getattr(self.hf_base, TOWER_MODULES[part])
        return tower
