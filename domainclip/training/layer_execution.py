"""Execution of the model's layers during training: compiled, with activation checkpointing, or plain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from domainclip.config.training import TrainConfig
from domainclip.errors import RecipeError
from domainclip.models import onednn
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.layers import layer_stack


@contextmanager
def layer_execution(model: DualEncoder, settings: TrainConfig) -> Iterator[None]:
    """Apply train.compile and train.activation_checkpointing to all layers within the block.

    Raises: RecipeError when the family does not support activation checkpointing.
    """
    plain: Any = model.hf_base
    layers = [layer for tower in (plain.vision_model, plain.text_model) for layer in layer_stack(tower)[1]]
    if settings.activation_checkpointing:
        if not plain.supports_gradient_checkpointing:
            raise RecipeError(
                f"train.activation_checkpointing: family {model.family} does not support it; leave it out "
                "and lower train.micro_batch_size"
            )
        # In compiled layers the compiler computes the products, and it accepts no such context.
        contexts = {} if settings.compile else {"context_fn": onednn.checkpoint_contexts}
        _checkpointing(plain, "enable")({"use_reentrant": False, **contexts})
    if settings.compile:
        for layer in layers:  # equal layers share one compilation; texts differ in length
            layer.compile(dynamic=True)
    try:
        yield
    finally:
        if settings.activation_checkpointing:
            _checkpointing(plain, "disable")()
        if settings.compile:
            for layer in layers:
                layer._compiled_call_impl = None


def _checkpointing(plain: Any, switch: str) -> Any:
    """Return the method under its current name, or the one in the first releases of transformers 5."""
    method = getattr(plain, f"activation_checkpointing_{switch}", None)
    return method or getattr(plain, f"gradient_checkpointing_{switch}")
