"""A data set of the Hugging Face Hub, or one saved with `save_to_disk`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, IterableDatasetDict, Value
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_CACHE
from pydantic import Field

from domainclip.config import offline
from domainclip.data.cards import Card
from domainclip.data.files import corpus_folder, hub_answers, tables
from domainclip.data.files.column_names import column_name
from domainclip.data.files.column_roles import Columns
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.readers.sources import arrow_images, columns, parquet
from domainclip.data.readers.sources.image_cells import image_from_cell
from domainclip.data.readers.sources.parquet import ParquetShards
from domainclip.data.rows import SourceRow, standardise
from domainclip.data.splits import parse_split
from domainclip.data.streaming import SAMPLE_SIZE, Stream
from domainclip.data.text.cells import CellFault, of_column
from domainclip.errors import DataError, DomainclipError, HubError

_CACHES = (datasets.config.HF_CACHE_HOME, datasets.config.HF_DATASETS_CACHE, HF_HUB_CACHE)
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SAVED = ("dataset_dict.json", "dataset_info.json")


@dataclass(frozen=True, kw_only=True)
class Hub(CorpusReader):
    """Reads a Hub id at a commit, which is logged, or a folder of `save_to_disk`, where images stay on disk.

    Its splits are used as they are; a single one is divided by the card's shares.
    """

    revision: str | None = None  # a commit or tag; null: the newest commit, which is logged
    # The name of a configuration, for a data set that has several; null: its default.
    config: str | None = None
    streaming: bool = False  # with `limit`, only those rows are fetched; without, every epoch reads all again
    limit: int | None = None  # the first rows of each split
    buffer: Annotated[int, Field(ge=1)] = 2048  # of a stream: pairs in memory for shuffling
    lanes: Annotated[int, Field(ge=1)] = 8  # of a stream: positions that are read at once
    held_out: Annotated[int, Field(ge=1)] = 2000  # of a stream: validation and test rows that are read
    label_separator: str | None = None  # "|" when a cell may hold several classes, as in a|b

    citation: ClassVar[str] = "datasets [arXiv:2109.02846]"

    def check_source(self, card: Card, path: Path | str) -> None:
        """Check a path that exists on this machine, or can be no name of the Hub; nothing is asked there."""
        if Path(path).exists() or not _HUB_ID.fullmatch(str(path)):
            _require_saved(path)

    def source_files(self, card: Card, path: Path | str) -> list[Path] | None:
        """The files of a folder of `save_to_disk`; None for a data set of the Hub."""
        folder = Path(path)
        return sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else None

    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """Splits of the selected rows, in the source's order."""
        source = _with_column_names(self.source(str(path), log))
        available = list(next(iter(source.values())).features)
        roles = columns.resolve_columns(card, available, str(path), log)
        image = columns.require_image_column(roles, available, str(path))
        in_place = not card.captions.merge_captions  # rows are merged by the bytes of their image
        rows = self._rows(_selected(source, card, roles), str(path), image, roles, log, in_place)
        with tables.named_in_errors(f"data set {path}"):
            return standardise(rows, roles, card, log, self.label_separator)

    def open_stream(self, card: Card, path: Path | str, log: ReadLog) -> Stream | None:
        """The training split when it is streamed whole; its other splits are read, up to `held_out` rows.

        Raises: DataError for a data set that is not stored as Parquet, or has one split only.
        """
        if self.limit is not None or Path(path).is_dir():  # only some rows, or stored locally
            return None
        builder = _builder(str(path), self.config, self._commit(str(path)))
        by_name = builder.config.data_files or {}
        files = {parse_split(str(split), f"split {split}"): names for split, names in by_name.items()}
        remedy = "read some rows with corpus.options.limit, or set corpus.options.streaming=false"
        if builder.name == "webdataset":
            raise DataError(
                f"data set {path}: holds tar shards: read them with corpus.reader=webdataset "
                f"corpus.path=hf://datasets/{path}/NAME-{{000..099}}.tar"
            )
        if builder.name != "parquet":
            raise DataError(f"data set {path}: only Parquet can be streamed, not {builder.name}: {remedy}")
        if len(files) < 2 or "train" not in files:
            raise DataError(f"data set {path}: a stream cannot be divided, and this has one split: {remedy}")
        names = tuple(map(str, files["train"]))
        features = builder.info.features or parquet.read_features(names[0])
        roles = columns.resolve_columns(card, list(features), str(path), ReadLog())
        shards = ParquetShards(names, columns.require_image_column(roles, list(features), str(path)))
        return Stream(
            shard_sizes=shards.counts(),
            open_shard=_WithClassNames(shards, features),
            columns=roles,
            card=card,
            shard_names=shards.names,
            buffer=self.buffer,
            lanes=self.lanes,
            label_separator=self.label_separator,
        )

    def source(self, path: str, log: ReadLog) -> DatasetDict | IterableDatasetDict:
        """The data set as its library reads it, by split.

        Raises: DataError for a folder that holds none; HubError for one that cannot be fetched.
        """
        folder = Path(path)
        if folder.exists():
            _require_saved(folder)
            return _saved(path)
        try:
            commit = self._commit(path)
            loaded = datasets.load_dataset(path, self.config, revision=commit, streaming=self.streaming)
        except DomainclipError:
            raise
        except Exception as error:  # the errors are those of an HTTP library that changes with the client
            raise HubError(
                f"data set {path}: cannot be fetched: {hub_answers.explain(error, 'try again')}"
            ) from None
        log.add_note(f"data set {path} at commit {commit}")
        # A stream of JSON and similar formats has columns only after a row is read.
        return (
            loaded
            if not self.streaming
            else loaded.__class__({k: v._resolve_features() for k, v in loaded.items()})
        )

    def _commit(self, path: str) -> str | None:
        fetched = f'run "hf download --repo-type dataset {path} --local-dir FOLDER" where there is a network'
        offline.refuse_if_offline(
            f"data set {path}", f"{fetched}, and read its files with corpus.path=FOLDER"
        )
        if self.revision is not None and re.fullmatch("[0-9a-f]{40}", self.revision):
            return self.revision
        commit: str | None = HfApi().dataset_info(path, revision=self.revision).sha
        return commit

    def _rows(
        self,
        source: DatasetDict | IterableDatasetDict,
        path: str,
        image: str,
        roles: Columns,
        log: ReadLog,
        in_place: bool,
    ) -> Iterator[SourceRow]:
        for split, rows in source.items():
            stored = rows if in_place else None
            located = arrow_images.located_rows(_undecoded(rows, image, path), stored, image)
            # A source with one split is divided by the card's shares.
            own_split = (
                parse_split(str(split), f"split {split}") if len(source) > 1 and not roles.split else None
            )
            limit = self.limit
            if self.streaming and limit is None:
                limit = SAMPLE_SIZE if own_split == "train" else self.held_out
            for number, (row, place) in enumerate(islice(located, limit), start=1):
                location = f"{split} row {number}"
                try:
                    in_file = {"path": place, "bytes": None}
                    cell = in_file if place else of_column(image_from_cell, row, image)
                    values = _named_classes(row, rows.features, image)
                except CellFault as fault:
                    log.unusable.append(UnusableItem(location, str(fault)))
                    continue
                if cell["bytes"] is None and cell["path"] and not place:
                    name, where = cell["path"], f"{location}, column {image}"
                    cell["path"] = str(corpus_folder.path_inside(_root(path, name), name, where))
                yield SourceRow(values, location, cell, name=location, split=own_split)


def _require_saved(path: Path | str) -> None:
    """Refuse what is not a folder of `save_to_disk`.

    Raises: DataError.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"{path}: no such folder, and not a name that the Hub could have: check corpus.path")
    if place.is_file():
        reader = "webdataset" if place.suffix == ".tar" else "table"
        raise DataError(f"{path}: a file, and no data set of save_to_disk: set corpus.reader={reader}")
    if not any((place / name).is_file() for name in _SAVED):
        raise DataError(f"{path}: not a data set of save_to_disk: set corpus.reader=table or =folder")


def _with_column_names(source: DatasetDict | IterableDatasetDict) -> DatasetDict | IterableDatasetDict:
    """The source with its columns named by `column_name`."""
    names = {name: column_name(name) for name in next(iter(source.values())).features}
    changed = {name: new for name, new in names.items() if name != new and new not in names}
    return source.rename_columns(changed) if changed else source


def _selected(
    source: DatasetDict | IterableDatasetDict, card: Card, roles: Columns
) -> DatasetDict | IterableDatasetDict:
    """The source with the columns that are used: others may hold images, sounds or values that break."""
    features = next(iter(source.values())).features
    used = {*columns.named_columns(card.model_copy(update={"columns": roles})), "text", "label"}
    names = [name for name in features if name in used]
    return source if len(names) == len(features) else source.select_columns(names)


def _saved(path: str) -> DatasetDict:
    try:
        saved = datasets.load_from_disk(path)
    except Exception as error:  # of any kind, for missing or broken files
        reason = type(error).__name__
        raise DataError(f"{path}: incomplete ({reason}): save the data set again") from None
    if not len(saved):
        raise DataError(f"{path}: the data set is empty: save it again")
    return DatasetDict(train=saved) if isinstance(saved, Dataset) else saved


def _undecoded(rows: Any, image: str, path: str) -> Any:
    """The rows with the bytes of their images, not decoded."""
    kind = getattr(rows.features[image], "dtype", "")
    try:
        if kind not in ("string", "large_string", "binary", "large_binary", "null") and isinstance(
            rows.features[image], Value
        ):
            raise TypeError(kind)
        return rows.cast_column(image, datasets.Image(decode=False))
    except Exception:
        raise DataError(
            f'{path}: column "{image}" holds no images ({kind or "another kind"}): set corpus.columns.image'
        ) from None


def _builder(path: str, config: str | None, revision: str | None) -> Any:
    try:
        return datasets.load_dataset_builder(path, config, revision=revision)
    except Exception as error:  # the errors are those of an HTTP library that changes with the client
        raise HubError(
            f"data set {path}: cannot be fetched: {hub_answers.explain(error, 'try again')}"
        ) from None


@dataclass(frozen=True)
class _WithClassNames:
    """Rows of Parquet files with class names instead of numbers."""

    shards: ParquetShards
    features: Any

    def __call__(self, shard: int, start: int, log: ReadLog) -> Iterator[SourceRow | None]:
        for row in self.shards(shard, start, log):
            try:
                yield row and replace(row, values=_named_classes(row.values, self.features))
            except CellFault as fault:
                log.unusable.append(UnusableItem(row.location if row else "", str(fault)))
                yield None


def _root(path: str, name: str) -> Path:
    """The folder that must contain a file: the saved data set, or a cache that its files were fetched to."""
    folders = [path] if Path(path).is_dir() else list(map(str, _CACHES))
    roots = [Path(folder).expanduser().resolve() for folder in folders]
    return next((root for root in roots if Path(name).is_relative_to(root)), roots[0])


def _named_classes(row: Mapping[str, Any], features: Any, without: str = "") -> dict[str, Any]:
    """The values of a row, without one column, and with class names instead of numbers."""
    return {
        name: of_column(partial(_class_names, features[name]), row, name) for name in row if name != without
    }


def _class_names(feature: Any, value: Any) -> Any:
    """The names of class numbers; any other value unchanged.

    Raises: CellFault for a number without a name.
    """
    inner = getattr(feature, "feature", feature)
    if not isinstance(inner, ClassLabel) or value is None:
        return value
    numbers = value if isinstance(value, list) else [value]
    try:
        names = [inner.int2str(number) for number in numbers if number is not None and number >= 0]
    except (ValueError, TypeError):
        raise CellFault("a class number without a name") from None
    return names if isinstance(value, list) else next(iter(names), None)
