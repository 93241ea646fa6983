"""The base of a recipe."""

from __future__ import annotations

from domainclip.config.recipe import Recipe
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.strategies.base import Strategy


def load_base(recipe: Recipe, strategy: Strategy, revision: str | None = None) -> DualEncoder:
    """The base as published, shown as many images per item as the strategy requires.

    `revision` is that of the recipe where it is None.
    """
    base = load_model(recipe.base.path, revision or recipe.base.revision)
    return base.with_frames(strategy.requirements(base).frames)
