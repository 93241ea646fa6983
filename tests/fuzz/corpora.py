"""Reading a corpus in a room: the items and the unusable ones, without the cost of a data set on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from domainclip.data import rows
from domainclip.data.cards import Card
from domainclip.data.corpus import build_reader
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog, UnusableItem, check_max_unusable, count_reasons
from domainclip.data.rows import Item
from domainclip.data.schema import COLUMNS, features
from tests.fuzz.oracle import CANARY, Room

# In the name of every image of a room: it holds the secret, since file names may name people.
NAME = re.compile(rf"{CANARY}\d{{3}}")


def image_name(number: int, suffix: str = "png") -> str:
    """The name of the n-th image."""
    return f"{CANARY}{number:03d}.{suffix}"


@dataclass(frozen=True)
class Reading:
    """What a reader returned."""

    items: Sequence[Item]
    unusable: Sequence[UnusableItem]
    notes: Sequence[str]

    def names(self) -> set[str]:
        """The names of all images, of items, their views, and unusable items."""
        images = [image for item in self.items for image in (item.image, *item.views)]
        paths = [str(image["path"] or "") for image in images] + [item.id for item in self.items]
        return set(NAME.findall("\n".join([*paths, *(unusable.source for unusable in self.unusable)])))

    def unnamed(self) -> int:
        """The number of rows that are counted, but whose image has no name of this room."""
        sources = [str(item.image["path"] or "") + item.id for item in self.items]
        sources += [unusable.source for unusable in self.unusable]
        return sum(not NAME.search(source) for source in sources)


@pytest.fixture
def plain_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splits are lists of items: a data set costs 40 ms, and only the conversion of its values can fail."""

    def to_list(items: Sequence[Item]) -> list[Item]:
        columns = {name: [getattr(item, name) for item in items] for name in COLUMNS}
        columns["meta"] = [json.dumps(meta, ensure_ascii=False) for meta in columns["meta"]]
        pyarrow.Table.from_pydict(columns, schema=features().arrow_schema)
        return list(items)

    monkeypatch.setattr(rows, "to_dataset", to_list)


def observe(
    room: Room,
    card: Card,
    path: Path | str,
    given: object,
    secret: str | None = CANARY,
    reader: CorpusReader | None = None,
) -> Reading | None:
    """What a reader returns, also where the command then stops, because the card allows no unusable item."""
    readings: list[Reading] = []

    def call() -> None:
        log = ReadLog()
        splits: Any = (reader or build_reader(card)).read(card, path, log)
        items = [item for split in splits.values() for item in split]
        readings.append(Reading(items, log.unusable, log.notes))
        print(*log.notes, count_reasons(log.unusable), sep="\n")
        check_max_unusable(log.unusable, len(items) + len(log.unusable), card)

    room.observe(call, given, secret)
    return readings[0] if readings else None


def check_named(
    room: Room, reading: Reading, names: set[str], given: object, may_lack_names: bool = False
) -> None:
    """Every image that the source names is an item or an unusable one, and no caption holds a row.

    `may_lack_names`: a row whose name or its column is broken is counted, though without its name.
    """
    room.quarantined += len(reading.unusable)
    missing, unnamed = len(names - reading.names()), reading.unnamed() if may_lack_names else 0
    room.require(missing <= unnamed, "silent loss", "an image is neither an item nor unusable", given)
    inside = {name for caption in captions(reading) for name in NAME.findall(caption)}
    room.require(not inside & names, "silent loss", "a caption holds another row", given)


def captions(reading: Reading) -> list[str]:
    """Every caption and class name of the items."""
    return [text for item in reading.items for text in (*item.texts, *item.labels)]
