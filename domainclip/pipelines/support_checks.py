"""Checks of a strategy that trains no weight and computes class scores from support items."""

from __future__ import annotations

from domainclip.config.recipe import Recipe
from domainclip.data.corpus import Corpus
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.metrics.labels import label_matrix
from domainclip.strategies.base import SupportNeeds


def check_support(name: str, needs: SupportNeeds | None, corpus: Corpus) -> None:
    """Refuse a corpus from which the strategy `name` can compute no class scores.

    Raises: RecipeError or DataError.
    """
    if needs is None:
        return
    strategy, card = f"strategy.{name}", corpus.card
    if corpus.stream is not None:
        raise RecipeError(
            f"{strategy}: needs all training items at once, and a stream shows a few: store the corpus with "
            "domainclip data prepare and name that"
        )
    if len(corpus.classes) < (1 if card.multi_label else 2):
        raise DataError(
            f"{strategy}: scores classes, and the corpus has {len(corpus.classes)}: give the card classes or "
            "templates, and name corpus.columns.labels"
        )
    if card.multi_label and not needs.multi_label:
        raise RecipeError(
            f"{strategy}.form: captions needs classes that exclude each other, and the card sets "
            "multi_label: choose class_means, cache or kl"
        )
    for split in ("train", "validation") if needs.features == "images" else ("validation",):
        labels = label_matrix(corpus.splits[split], list(corpus.classes))
        if not (labels == 1).any():
            raise DataError(
                f"{strategy}: no item of the {split} split has a label of the classes: check "
                "corpus.columns.labels and the splits"
            )
    if needs.features != "images" and not any(corpus.splits["train"]["texts"][:]):
        place = f"{strategy}:" if needs.features == "pairs" else f"{strategy}.form: captions"
        remedy = "choose another form" if needs.features == "captions" else "name corpus.columns.texts"
        raise DataError(f"{place} needs captions in the training split: {remedy}")


def check_no_training(recipe: Recipe, strategy: str) -> None:
    """Refuse sections of a recipe that a strategy that trains no weight would not use.

    Raises: RecipeError.
    """
    for key, given in (
        ("objectives", bool(recipe.objectives)),
        ("weight_interpolation", recipe.weight_interpolation is not None),
        ("train.mix", bool(recipe.train.mix)),
    ):
        if given:
            raise RecipeError(
                f"{key}: strategy {strategy} trains no weight of the model and does not use it: leave it out"
            )
