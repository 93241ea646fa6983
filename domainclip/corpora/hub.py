"""A data set of the Hub, or one that was saved with `save_to_disk`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDatasetDict
from huggingface_hub import HfApi

from domainclip.data import columns
from domainclip.data.cards import Card, Columns
from domainclip.data.quarantine import Journal
from domainclip.data.rows import Source, standardise
from domainclip.data.splits import said
from domainclip.errors import DataError, HubError

_SAVED = ("dataset_dict.json", "dataset_info.json")


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Reads a Hub id, at a commit that is noted, or a folder of `save_to_disk`.

    Its own splits are kept; a lone one is divided by the card's shares. Rows are held in memory.
    """

    revision: str | None = None  # a commit or tag; null: the newest, whose commit is noted
    config: str | None = None
    streaming: bool = False  # fetch only the rows that are taken; needs `limit`
    limit: int | None = None  # the first rows of each split
    label_separator: str | None = None

    citation: ClassVar[str] = "datasets [arXiv:2109.02846]"

    def read(self, card: Card, path: Path | str, journal: Journal) -> DatasetDict:
        """Splits of the rows that are taken, in the source's order."""
        if self.streaming and self.limit is None:
            raise DataError("corpus.options.streaming: say how many rows to take: corpus.options.limit")
        source = self._source(str(path), journal)
        features = next(iter(source.values())).features or Features()
        available = list(features)
        found = columns.resolve(card, available, str(path), journal)
        image = columns.require_image(found, available, str(path))
        rows = self._rows(source, image, found, features)
        return standardise(rows, found, card, journal, self.label_separator)

    def _source(self, path: str, journal: Journal) -> DatasetDict | IterableDatasetDict:
        folder = Path(path)
        if folder.is_dir():
            if not any((folder / name).is_file() for name in _SAVED):
                raise DataError(f"{path}: no data set of save_to_disk: set corpus.reader=table or =folder")
            saved = datasets.load_from_disk(path)
            return DatasetDict(train=saved) if isinstance(saved, Dataset) else saved
        try:
            commit = self.revision
            if commit is None or not re.fullmatch("[0-9a-f]{40}", commit):
                commit = HfApi().dataset_info(path, revision=self.revision).sha
            found = datasets.load_dataset(path, self.config, revision=commit, streaming=self.streaming)
        except Exception as error:  # the errors are those of an HTTP library that changes with the client
            raise HubError(f"data set {path}: cannot be fetched: {str(error).splitlines()[0]}") from None
        journal.note(f"data set {path} at commit {commit}")
        return found

    def _rows(
        self, source: DatasetDict | IterableDatasetDict, image: str, found: Columns, features: Features
    ) -> Iterator[Source]:
        for split, rows in source.items():
            plain = rows.cast_column(image, datasets.Image(decode=False))
            # A source with one split says nothing: the card's shares divide it.
            own = said(str(split), f"split {split}") if len(source) > 1 and not found.split else None
            for number, row in enumerate(islice(plain, self.limit), start=1):
                cell = row.pop(image) or {}
                place = f"{split} row {number}"
                yield Source(
                    values={name: _named(value, features[name]) for name, value in row.items()},
                    place=place,
                    image={"path": cell.get("path"), "bytes": cell.get("bytes")},
                    name=place,
                    split=own,
                )


def _named(value: Any, feature: Any) -> Any:
    """Numbers of classes as their names."""
    inner = getattr(feature, "feature", feature)
    if not isinstance(inner, ClassLabel):
        return value
    if isinstance(value, list):
        return [inner.int2str(one) for one in value]
    return None if value is None or value < 0 else inner.int2str(value)
