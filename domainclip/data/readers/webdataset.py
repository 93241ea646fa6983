"""Tar shards as WebDataset lays them out: `KEY.jpg` beside `KEY.txt` or `KEY.json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, ClassVar

from datasets import DatasetDict
from pydantic import Field

from domainclip.data.cards import Card, Columns
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog, count_reasons
from domainclip.data.readers.sources import columns, tar_shards
from domainclip.data.rows import SourceRow, standardise
from domainclip.data.streaming import SAMPLE_SIZE, Stream
from domainclip.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Webdataset(CorpusReader):
    """Reads a folder of .tar files, one file, or a pattern such as `shard-{000..099}.tar`.

    Columns are the keys of each .json, `text` (the .txt), `label` (the .cls), `key` and `shard`. The split is
    the card's column, or stands in the name or folder of a shard (train-000.tar, val/000.tar), or is made of
    the card's shares. Local shards are indexed once and never extracted; remote ones are streamed.
    """

    streaming: bool = False  # one pass after the other, nothing kept; the only way for https:// and hf://
    buffer: Annotated[int, Field(ge=1)] = 2048  # of a stream: pairs held back for shuffling
    lanes: Annotated[int, Field(ge=1)] = 8  # of a stream: places that are read at once
    held_out: Annotated[int, Field(ge=1)] = 2000  # of a stream: validation and test items that are kept
    class_names: tuple[str, ...] = ()  # what the numbers of the .cls files mean
    label_separator: str | None = None

    citation: ClassVar[str] = "WebDataset [github.com/webdataset/webdataset]; POSIX.1-2001 (pax)"

    def read(self, card: Card, path: Path | str, log: ReadLog) -> DatasetDict:
        """Splits of all samples, in the order of the shards.

        Of a stream: a first sample of its training split, and of the others as many as `held_out` says.

        Raises: DataError for shards that are not there, or hold no pair.
        """
        found = tar_shards.list_shards(str(path), splits=not card.columns.split)
        if self.streaming:
            rows = self._kept(found, log)
        elif found[0].remote:
            raise DataError(
                "corpus.path: shards on another machine are streamed: set corpus.options.streaming=true"
            )
        else:
            rows = [self.named(row) for place in found for row in tar_shards.read_shard(place, log)]
        _refuse_nothing(rows, str(path), len(found), log)
        return standardise(rows, self._columns(card, rows, path, log), card, log, self.label_separator)

    def open_stream(self, card: Card, path: Path | str, log: ReadLog) -> Stream:
        """The training split, when it is streamed; the shards of other splits are no part of it.

        Raises: DataError for shards that are not there, or hold no pair.
        """
        if card.columns.split:
            raise DataError(
                "corpus.columns.split: a stream's splits stand in the names or folders of its shards, as in "
                "train-000.tar: leave it out"
            )
        found = [place for place in tar_shards.list_shards(str(path)) if place.split in (None, "train")]
        open_, known = _Shards(tuple(found), self), tar_shards.shard_sizes(found, log)
        first = [row for row in islice(_rows(open_, len(found)), SAMPLE_SIZE) if row is not None]
        _refuse_nothing(first, str(path), len(found), log)
        return Stream(
            shard_sizes=tuple(known),
            open_shard=open_,
            columns=self._columns(card, first, path, ReadLog()),
            card=card,
            shard_names=tuple(place.name for place in found),
            buffer=self.buffer,
            lanes=self.lanes,
            label_separator=self.label_separator,
        )

    def _kept(self, found: list[tar_shards.ShardFile], log: ReadLog) -> list[SourceRow]:
        """The rows of a stream that are held in memory, each with its split."""
        rows: list[SourceRow] = []
        for split, most in (("train", SAMPLE_SIZE), ("validation", self.held_out), ("test", self.held_out)):
            own = tuple(place for place in found if (place.split or "train") == split)
            taken = islice(_rows(_Shards(own, self), len(own), log), most)
            rows += [replace(row, split=split) for row in taken if row is not None]
            if split != "train" and len(own) and sum(row.split == split for row in rows) == most:
                log.add_note(
                    f"{split}: the first {most} items of a stream are measured (corpus.options.held_out)"
                )
        return rows

    def _columns(self, card: Card, rows: Sequence[SourceRow], path: Path | str, log: ReadLog) -> Columns:
        available = list(dict.fromkeys(name for row in rows for name in row.values))
        said = card.columns.model_copy(update={"image": ""})  # a sample's picture has no column
        if self.streaming:
            said = said.model_copy(update={"split": ""})
        return columns.resolve_columns(card.model_copy(update={"columns": said}), available, str(path), log)

    def named(self, row: SourceRow) -> SourceRow:
        """The row, the number of its class as its name."""
        label = str(row.values.get("label", ""))
        if not self.class_names or not label.isdecimal() or int(label) >= len(self.class_names):
            return row
        return replace(row, values={**row.values, "label": self.class_names[int(label)]})


@dataclass(frozen=True)
class _Shards:
    """Opens the shards of a stream; crosses to worker processes."""

    places: tuple[tar_shards.ShardFile, ...]
    reader: Webdataset

    def __call__(self, shard: int, start: int, log: ReadLog) -> Iterator[SourceRow | None]:
        for row in tar_shards.stream_shard(self.places[shard], start, log):
            yield None if row is None else self.reader.named(row)


def _rows(opened: _Shards, many: int, log: ReadLog | None = None) -> Iterator[SourceRow | None]:
    return chain.from_iterable(opened(shard, 0, log or ReadLog()) for shard in range(many))


def _refuse_nothing(rows: Sequence[SourceRow], path: str, many: int, log: ReadLog) -> None:
    if rows:
        return
    found = f": {count_reasons(log.unusable)}" if log.unusable else ""
    more = f"; {log.notes[0]}" if log.notes else ""
    raise DataError(
        f"{path}: no KEY.jpg with a KEY.txt, .json or .cls in {many} shard{'s'[: many != 1]}{found}{more}"
    )
