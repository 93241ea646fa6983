"""What each patch of a picture says by itself, in the space that images and texts share.

The trained embedding is one vector a picture. MaskCLIP [arXiv:2112.01071] finds that the patches lie in the
same space once the last layer's attention is left out: there each patch keeps its own value, instead of
gathering what the whole picture is about. Then it goes where the pooled token would have gone.
Shapes: b pictures, n patches, w the tower's width, d embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from domainclip.models import token_embeddings

if TYPE_CHECKING:
    from domainclip.models.dual_encoder import DualEncoder


def encode_patches(model: DualEncoder, image: dict[str, Tensor]) -> Tensor:
    """(b, n, d) of unit length, row by row from the top left.

    Raises: ModelError for a tower whose patches do not form one grid, or that is not a plain transformer.
    """
    vision = model.hf_base.vision_model
    if model.image_preprocessor.patch:
        model.refuse("its image tower takes any shape of picture; a map of patches needs a fixed grid")
    attention = _last_attention(vision)
    if attention is None:
        model.refuse("its image tower has no value projection in its last layer; it has no map of patches")
    with _own_value_only(attention):
        tokens: Tensor = vision(**model.pixels(image)).last_hidden_state
    return token_embeddings.image_token_embeddings(model, tokens)


@contextmanager
def _own_value_only(attention: nn.Module) -> Iterator[None]:
    """Inside, this attention gives each token its own projected value."""
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
    """The attention of the last layer; a pooling head has none of its own kind."""
    found = [
        module
        for module in vision.modules()
        if hasattr(module, "v_proj") and (hasattr(module, "out_proj") or hasattr(module, "o_proj"))
    ]
    return found[-1] if found else None
