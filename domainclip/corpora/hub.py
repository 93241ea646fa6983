"""A data set of the Hub, or one that was saved with `save_to_disk`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, IterableDatasetDict
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_CACHE

from domainclip.data import columns, files
from domainclip.data.cards import Card, Columns
from domainclip.data.quarantine import Journal
from domainclip.data.rows import Source, standardise
from domainclip.data.splits import said
from domainclip.errors import DataError, HubError

_CACHES = (datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)
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
        available = list(next(iter(source.values())).features)
        found = columns.resolve(card, available, str(path), journal)
        image = columns.require_image(found, available, str(path))
        rows = self._rows(source, str(path), image, found)
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
        # A stream of JSON or the like knows its columns only once a row was read.
        return (
            found
            if not self.streaming
            else found.__class__({k: v._resolve_features() for k, v in found.items()})
        )

    def _rows(
        self, source: DatasetDict | IterableDatasetDict, path: str, image: str, found: Columns
    ) -> Iterator[Source]:
        for split, rows in source.items():
            plain = rows.cast_column(image, datasets.Image(decode=False))
            # A source with one split says nothing: the card's shares divide it.
            own = said(str(split), f"split {split}") if len(source) > 1 and not found.split else None
            for number, row in enumerate(islice(plain, self.limit), start=1):
                place = f"{split} row {number}"
                picture = {"path": None, "bytes": None, **(row.pop(image) or {})}
                if picture["bytes"] is None and picture["path"]:
                    picture["path"] = str(files.inside(_root(path, picture["path"]), picture["path"], place))
                yield Source(
                    values={name: _named(value, rows.features[name]) for name, value in row.items()},
                    place=place,
                    image=picture,
                    name=place,
                    split=own,
                )


def _root(path: str, name: str) -> Path:
    """The folder that a file must lie in: the saved data set's, or a cache that its files were fetched to."""
    folders = [path] if Path(path).is_dir() else list(map(str, _CACHES))
    roots = [Path(folder).expanduser().resolve() for folder in folders]
    return next((root for root in roots if Path(name).is_relative_to(root)), roots[0])


def _named(value: Any, feature: Any) -> Any:
    """Numbers of classes as their names."""
    inner = getattr(feature, "feature", feature)
    if not isinstance(inner, ClassLabel):
        return value
    if isinstance(value, list):
        return [inner.int2str(one) for one in value]
    return None if value is None or value < 0 else inner.int2str(value)
