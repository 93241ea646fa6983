"""How the layers of the towers run: compiled, checkpointed, or as they are."""

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
    """The layers of the towers as the recipe wants them run, for as long as they are trained.

    Raises: RecipeError where a family cannot.
    """
    plain: Any = model.hf_base
    every = [layer for part in (plain.vision_model, plain.text_model) for layer in layer_stack(part)[1]]
    if settings.activation_checkpointing:
        if not plain.supports_gradient_checkpointing:
            raise RecipeError(
                f"train.activation_checkpointing: family {model.family} cannot; leave it out and lower "
                "train.micro_batch_size"
            )
        # In compiled layers products are the compiler's affair, and it takes no such context.
        again = {} if settings.compile else {"context_fn": onednn.checkpoint_contexts}
        _transformers(plain, "enable")({"use_reentrant": False, **again})
    if settings.compile:
        for layer in every:  # equal layers share one compilation; texts differ in length
            layer.compile(dynamic=True)
    try:
        yield
    finally:
        if settings.activation_checkpointing:
            _transformers(plain, "disable")()
        if settings.compile:
            for layer in every:
                layer._compiled_call_impl = None


def _transformers(plain: Any, what: str) -> Any:
    """The switch under its name of today, or the one it had in the first releases of transformers 5."""
    new = getattr(plain, f"activation_checkpointing_{what}", None)
    return new or getattr(plain, f"gradient_checkpointing_{what}")
