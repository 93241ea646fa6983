"""The recipe of a push, and the data cards that it names: anyone who downloads them can run it.

All paths are taken out. A recipe that still needs one names the key, in `config/paths.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from domainclip.config import strict_yaml
from domainclip.config.paths import LOCAL
from domainclip.config.recipe import Recipe
from domainclip.config.sources import CorpusSource
from domainclip.data.cards import Card, load_card
from domainclip.report.model_card import first_paragraph
from domainclip.report.redaction import hub_id, without_paths

RECIPE = "recipe.yaml"
CARDS = {"corpus": "data_card.md", "retention": "retention_card.md"}
_AT_THE_TOP = ("pretty_name", "license", "language")  # keys of the Hub's own data cards
# Notes of the author of the card, and a folder beside their corpus.
_NOT_SHARED = ("description", "verified", "not_verified", "retention")


def shared_texts(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Name, text and reason of the recipe and of the data cards that it names.

    Raises: RecipeError when a card cannot be read.
    """
    data = without_paths(recipe.model_dump(mode="json"))
    data["base"]["path"] = hub_id(recipe.base.path) or LOCAL
    card = load_card(recipe.corpus.card)
    named = _retention(recipe, card)
    if named is not None:
        data["retention"] = without_paths(named.model_dump(mode="json"))
    sources = [(CARDS["corpus"], recipe.corpus, data["corpus"])]
    if named is not None:
        sources.append((CARDS["retention"], named, data["retention"]))
    for name, mixed in recipe.train.mix.items():
        sources.append((mixed_card(name), mixed, data["train"]["mix"][name]))
    for file, source, shared in sources:
        own = load_card(source.card)
        if source.card:
            yield file, _card_text(own), "data card without local paths"
            shared["card"] = file
        if (source.overrides().get("reader") or own.reader) == "hub":
            shared["path"] = hub_id(source.path) or LOCAL
    yield RECIPE, strict_yaml.dump_yaml(data), "recipe without local paths"


def mixed_card(name: str) -> str:
    """The file name of the data card of a corpus of train.mix."""
    return f"mix_{re.sub(r'[^A-Za-z0-9_-]', '_', name)}_card.md"


def _retention(recipe: Recipe, card: Card) -> CorpusSource | None:
    """The retention set of the run: that of the recipe, or else that of the card."""
    if recipe.retention is not None and recipe.retention.path:
        return recipe.retention
    if card.retention is None:
        return None
    given = {} if recipe.retention is None else recipe.retention.model_dump(mode="json")
    return CorpusSource.model_validate(given | {"card": card.retention.card, "path": LOCAL})


def _card_text(card: Card) -> str:
    """The card with its options, and with the first paragraph of its description alone."""
    options: dict[str, Any] = without_paths(card.model_dump(mode="json", exclude_defaults=True))
    top = {key: options.pop(key) for key in _AT_THE_TOP if key in options}
    options = {key: value for key, value in options.items() if key not in _NOT_SHARED and value != LOCAL}
    front = strict_yaml.dump_yaml({**top, "domainclip": options}).rstrip()
    return f"---\n{front}\n---\n\n{first_paragraph(card.description)}\n"
