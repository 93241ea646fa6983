"""Faults that names, paths and headers show: neither torch nor a data set is imported.

A command calls these checks before it imports its pipeline, so that a wrong path or column costs a second.
"""

from __future__ import annotations

from pathlib import Path

from domainclip import registry
from domainclip.config import component_source
from domainclip.config.recipe import Recipe
from domainclip.config.sources import CorpusSource
from domainclip.data.cards import Card, load_card
from domainclip.data.schema import PREPARED_MANIFEST
from domainclip.errors import DataError, DomainclipError, RecipeError
from domainclip.models import folder_checks
from domainclip.pipelines.eval_request import EvalRequest, recipe_of, run_of


def check_recipe(recipe: Recipe) -> None:
    """Check the card, the corpus and the base.

    Raises: RecipeError, DataError or ModelError.
    """
    _check_corpus_of(recipe)
    check_retention(recipe.retention)
    for name, source in recipe.train.mix.items():
        _check_mixed(name, source)
    images = recipe.anchor_images.path
    if images is not None and not Path(images).is_dir():
        raise DataError(f"anchor_images.path: {images} is not a folder: name one with images")
    captions = recipe.anchor_texts.path
    if captions is not None and not Path(captions).is_file():
        raise DataError(f"anchor_texts.path: {captions} is no file: name a text file with one caption a line")
    folder_checks.check_base(recipe.base.path)


def check_corpus(card: Card, path: str) -> None:
    """Check the options of the reader, the path, and the columns of a table.

    Raises: RecipeError or DataError.
    """
    component_source.check_options("readers", card.reader, card.options, "corpus.options")
    if not Path(path, PREPARED_MANIFEST).is_file():  # a prepared corpus has a reader of its own
        registry.build("readers", card.reader, card.options, "corpus.options").check_source(card, path)


def check_retention(source: CorpusSource | None) -> None:
    """Check the folder of the retention set, where the recipe names one.

    Raises: RecipeError or DataError.
    """
    if source is None or not source.path or Path(source.path).exists():
        return
    if load_card(source.card, source.overrides()).reader != "hub":
        raise DataError(f"retention.path: {source.path} does not exist")


def _check_mixed(name: str, source: CorpusSource) -> None:
    """Check a corpus that is mixed in, as the corpus itself.

    Raises: RecipeError or DataError, beginning with its key.
    """
    try:
        check_corpus(load_card(source.card, source.overrides()), source.path)
    except DomainclipError as error:
        text = str(error).replace("corpus.", f"train.mix.{name}.")
        raise type(error)(f"train.mix.{name}: {text}") from None


def check_evaluation(request: EvalRequest) -> None:
    """Check the models, the recipe and its corpus.

    Raises: RecipeError, DataError or ModelError.
    """
    run = run_of(request)
    recipe = recipe_of(request, run)
    for name in request.names:
        folder_checks.check_base(recipe.base.path if name == "base" else name)
    if request.recipe is not None or run is None or recipe.corpus.path == run.recipe.corpus.path:
        _check_corpus_of(recipe)
    elif not Path(recipe.corpus.path).exists():  # another corpus, to which the card of the run is fitted
        from domainclip.data.readers.sources.layout import find_layout

        find_layout(recipe.corpus.path)


def _check_corpus_of(recipe: Recipe) -> None:
    if recipe.name == "quickstart" and not Path(recipe.corpus.path).exists():
        raise DataError(
            f"corpus.path: {recipe.corpus.path} does not exist: domainclip demo generates it and trains on it"
        )
    card = load_card(recipe.corpus.card, recipe.corpus.overrides())
    check_corpus(card, recipe.corpus.path)
    if not Path(recipe.corpus.path, PREPARED_MANIFEST).is_file():  # whose own card names the columns
        _check_sources(recipe, card)


def _check_sources(recipe: Recipe, card: Card) -> None:
    """Refuse a key that needs the source or the acquisition of an item, where the card names no column of it.

    Raises: RecipeError.
    """
    options = {
        "curation.within_source": recipe.curation.get("within_source"),
        "objectives.source_adversary": recipe.objectives.get("source_adversary"),
    }
    used = {f"{key}.by": one.get("by", "source") for key, one in options.items() if one is not None}
    if recipe.source_removal is not None:
        used["source_removal.by"] = recipe.source_removal.by
        if "hyperbolic" in recipe.objectives:
            raise RecipeError(
                "source_removal: does not work with objectives.hyperbolic, whose distance is no product of "
                "embeddings: leave one of the two out"
            )
    named = {"source": bool(card.columns.source), "acquisition": bool(card.columns.acquisition)}
    for key, by in used.items():
        missing = [name for name, is_named in named.items() if not is_named and by in (name, "both")]
        if missing:
            value = "COLUMN" if missing[0] == "source" else "[COLUMN]"
            raise RecipeError(
                f"{key}: {by}: the card names no column of it: set corpus.columns.{missing[0]}={value}"
            )
