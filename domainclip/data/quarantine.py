"""Items that cannot be used, with the reason: each is counted, and named only where that is safe."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

from domainclip.data.cards import Card
from domainclip.errors import DataError

MAX_NAMED = 5  # items that a message names


@dataclass(frozen=True)
class UnusableItem:
    """One item that cannot be used."""

    location: str  # "row 3", header not counted, or "file 3" in sorted order: identifies no patient
    reason: str  # a few words without values, so that equal faults are counted together
    source: str = ""  # the file: file names can name patients, so it goes to the local list only


@dataclass
class ReadLog:
    """Notes and unusable items that a reader collects besides its rows."""

    notes: list[str] = field(default_factory=list)
    unusable: list[UnusableItem] = field(default_factory=list)
    locations: dict[str, str] = field(default_factory=dict)  # by id: the location of the row in the source
    counts: Counter[str] = field(default_factory=Counter)  # by the text of a note that begins with a number
    guessed: dict[str, str] = field(default_factory=dict)  # the columns that no card names, by role
    training: bool = True  # whether the training split is trained on, and so needs captions
    divided: bool = False  # whether the card's shares decided the split of every row: the source names none

    @property
    def guesses(self) -> str:
        """One line with the columns that were guessed, and how to name others; empty without any."""
        if not self.guessed:
            return ""
        listed = ", ".join(f"{role} {column}" for role, column in self.guessed.items())
        first = next(iter(self.guessed))
        return f"columns guessed from their names: {listed} (corpus.columns.{first}=COLUMN names another)"

    def add_note(self, text: str) -> None:
        """Add a line for the user, once."""
        if text not in self.notes:
            self.notes.append(text)

    def add_count(self, number: int, text: str) -> None:
        """Add to the number that a line for the user begins with: "3 members .npy are not read"."""
        before = f"{self.counts[text]} {text}"
        self.counts[text] += number
        after = f"{self.counts[text]} {text}"
        if before in self.notes:
            self.notes[self.notes.index(before)] = after
        else:
            self.notes.append(after)


def count_reasons(unusable: Sequence[UnusableItem]) -> str:
    """ "10 empty caption, 2 truncated image": the most frequent first."""
    tally = sorted(Counter(item.reason for item in unusable).items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{n} {reason}" for reason, n in tally)


def check_max_unusable(unusable: Sequence[UnusableItem], total: int, card: Card) -> None:
    """Stop when more of `total` items are unusable than the card allows.

    Raises: DataError with the count of every reason, the first locations, and the path of the full list.
    """
    n = len(unusable)
    if not n or (n <= card.max_unusable * total and n < total):
        return
    named = [f"{item.location}{_file_name(item, card)} ({item.reason})" for item in unusable[:MAX_NAMED]]
    more = f" and {n - MAX_NAMED} more" if n > MAX_NAMED else ""
    raise DataError(
        f"corpus {card.name}: {n} of {total} items are unusable ({n / total:.1%}, limit "
        f"{card.max_unusable:.1%}): {count_reasons(unusable)}; first: {', '.join(named)}{more}; "
        f"{raise_max_unusable(n, total)}{_list_path(unusable, card)}"
    )


def raise_max_unusable(unusable: int, total: int) -> str:
    """The remedy for too many unusable items; no limit helps when all of them are."""
    if unusable == total:
        return "repair them, or check corpus.path, corpus.columns and corpus.options: no item is usable"
    thousandths = ceil(1000 * unusable / total)  # the limit as typed is enough
    while thousandths / 1000 * total < unusable:  # 0.29 of 100 is less than 29, in floats
        thousandths += 1
    return f"repair them or raise corpus.max_unusable to {thousandths / 1000:g}"


def write_unusable_list(unusable: Sequence[UnusableItem], name: str) -> Path:
    """Write every unusable item to a file that only its owner can read; its path."""
    folder = Path.home() / ".cache" / "domainclip"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"unusable-{Path(name).name}.tsv"
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    # A name of a file may hold bytes that are no text.
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(["location", "reason", "source"])
        writer.writerows([item.location, item.reason, item.source] for item in unusable)
    return file


def _list_path(unusable: Sequence[UnusableItem], card: Card) -> str:
    try:
        return f" (list: {write_unusable_list(unusable, card.name)})"
    except OSError:  # the fault to report is another
        return ""


def _file_name(item: UnusableItem, card: Card) -> str:
    return f" {Path(item.source).name}" if item.source and card.names_may_show else ""
