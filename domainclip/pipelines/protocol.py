"""The way from the base to the adapted weights, measured in the domain and outside of it, and where to stop.

Each α is measured on the validation split, which chooses, and on the general set, which shows what is
forgotten and does not choose. Where a recipe sets a floor, what is forgotten does choose: then one half of
the general set chooses and only the other half is reported, for choosing on what is reported flatters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import concatenate_datasets

from domainclip.config import recipe as recipe_config
from domainclip.config.recipe import Recipe
from domainclip.data.cards import Retention, corpus_root, load_card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.base import RETENTION, EvaluationSet

if TYPE_CHECKING:
    pass
    pass


def reported_sets(sets: Sequence[EvaluationSet], recipe: Recipe) -> list[EvaluationSet]:
    """The sets as they may be reported: with a floor, the half of the general one that nothing is chosen on.

    Raises: RecipeError where a floor is set and there is no general set to hold it on; DataError for one that
    is too small to be halved.
    """
    if recipe.weight_interpolation is None or recipe.weight_interpolation.max_retention_drop is None:
        return list(sets)
    if all(one.name != RETENTION for one in sets):
        raise RecipeError(
            "weight_interpolation.max_retention_drop: no general set is measured: name one with "
            "retention.path=FOLDER "
            "retention.card=CARD, or leave it out"
        )
    return [_half(one, reported=True) if one.name == RETENTION else one for one in sets]


def selection_sets(sets: Sequence[EvaluationSet], recipe: Recipe, corpus: Corpus) -> list[EvaluationSet]:
    """What α is chosen on: the validation split, and of the general set, if any, what may have a say.

    With a floor that is the half which is not reported.
    """
    splits = corpus.splits
    # A probe may fit on the training split; on the validation split, which is measured here, it must not.
    train = splits["train"] if len(splits["train"]) else None
    validation = EvaluationSet("validation", splits["validation"], corpus.card, corpus.classes, train=train)
    floor = (
        recipe.weight_interpolation is not None and recipe.weight_interpolation.max_retention_drop is not None
    )
    return [validation, *(_half(one, reported=False) if floor else one for one in sets[1:])]


def _half(data: EvaluationSet, reported: bool) -> EvaluationSet:
    """The items whose group falls on one side of a hash: the same ones on every machine, groups whole.

    Raises: DataError for a set too small to be halved.
    """
    rows = [i for i, group in enumerate(data.items["group"][:]) if _side(str(group)) == reported]
    if not rows or len(rows) == len(data.items):
        raise DataError(
            "weight_interpolation.max_retention_drop: the general set has too few groups to choose on one "
            f"half and report the other: {len(data.items)} items; leave it out"
        )
    return replace(data, items=data.items.select(rows, keep_in_memory=True))


def _side(group: str) -> bool:
    return bool(hashlib.blake2b(group.encode(), digest_size=1).digest()[0] & 1)


def evaluation_sets(recipe: Recipe, corpus: Corpus, warnings: list[str]) -> list[EvaluationSet]:
    """The held-out split and, where one is named and there, the general set that shows what was forgotten."""
    held_out = corpus.splits[recipe.evaluate.split]
    if not len(held_out):
        raise DataError(
            f"corpus {corpus.card.name}: the {recipe.evaluate.split} split is empty: nothing to measure"
        )
    if recipe.weight_interpolation is not None and recipe.evaluate.split == "validation":
        warnings.append("evaluate.split: α was chosen on the validation split, so figures on it flatter")
    # What is fitted, or chosen, is so on other items than the measured ones.
    other = None if recipe.evaluate.split == "validation" else corpus.splits["validation"]
    train = corpus.splits["train"]
    sets = [
        EvaluationSet(
            recipe.evaluate.split,
            held_out,
            corpus.card,
            corpus.classes,
            train=train if len(train) else None,
            validation=other if other is not None and len(other) else None,
            fingerprint=corpus.fingerprint,
            split=recipe.evaluate.split,
        )
    ]
    source = recipe.retention or _card_retention(corpus.card.retention, recipe.corpus.path)
    if source is None:
        warnings.append(_UNMEASURED.format("no general set is named"))
    elif load_card(source.card, source.overrides()).reader != "hub" and not Path(source.path).exists():
        if recipe.retention is not None:
            raise DataError(f"retention.path: {source.path} does not exist")
        # As the card says it, not as an absolute path: warnings stand in reports and cards.
        said = corpus.card.retention.path if corpus.card.retention else source.path
        warnings.append(_UNMEASURED.format(f"the card's general set, {said} from the corpus, does not exist"))
    else:
        general = load_corpus(load_card(source.card, source.overrides()), source.path)
        items = concatenate_datasets(list(general.splits.values()))  # nothing trains on any of it
        known = {"fingerprint": general.fingerprint, "split": "all"}
        sets.append(EvaluationSet("general", items, general.card, general.classes, **known))
    return sets


_UNMEASURED = (
    "what was forgotten is not measured: {}; name one with retention.path=FOLDER retention.card=CARD"
)


def _card_retention(retention: Retention | None, path: str) -> recipe_config.CorpusSource | None:
    if retention is None:
        return None
    return recipe_config.CorpusSource(
        card=retention.card, path=str((corpus_root(path) / retention.path).resolve())
    )
