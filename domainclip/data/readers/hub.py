"""A data set of the Hub, or one that was saved with `save_to_disk`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, IterableDatasetDict, Value
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_CACHE
from pydantic import Field

from domainclip.data.cards import Card, Columns
from domainclip.data.files import corpus_folder
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.sources import columns, parquet
from domainclip.data.readers.sources.parquet import ParquetShards
from domainclip.data.rows import SourceRow, standardise
from domainclip.data.splits import parse_split
from domainclip.data.streaming import SAMPLE_SIZE, Stream
from domainclip.errors import DataError, HubError

_CACHES = (datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)
_SAVED = ("dataset_dict.json", "dataset_info.json")


@dataclass(frozen=True, kw_only=True)
class Hub(CorpusReader):
    """Reads a Hub id, at a commit that is noted, or a folder of `save_to_disk`.

    Its own splits are kept; a lone one is divided by the card's shares. Rows are held in memory,
    unless they are streamed.
    """

    revision: str | None = None  # a commit or tag; null: the newest, whose commit is noted
    config: str | None = None
    streaming: bool = False  # with `limit`, fetch only those rows; without, every epoch reads all again
    limit: int | None = None  # the first rows of each split
    buffer: Annotated[int, Field(ge=1)] = 2048  # of a stream: pairs held back for shuffling
    lanes: Annotated[int, Field(ge=1)] = 8  # of a stream: places that are read at once
    held_out: Annotated[int, Field(ge=1)] = 2000  # of a stream: validation and test rows that are kept
    label_separator: str | None = None

    citation: ClassVar[str] = "datasets [arXiv:2109.02846]"

    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """Splits of the rows that are taken, in the source's order."""
        source = self._source(str(path), log)
        available = list(next(iter(source.values())).features)
        found = columns.resolve_columns(card, available, str(path), log)
        image = columns.require_image_column(found, available, str(path))
        rows = self._rows(source, str(path), image, found)
        return standardise(rows, found, card, log, self.label_separator)

    def open_stream(self, card: Card, path: Path | str, log: ReadLog) -> Stream | None:
        """The training split when it is streamed whole; its other splits are read, up to `held_out` rows.

        Raises: DataError for a data set that is not stored as Parquet, or has one split only.
        """
        if self.limit is not None or Path(path).is_dir():  # a part, or what is stored already
            return None
        builder = _builder(str(path), self.config, self._commit(str(path)))
        by_name = builder.config.data_files or {}
        files = {parse_split(str(split), f"split {split}"): own for split, own in by_name.items()}
        way_out = "take a part of it with corpus.options.limit, or set corpus.options.streaming=false"
        if builder.name == "webdataset":
            raise DataError(
                f"data set {path}: holds tar shards: read them with corpus.reader=webdataset "
                f"corpus.path=hf://datasets/{path}/NAME-{{000..099}}.tar"
            )
        if builder.name != "parquet":
            raise DataError(f"data set {path}: only Parquet is streamed, not {builder.name}: {way_out}")
        if len(files) < 2 or "train" not in files:
            raise DataError(f"data set {path}: a stream is not divided, and this has one split: {way_out}")
        names = tuple(map(str, files["train"]))
        features = builder.info.features or parquet.read_features(names[0])
        found = columns.resolve_columns(card, list(features), str(path), ReadLog())
        opened = ParquetShards(names, columns.require_image_column(found, list(features), str(path)))
        return Stream(
            shard_sizes=opened.counts(),
            open_shard=_Named(opened, features),
            columns=found,
            card=card,
            shard_names=opened.names,
            buffer=self.buffer,
            lanes=self.lanes,
            label_separator=self.label_separator,
        )

    def _source(self, path: str, log: ReadLog) -> DatasetDict | IterableDatasetDict:
        folder = Path(path)
        if folder.is_dir():
            if not any((folder / name).is_file() for name in _SAVED):
                raise DataError(f"{path}: no data set of save_to_disk: set corpus.reader=table or =folder")
            return _saved(path)
        try:
            commit = self._commit(path)
            found = datasets.load_dataset(path, self.config, revision=commit, streaming=self.streaming)
        except Exception as error:  # the errors are those of an HTTP library that changes with the client
            raise HubError(f"data set {path}: cannot be fetched: {str(error).splitlines()[0]}") from None
        log.add_note(f"data set {path} at commit {commit}")
        # A stream of JSON or the like knows its columns only once a row was read.
        return (
            found
            if not self.streaming
            else found.__class__({k: v._resolve_features() for k, v in found.items()})
        )

    def _commit(self, path: str) -> str | None:
        if self.revision is not None and re.fullmatch("[0-9a-f]{40}", self.revision):
            return self.revision
        found: str | None = HfApi().dataset_info(path, revision=self.revision).sha
        return found

    def _rows(
        self, source: DatasetDict | IterableDatasetDict, path: str, image: str, found: Columns
    ) -> Iterator[SourceRow]:
        for split, rows in source.items():
            plain = _undecoded(rows, image, path)
            # A source with one split says nothing: the card's shares divide it.
            own = parse_split(str(split), f"split {split}") if len(source) > 1 and not found.split else None
            most = self.limit
            if self.streaming and most is None:
                most = SAMPLE_SIZE if own == "train" else self.held_out
            for number, row in enumerate(islice(plain, most), start=1):
                place = f"{split} row {number}"
                picture = {"path": None, "bytes": None, **(row.pop(image) or {})}
                if picture["bytes"] is None and picture["path"]:
                    picture["path"] = str(
                        corpus_folder.path_inside(_root(path, picture["path"]), picture["path"], place)
                    )
                yield SourceRow(
                    values={name: _named(value, rows.features[name]) for name, value in row.items()},
                    location=place,
                    image=picture,
                    name=place,
                    split=own,
                )


def _saved(path: str) -> DatasetDict:
    try:
        saved = datasets.load_from_disk(path)
    except Exception as error:  # whatever its files lack
        reason = type(error).__name__
        raise DataError(f"{path}: not whole ({reason}): save the data set again") from None
    if not len(saved):
        raise DataError(f"{path}: an empty data set: save it again")
    return DatasetDict(train=saved) if isinstance(saved, Dataset) else saved


def _undecoded(rows: Any, image: str, path: str) -> Any:
    """The rows with the files of their pictures."""
    kind = getattr(rows.features[image], "dtype", "")
    try:
        if kind not in ("string", "large_string", "binary", "large_binary", "null") and isinstance(
            rows.features[image], Value
        ):
            raise TypeError(kind)
        return rows.cast_column(image, datasets.Image(decode=False))
    except Exception:
        raise DataError(
            f'{path}: column "{image}" holds no pictures ({kind or "another kind"}): set corpus.columns.image'
        ) from None


def _builder(path: str, config: str | None, revision: str | None) -> Any:
    try:
        return datasets.load_dataset_builder(path, config, revision=revision)
    except Exception as error:  # the errors are those of an HTTP library that changes with the client
        raise HubError(f"data set {path}: cannot be fetched: {str(error).splitlines()[0]}") from None


@dataclass(frozen=True)
class _Named:
    """Rows of Parquet files, numbers of classes as their names."""

    rows: ParquetShards
    features: Any

    def __call__(self, shard: int, start: int, log: ReadLog) -> Iterator[SourceRow | None]:
        for row in self.rows(shard, start, log):
            if row is None:
                yield None
            else:
                named = {name: _named(value, self.features[name]) for name, value in row.values.items()}
                yield replace(row, values=named)


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
