"""What `data check` and `data preview` look at: a corpus with its card, named by a recipe or by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from domainclip.config import loading, overrides
from domainclip.config.recipe import Recipe
from domainclip.data.cards import Card, load_card
from domainclip.errors import RecipeError


@dataclass(frozen=True)
class CheckTarget:
    """What is checked: a corpus with its card, and the recipe of the run that it is for, if any."""

    card: Card
    path: str
    recipe: Recipe | None = None
    with_base: bool = True  # load the base, which counts tokens and preprocesses the images that are shown


def from_recipe(name: str, changes: Sequence[str], with_base: bool = True) -> CheckTarget:
    """The corpus of a recipe.

    Raises: RecipeError for a wrong recipe or card.
    """
    recipe = loading.load_recipe(name, changes)
    card = load_card(recipe.corpus.card, recipe.corpus.overrides())
    return CheckTarget(card, recipe.corpus.path, recipe, with_base)


def from_card(name: str | None, path: str | None, changes: Sequence[str]) -> CheckTarget:
    """A corpus by its card, some keys of which `changes` override; without a card, all keys are guessed.

    Raises: RecipeError for a wrong card or key, or when nothing says where the corpus is.
    """
    keys: dict[str, Any] = {}
    for change in changes:
        overrides.apply_override(keys, change.removeprefix("corpus."))
    location = keys.pop("path", path)
    if location is None:
        raise RecipeError("data: name a corpus: --recipe RECIPE, or --card CARD and a path")
    return CheckTarget(load_card(name, keys), str(location), None, False)
