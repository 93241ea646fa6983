"""The base of a recipe."""

from __future__ import annotations

from domainclip.config.recipe import Recipe
from domainclip.distributed.phases import phase
from domainclip.models.base_loading import load_base_model
from domainclip.models.dual_encoder import DualEncoder
from domainclip.strategies.base import Strategy


@phase("loading the base")
def load_base(recipe: Recipe, strategy: Strategy, revision: str | None = None) -> DualEncoder:
    """The base as plain weights, shown as many images per item as the strategy requires.

    A run folder stands for its adapted model; an adapter is added to the weights of its own base.
    `revision` is that of the recipe where it is None.
    """
    base = load_base_model(recipe.base.path, revision or recipe.base.revision)
    return base.with_frames(strategy.requirements(base).frames)
