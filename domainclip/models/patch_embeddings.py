"""Embeddings of an image's patches for maps of where a text applies, in the space of images and texts.

The trained embedding is one vector an image. MaskCLIP [arXiv:2112.01071] observes that patches lie in the
same space once the attention of the last layer is left out: each patch then retains its own value, instead of
gathering the content of the whole image. It is pooled and projected as the pooled token is.
Shapes: b images, n patches, w the tower's width, d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from domainclip.models import token_embeddings
from domainclip.models.dual_encoder import DualEncoder


def encode_patches(model: DualEncoder, image: dict[str, Tensor]) -> Tensor:
    """(b, n, d) of unit length, row by row from the top left.

    Raises: ModelError for a tower whose patches do not form one grid, or that is not a plain transformer.
    """
    vision = model.hf_base.vision_model
    if model.image_preprocessor.patch:
        model.refuse("its image tower takes images of any shape; a map of patches needs a fixed grid")
    attention = _last_attention(vision)
    if attention is None:
        model.refuse("its image tower has no value projection in its last layer; it has no map of patches")
    with _value_only(attention):
        hidden: Tensor = vision(**model.pixel_inputs(image)).last_hidden_state
    return token_embeddings.image_token_embeddings(
        vision, getattr(model.hf_base, "visual_projection", None), hidden
    )


def patch_grid(model: DualEncoder) -> tuple[int, int]:
    """Rows and columns of patches."""
    edge: int = model.hf_base.config.vision_config.patch_size
    return model.image_size[0] // edge, model.image_size[1] // edge


@contextmanager
def _value_only(attention: nn.Module) -> Iterator[None]:
    """Inside, this attention returns each token's own projected value."""
    out: Any = getattr(attention, "out_proj", None) or getattr(attention, "o_proj", None)

    def value(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> tuple[Tensor, None]:
        hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        return out(module.v_proj(hidden)), None

    handle = attention.register_forward_hook(value, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _last_attention(vision: nn.Module) -> nn.Module | None:
    """The attention of the last layer; the one of a pooling head is of another kind."""
    attentions = [
        module
        for module in vision.modules()
        if hasattr(module, "v_proj") and (hasattr(module, "out_proj") or hasattr(module, "o_proj"))
    ]
    return attentions[-1] if attentions else None
