"""Balanced classes: frequent ones are subsampled, rare ones stay whole."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from domainclip.data.interfaces import Curation
from domainclip.errors import DataError
from domainclip.seeding import stable

if TYPE_CHECKING:
    from datasets import Dataset

    from domainclip.data.interfaces import Encoder


@dataclass(frozen=True, kw_only=True)
class Balance(Curation):
    """An item stays with probability max over its labels of min(1, max_per_class / frequency of the label).

    MetaCLIP's rule [arXiv:2309.16671]: labels with at most `max_per_class` items keep all of them, more
    frequent ones about that many, and an item with a rare label is never lost to a common one. Items without
    any label stay. A stable draw of each id selects the items, so that two runs agree. Costs nothing.
    """

    citation: ClassVar[str] = "arXiv:2309.16671"

    max_per_class: Annotated[int, Field(ge=1)]  # about this many items of each class stay
    seed: int = 0  # another seed selects other items

    def __call__(self, items: Dataset, base: Encoder | None = None) -> Dataset:
        """The selected items, in their order.

        Raises: DataError when no item has a label.
        """
        labels, ids = items["labels"][:], items["id"][:]
        counts = Counter(label for row in labels for label in set(row))
        if not counts:
            raise DataError("curation.balance: no training item has a label: name columns.labels in the card")
        selected = [
            index
            for index, (id, row) in enumerate(zip(ids, labels, strict=True))
            if not row
            or stable(self.seed, "balance", id) / 2**64
            < max(self.max_per_class / counts[label] for label in row)
        ]
        return items.select(selected, keep_in_memory=True)
