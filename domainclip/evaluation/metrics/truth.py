"""Which captions are right for which images: those of the same truth key, and those of an equal text.

The truth key of an item is a column of the card (study, report, object), by default its image. The group,
which is what is split and resampled, plays no part: two images of a patient may show different things.
"""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from domainclip.data.text.captions import normalise
from domainclip.evaluation.base import EvaluationSet


def truth_numbers(items: Dataset) -> np.ndarray:
    """(n,) the number of each item's truth key, from 0."""
    numbers: np.ndarray = np.unique(np.asarray(list(items["truth"]), dtype=str), return_inverse=True)[1]
    return numbers


def right_captions(items: Dataset) -> list[set[str]]:
    """By item: the normalised captions of all items with its truth key."""
    numbers = truth_numbers(items)
    captions: list[set[str]] = [set() for _ in range(len(items))]  # by number, of which there are at most n
    for number, texts in zip(numbers, items["texts"], strict=True):
        captions[number] |= {normalise(text) for text in texts}
    return [captions[number] for number in numbers]


def describe_truth(data: EvaluationSet) -> str:
    """What makes a caption right for an image, in words, for the protocol of a probe."""
    if not data.card.columns.truth:
        return "the captions of the item, and equal ones"
    return f"the captions of all items with the same {data.card.columns.truth}, and equal ones"
