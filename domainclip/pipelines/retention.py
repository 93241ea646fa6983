"""The retention set: a corpus outside the domain, on which forgetting is measured."""

from __future__ import annotations

from pathlib import Path

from domainclip.config.recipe import Recipe
from domainclip.config.sources import CorpusSource
from domainclip.data.cards import Card, Retention, corpus_root, load_card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.pipelines.early_checks import check_retention

_UNMEASURED = (
    "forgetting is not measured: {}; name a retention set with retention.path=FOLDER retention.card=CARD"
)


def load_retention(recipe: Recipe, card: Card) -> tuple[Corpus | None, tuple[str, ...]]:
    """The corpus that the recipe names, or else the card; without one, None and a warning.

    Raises: DataError when the folder that the recipe names does not exist.
    """
    named = recipe.retention if recipe.retention and recipe.retention.path else None
    source = named or _source_of_card(card.retention, recipe.corpus.path)
    if source is None:
        return None, (_UNMEASURED.format("the recipe names no retention set"),)
    check_retention(named)
    retention_card = load_card(source.card, source.overrides())
    if retention_card.reader != "hub" and not Path(source.path).exists():
        # As the card has it, not as an absolute path: warnings stand in reports and cards.
        path = card.retention.path if card.retention else source.path
        return None, (
            _UNMEASURED.format(f"the retention set of the card, {path} from the corpus, does not exist"),
        )
    return load_corpus(retention_card, source.path), ()


def _source_of_card(retention: Retention | None, path: str) -> CorpusSource | None:
    if retention is None:
        return None
    return CorpusSource(card=retention.card, path=str((corpus_root(path) / retention.path).resolve()))
