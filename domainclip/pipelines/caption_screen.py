"""Captions on their way into a prepared corpus, searched for what may identify a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from domainclip.data.cards import Card
from domainclip.data.corpus import Corpus
from domainclip.data.dicom.identifying_values import identifying_values
from domainclip.data.files import locations
from domainclip.data.schema import SPLITS
from domainclip.data.text.identifiers import (
    NOTHING_KNOWN,
    KnownValues,
    count_by_kind,
    find_identifiers,
    listed,
    redact,
)
from domainclip.errors import DataError

IdentifierPolicy = Literal["refuse", "redact", "keep"]
Row = dict[str, Any]
_MIN_NUMBER = 4  # characters of an id or a group that is searched in captions
_REMEDY = (
    "inspect them; then --identifiers redact replaces each by its kind in brackets, and --identifiers keep "
    "writes them unchanged"
)


@dataclass(frozen=True)
class CaptionScreen:
    """Searches the captions of a corpus whose card does not rule out persons (`privacy.identifiers: none`).

    Besides forms that identify anyone, it knows the ids of the item's row and, of a DICOM file, the names,
    numbers and dates of birth of its header.
    """

    card: Card
    policy: IdentifierPolicy
    dicom_files: frozenset[str] = frozenset()  # those of the corpus, whose headers are read
    counts: Counter[str] = field(default_factory=Counter)  # by kind: captions that hold any

    @property
    def searches(self) -> bool:
        """Whether captions are searched at all."""
        return self.card.privacy.identifiers != "none"

    def check(self, corpus: Corpus) -> None:
        """Refuse a stored corpus before anything of it is written, if the policy asks for it.

        Raises: DataError with the number of captions by kind; no value is named.
        """
        if self.policy == "refuse" and self.searches and corpus.stream is None:
            for split in SPLITS:
                for row in corpus.splits[split].remove_columns(["views"]):
                    self._count(row)
            self._refuse_if_any()

    def screened(self, rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
        """The rows as they may be written, and their captions with identifiers by kind.

        Raises: DataError where the policy is to refuse and there are any, as in a stream.
        """
        if not self.searches:
            return list(rows), Counter()
        if self.policy == "refuse":
            for row in rows:
                self._count(row)
            self._refuse_if_any()
            return list(rows), Counter()
        found: Counter[str] = Counter()
        return [self._row(row, found) for row in rows], found

    def _row(self, row: Row, found: Counter[str]) -> Row:
        known, texts = self._known(row), []
        for text in row["texts"]:
            identifiers = find_identifiers(text, known)
            found += count_by_kind(identifiers)
            texts.append(redact(text, identifiers) if self.policy == "redact" else text)
        return {**row, "texts": texts}

    def _count(self, row: Row) -> None:
        known = self._known(row)
        for text in row["texts"]:
            self.counts.update(count_by_kind(find_identifiers(text, known)))

    def _known(self, row: Row) -> KnownValues:
        path = row["image"]["path"]
        file = locations.resolve_location(path) if path else ""
        header = identifying_values(file) if file in self.dicom_files else NOTHING_KNOWN
        return replace(header, numbers=tuple(dict.fromkeys([*header.numbers, *_numbers(row)])))

    def _refuse_if_any(self) -> None:
        if self.counts:
            raise DataError(
                f"captions: {listed(self.counts)}: these may identify a person, and shards are passed on: "
                f"{_REMEDY}"
            )


def _numbers(row: Row) -> Iterator[str]:
    """Ids of the row that are numbers of records: long enough, and with a digit."""
    for value in (row["id"], row["group"], row["truth"]):
        if len(value) >= _MIN_NUMBER and any(letter.isdigit() for letter in value):
            yield value
