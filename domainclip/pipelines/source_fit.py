"""The training items that `source_removal` is fitted on, and whether it can be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from domainclip.config.recipe import SourceRemoval
from domainclip.data.batching.item_sources import source_names
from domainclip.errors import DataError, RecipeError
from domainclip.models.concept_erasure import image_projection
from domainclip.models.dual_encoder import DualEncoder


@dataclass(frozen=True)
class SourceFit:
    """The items that the map is fitted on, by source and by labels."""

    concept: np.ndarray  # (n,) the number of the source
    strata: np.ndarray  # (n,) the number of the set of labels; 0 everywhere without `given_labels`
    rows: np.ndarray  # (n,) rows of the items that are used

    @property
    def sources(self) -> int:
        """The number of sources."""
        return len(set(self.concept.tolist()))


def check_source_removal(settings: SourceRemoval | None, items: Dataset, model: DualEncoder) -> None:
    """Refuse, before training, what could not be removed after it.

    Raises: RecipeError for a model without a linear layer behind its image tower; DataError where the source
    cannot be told from the labels, or is not named.
    """
    if settings is None:
        return
    if image_projection(model) is None:
        raise RecipeError(
            f"source_removal: family {model.family} with {model.frames} images an item has no linear layer "
            "behind its image tower that could hold the map: leave source_removal out"
        )
    fit_items(settings, items)


def fit_items(settings: SourceRemoval, items: Dataset) -> SourceFit:
    """The items with a source, by source and by label.

    Raises: DataError where no labels occur in two sources: then the source is the label.
    """
    names = source_names(items, settings.by)
    rows = np.array([row for row, name in enumerate(names) if any(name)], np.int64)
    if len({names[row] for row in rows}) < 2:
        raise DataError(
            f"source_removal.by: the training items have fewer than two values of {settings.by}: name the "
            "columns in the card, or leave source_removal out"
        )
    labels = items["labels"][:] if settings.given_labels else [[]] * len(names)
    strata = _numbers([str(sorted(set(labels[row]))) for row in rows])
    concept = _numbers([str(names[row]) for row in rows])
    if max(len(set(concept[strata == number].tolist())) for number in set(strata.tolist())) < 2:
        raise DataError(
            "source_removal.given_labels: no label occurs in two sources, so nothing distinguishes the "
            "source from the label: leave source_removal out; source_removal.given_labels=false would remove "
            "the label too"
        )
    return SourceFit(concept, strata, rows)


def _numbers(values: list[str]) -> np.ndarray:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)
