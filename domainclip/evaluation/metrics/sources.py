"""Source and acquisition of items, and what a table of them alone would score.

Legend: n items, c classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from domainclip.data.checks.association import FrequencyTable, cross_validated
from domainclip.data.schema import ACQUISITION, SOURCE


@dataclass(frozen=True)
class ItemSources:
    """Source and acquisition of each item, "" where unknown."""

    sources: Sequence[str]  # (n,)
    acquisitions: Sequence[str]  # (n,)

    @staticmethod
    def of(items: Dataset | None) -> ItemSources:
        """Those of the items; none for no set."""
        metas = [json.loads(meta or "{}") for meta in items["meta"][:]] if items is not None else []
        return ItemSources(
            [str(meta.get(SOURCE, "")) for meta in metas], [str(meta.get(ACQUISITION, "")) for meta in metas]
        )

    @property
    def known(self) -> bool:
        """Whether some item has a source or an acquisition."""
        return any(self.sources) or any(self.acquisitions)

    @property
    def strata(self) -> np.ndarray:
        """(n,) the source of each item; the acquisition, where no item has a source."""
        return np.array(self.sources if any(self.sources) else self.acquisitions, dtype=str)

    @property
    def attributes(self) -> list[tuple[str, str]]:
        """(n,) source and acquisition, for a table of frequencies."""
        return list(zip(self.sources, self.acquisitions, strict=True))

    def take(self, rows: np.ndarray) -> ItemSources:
        """Those of some items."""
        return ItemSources([self.sources[i] for i in rows], [self.acquisitions[i] for i in rows])


def display_names(strata: Sequence[str], names_may_show: bool) -> Mapping[str, str]:
    """The name of each source in a report: as it is, or source 1, source 2 … in alphabetical order."""
    ordered = sorted({name for name in strata if name})
    shown = {name: name if names_may_show else f"source {i}" for i, name in enumerate(ordered, start=1)}
    return {**shown, "": "source not given"}


def table_scores(
    measured: ItemSources,
    groups: Sequence[str],
    labels: np.ndarray,
    fitted: tuple[ItemSources, np.ndarray] | None,
) -> tuple[np.ndarray, str]:
    """(n, c) the frequencies of the labels (n, c) by source and acquisition, and what they were fitted on.

    `fitted` are source, acquisition and labels of the training split; without it, the measured items are
    cross-validated, groups whole.
    """
    if fitted is not None and len(fitted[1]):
        table = FrequencyTable.fit(fitted[0].attributes, fitted[1])
        return table.predict(measured.attributes), f"the training split, {len(fitted[1])} items"
    return cross_validated(measured.attributes, labels, groups), "the measured items, cross-validated"
