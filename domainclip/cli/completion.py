"""What a shell completes: the names of recipes, plans, cards and components, and the keys of a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def recipes(incomplete: str) -> list[str]:
    """The built-in recipes that begin so; without any, the shell completes file names."""
    return _builtin("recipes", ".yaml", incomplete)


def plans(incomplete: str) -> list[str]:
    """The built-in ablation plans that begin so."""
    return _builtin("recipes/ablations", ".yaml", incomplete)


def recipes_and_plans(incomplete: str) -> list[str]:
    """The built-in recipes, and plans as ablations/NAME, that begin so."""
    below = [f"ablations/{name}" for name in plans("")]
    return recipes(incomplete) + [name for name in below if name.startswith(incomplete)]


def cards(incomplete: str) -> list[str]:
    """The built-in data cards that begin so."""
    return _builtin("data_cards", ".md", incomplete)


def suites(incomplete: str) -> list[str]:
    """The built-in suites that begin so."""
    return _builtin("suites", ".yaml", incomplete)


def components(incomplete: str) -> list[str]:
    """The components of all kinds that begin so."""
    from domainclip import registry

    known = {name for kind in registry.KINDS for name in registry.names(kind)}
    return sorted(name for name in known if name.startswith(incomplete))


def kinds(incomplete: str) -> list[str]:
    """The kinds of components that begin so."""
    from domainclip import registry

    return [kind for kind in registry.KINDS if kind.startswith(incomplete)]


def recipe_keys(incomplete: str) -> list[str]:
    """The keys of a recipe that begin so, up to the = of an override."""
    from domainclip.config.recipe import Recipe

    return [f"{key}=" for key in _keys(Recipe) if key.startswith(incomplete)]


def _keys(model: Any, above: str = "") -> Iterator[str]:
    from domainclip.registry import nested_models

    for name, field in model.model_fields.items():
        inner = nested_models(field)
        for one in inner:
            yield from _keys(one, f"{above}{name}.")
        if not inner:
            yield f"{above}{name}"


def _builtin(kind: str, suffix: str, incomplete: str) -> list[str]:
    from domainclip.config import builtin

    return [name for name in builtin.builtin_names(kind, suffix) if name.startswith(incomplete)]
