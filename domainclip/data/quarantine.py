"""What cannot be used, and why: every such item is counted, and named only where that is safe."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domainclip.data.cards import Card
from domainclip.errors import DataError

MAX_NAMED = 5  # how many items a message names


@dataclass(frozen=True)
class UnusableItem:
    """One item that cannot be used."""

    location: str  # "row 3", header not counted, or "file 3" in sorted order: says nothing of a patient
    reason: str  # a few words without values, so that equal faults are counted together
    source: str = ""  # the file: names of files name patients, so it goes to the local list only


@dataclass
class ReadLog:
    """What a reader has to say besides its rows."""

    notes: list[str] = field(default_factory=list)
    unusable: list[UnusableItem] = field(default_factory=list)
    locations: dict[str, str] = field(default_factory=dict)  # by id: where the row stood

    def add_note(self, text: str) -> None:
        """Keep a line for the user, once."""
        if text not in self.notes:
            self.notes.append(text)


def count_reasons(bad: Sequence[UnusableItem]) -> str:
    """ "10 empty caption, 2 truncated image": the commonest first."""
    tally = sorted(Counter(item.reason for item in bad).items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{n} {reason}" for reason, n in tally)


def check_max_unusable(bad: Sequence[UnusableItem], total: int, card: Card) -> None:
    """Stops when more of `total` items are bad than the card allows.

    Raises: DataError with the count of every reason, the first places, and a list to work from.
    """
    if not bad or (len(bad) <= card.max_unusable * total and len(bad) < total):
        return
    shown = [f"{item.location}{_named(item, card)} ({item.reason})" for item in bad[:MAX_NAMED]]
    more = f" and {len(bad) - MAX_NAMED} more" if len(bad) > MAX_NAMED else ""
    raise DataError(
        f"corpus {card.name}: {len(bad)} of {total} items are unusable ({len(bad) / total:.1%}, "
        f"limit {card.max_unusable:.1%}): {count_reasons(bad)}; first: {', '.join(shown)}{more}; "
        f"mend them or raise corpus.max_unusable{_list(bad, card)}"
    )


def write_unusable_list(bad: Sequence[UnusableItem], name: str) -> Path:
    """The file, readable by its owner only, that names every bad item."""
    folder = Path.home() / ".cache" / "domainclip"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"unusable-{Path(name).name}.tsv"
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(["place", "reason", "name"])
        writer.writerows([item.location, item.reason, item.source] for item in bad)
    return file


def _list(bad: Sequence[UnusableItem], card: Card) -> str:
    try:
        return f" (list: {write_unusable_list(bad, card.name)})"
    except OSError:  # the fault to tell of is another
        return ""


def _named(item: UnusableItem, card: Card) -> str:
    return f" {Path(item.source).name}" if item.source and card.names_may_show else ""
