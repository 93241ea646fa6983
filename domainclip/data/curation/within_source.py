"""Batches from one source or view at a time, so that recognising the source distinguishes no pair."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from domainclip.data.batching.item_sources import COLUMNS_OF, source_names
from domainclip.data.interfaces import BatchOrdering
from domainclip.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

    from domainclip.data.interfaces import Encoder


@dataclass(frozen=True, kw_only=True)
class WithinSource(BatchOrdering):
    """A batch is drawn from one source as far as it reaches; rare labels of a source are shown more often.

    The loss asks which caption of the batch belongs to an image. Where every image comes from one hospital or
    every one is of one view, recognising the hospital or the view answers nothing [arXiv:2402.01613, for
    sources of texts]. The card names them: `columns.source` and `columns.acquisition`. Items without one form
    a group of their own. A batch in which two sources meet is mixed; a source smaller
    than a batch always is.

    With `balance_labels` the label of an item is made as independent of its source as repetition can: an item
    with labels y in source s is shown r = w / min w times in an epoch, rounded, w = n(s) n(y) / (n n(s, y)),
    and at most `max_repeats` times [doi:10.1007/s10115-011-0463-8]. The paper draws with the weights w; here
    every item is shown once at least, so a source of one label stays as it is. Items without labels are shown
    once. Costs nothing.
    """

    citation: ClassVar[str] = "arXiv:2402.01613"

    by: Literal["source", "acquisition", "both"] = "source"  # what the items of a batch share
    balance_labels: bool = False  # show rare labels of a source more often
    max_repeats: Annotated[int, Field(ge=2, le=100)] = 4  # of an item in an epoch, with balance_labels

    def strata(self, items: Dataset, base: Encoder | None = None) -> np.ndarray:
        """(n,) int64, the source of each item by its place in their alphabetical order.

        Raises: DataError when all items have the same one, or none.
        """
        names = source_names(items, self.by)
        if len(set(names)) < 2:
            raise DataError(
                f"curation.within_source: all items have the same {self.by}, or none: name "
                f"{COLUMNS_OF[self.by]} in the card, or leave within_source out"
            )
        return np.unique([json.dumps(name) for name in names], return_inverse=True)[1].astype(np.int64)

    def repeats(self, items: Dataset) -> np.ndarray | None:
        """(n,) int64, how often an epoch shows each item; None without `balance_labels`.

        Raises: DataError when no item has a label.
        """
        if not self.balance_labels:
            return None
        names, labels = source_names(items, self.by), [tuple(sorted(set(row))) for row in items["labels"][:]]
        labelled = [pair for pair in zip(names, labels, strict=True) if pair[1]]
        if not labelled:
            raise DataError(
                "curation.within_source.balance_labels: no training item has a label: name columns.labels in "
                "the card"
            )
        of_source, of_label = Counter(s for s, _ in labelled), Counter(y for _, y in labelled)
        of_both = Counter(labelled)
        weight = {(s, y): of_source[s] * of_label[y] / count for (s, y), count in of_both.items()}
        least = min(weight.values())
        times = {
            pair: int(np.clip(np.rint(value / least), 1, self.max_repeats)) for pair, value in weight.items()
        }
        return np.array([times.get(pair, 1) for pair in zip(names, labels, strict=True)], np.int64)
