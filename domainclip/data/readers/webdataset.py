"""Tar shards as WebDataset lays them out: `KEY.jpg` next to `KEY.txt` or `KEY.json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, ClassVar

from datasets import DatasetDict
from pydantic import Field

from domainclip.data.cards import Card
from domainclip.data.files import object_stores
from domainclip.data.files.column_roles import Columns
from domainclip.data.files.freed_memory import drain
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog, count_reasons
from domainclip.data.readers.sources import columns, tar_shards
from domainclip.data.readers.sources.shard_files import ShardFile, list_shards
from domainclip.data.rows import SourceRow, standardise
from domainclip.data.streaming import SAMPLE_SIZE, Stream
from domainclip.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Webdataset(CorpusReader):
    """Reads a folder of .tar files, one file, or a pattern such as `shard-{000..099}.tar`.

    Columns are the keys of each .json, `text` (the .txt), `label` (the .cls), `key` and `shard`. The split is
    the card's column, or is in the name or folder of a shard (train-000.tar, val/000.tar), or follows from
    the card's shares. Local shards are indexed once and never extracted; remote ones are streamed.
    """

    streaming: bool = False  # read again in every epoch, not stored; required for addresses
    buffer: Annotated[int, Field(ge=1)] = 2048  # of a stream: pairs in memory for shuffling
    lanes: Annotated[int, Field(ge=1)] = 8  # of a stream: positions that are read at once
    held_out: Annotated[int, Field(ge=1)] = 2000  # of a stream: validation and test items that are read
    # Whether shards and folders name splits; false: the card's shares divide the samples.
    split_names: bool = True
    class_names: tuple[str, ...] = ()  # the names of the class numbers in .cls files
    label_separator: str | None = None  # "|" when a text may hold several classes, as in a|b

    citation: ClassVar[str] = "WebDataset [github.com/webdataset/webdataset]; POSIX.1-2001 (pax)"

    def check_source(self, card: Card, path: Path | str) -> None:
        """Check the address of an object store; a list of shards is found by `read`.

        Raises: RecipeError or HubError.
        """
        object_stores.check_address(str(path))

    def source_files(self, card: Card, path: Path | str) -> list[Path] | None:
        """The shards; None where they lie on another machine."""
        shards = list_shards(str(path), splits=self.split_names and not card.columns.split)
        return None if shards[0].remote else [Path(shard.address) for shard in shards]

    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """Splits of all samples, in the order of the shards.

        Of a stream: a first sample of its training split, and `held_out` items of each other split.

        Raises: DataError for missing shards, or shards without any pair.
        """
        shards = list_shards(str(path), splits=self.split_names and not card.columns.split)
        if self.streaming:
            rows = self._sample(shards, log)
        elif shards[0].remote:
            raise DataError(
                "corpus.path: shards on another machine are streamed: set corpus.options.streaming=true"
            )
        else:
            rows = [
                self.with_class_name(row) for shard in shards for row in tar_shards.read_shard(shard, log)
            ]
        _refuse_empty(rows, str(path), len(shards), log)
        resolved = self._columns(card, rows, path, log)
        return standardise(drain(rows), resolved, card, log, self.label_separator)

    def open_stream(self, card: Card, path: Path | str, log: ReadLog) -> Stream:
        """The training split, when it is streamed; the shards of other splits are no part of it.

        Raises: DataError for missing shards, or shards without any pair.
        """
        if card.columns.split:
            raise DataError(
                "corpus.columns.split: the splits of a stream are in the names or folders of its shards, as "
                "in train-000.tar: leave it out"
            )
        shards = [shard for shard in list_shards(str(path)) if shard.split in (None, "train")]
        open_shard, sizes = _Shards(tuple(shards), self), tar_shards.shard_sizes(shards, log)
        first = [row for row in islice(_rows(open_shard, len(shards)), SAMPLE_SIZE) if row is not None]
        _refuse_empty(first, str(path), len(shards), log)
        return Stream(
            shard_sizes=tuple(sizes),
            open_shard=open_shard,
            columns=self._columns(card, first, path, ReadLog()),
            card=card,
            shard_names=tuple(shard.name for shard in shards),
            buffer=self.buffer,
            lanes=self.lanes,
            label_separator=self.label_separator,
        )

    def _sample(self, shards: list[ShardFile], log: ReadLog) -> list[SourceRow]:
        """The rows of a stream that are read into memory, each with its split."""
        rows: list[SourceRow] = []
        for split, limit in (("train", SAMPLE_SIZE), ("validation", self.held_out), ("test", self.held_out)):
            of_split = tuple(shard for shard in shards if (shard.split or "train") == split)
            first = islice(_rows(_Shards(of_split, self), len(of_split), log), limit)
            rows += [replace(row, split=split) for row in first if row is not None]
            if split != "train" and of_split and sum(row.split == split for row in rows) == limit:
                log.add_note(
                    f"{split}: the first {limit} items of a stream are used (corpus.options.held_out)"
                )
        return rows

    def _columns(self, card: Card, rows: Sequence[SourceRow], path: Path | str, log: ReadLog) -> Columns:
        available = list(dict.fromkeys(name for row in rows for name in row.values))
        card_columns = card.columns.model_copy(update={"image": ""})  # the image of a sample has no column
        if self.streaming:
            card_columns = card_columns.model_copy(update={"split": ""})
        return columns.resolve_columns(
            card.model_copy(update={"columns": card_columns}), available, str(path), log
        )

    def with_class_name(self, row: SourceRow) -> SourceRow:
        """The row with the name of its class instead of the number."""
        label = str(row.values.get("label", ""))
        if not self.class_names or not label.isdecimal() or int(label) >= len(self.class_names):
            return row
        return replace(row, values={**row.values, "label": self.class_names[int(label)]})


@dataclass(frozen=True)
class _Shards:
    """Opens the shards of a stream; workers can unpickle it."""

    shards: tuple[ShardFile, ...]
    reader: Webdataset

    def __call__(self, shard: int, start: int, log: ReadLog) -> Iterator[SourceRow | None]:
        for row in tar_shards.stream_shard(self.shards[shard], start, log):
            yield None if row is None else self.reader.with_class_name(row)


def _rows(open_shard: _Shards, count: int, log: ReadLog | None = None) -> Iterator[SourceRow | None]:
    return chain.from_iterable(open_shard(shard, 0, log or ReadLog()) for shard in range(count))


def _refuse_empty(rows: Sequence[SourceRow], path: str, shards: int, log: ReadLog) -> None:
    if rows:
        return
    reasons = f": {count_reasons(log.unusable)}" if log.unusable else ""
    note = f"; {log.notes[0]}" if log.notes else ""
    raise DataError(
        f"{path}: no KEY.jpg with a KEY.txt, .json or .cls in {shards} shard{'s'[: shards != 1]}"
        f"{reasons}{note}"
    )
