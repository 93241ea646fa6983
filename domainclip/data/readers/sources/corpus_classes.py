"""The classes of a corpus that zero-shot classification measures, with their prompts."""

from __future__ import annotations

from collections import Counter

from datasets import DatasetDict

from domainclip.data.cards import Card, Prompts
from domainclip.data.quarantine import ReadLog
from domainclip.errors import RecipeError, did_you_mean


def corpus_classes(splits: DatasetDict, card: Card, log: ReadLog) -> dict[str, Prompts]:
    """The classes of the card, or its templates filled with the class names that are frequent in training.

    Raises: RecipeError for the prevalence of a class that is not among them.
    """
    classes = _class_prompts(splits, card, log)
    for name in card.prevalence:
        if classes and name not in classes:  # without any, those of a run may follow
            raise RecipeError(f'corpus.prevalence: class "{name}": {did_you_mean(name, classes)}')
    return classes


def _class_prompts(splits: DatasetDict, card: Card, log: ReadLog) -> dict[str, Prompts]:
    if card.classes or not card.templates:
        return dict(card.classes)
    # A set for evaluation only has no training split to count in.
    counted = [splits["train"]] if len(splits["train"]) else list(splits.values())
    tally = Counter(label for rows in counted for labels in rows["labels"][:] for label in labels)
    rare = sorted(name for name, n in tally.items() if n < card.min_items)
    if rare:
        log.add_note(
            f"classes: {len(rare)} with fewer than {card.min_items} items are left out of zero-shot "
            "evaluation (corpus.min_items)"
        )
    frequent = sorted(name for name, n in tally.items() if n >= card.min_items)
    return {
        name: Prompts(positive=[text.replace("{}", name) for text in card.templates]) for name in frequent
    }
