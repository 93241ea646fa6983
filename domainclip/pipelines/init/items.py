"""The items of a drafted corpus, read once: their numbers, and the keys of the card that follow from them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from datasets import DatasetDict

from domainclip.data import splits as data_splits
from domainclip.data.cards import Card, Splits
from domainclip.data.corpus import build_reader
from domainclip.data.files import locations
from domainclip.data.images.digests import MISSING_FILE
from domainclip.data.quarantine import ReadLog, UnusableItem, count_reasons
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.schema import SPLITS

_MIN_GROUPS = 6  # of a split, below which no interval is given
_LARGER_SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}
_DEFAULT_MIN_ITEMS = 10
_DEFAULT_MAX_UNUSABLE = 0.01


@dataclass(frozen=True)
class Items:
    """The items of a corpus by its card; images are not decoded."""

    sizes: dict[str, int]  # by split
    groups: int
    classes: Counter[str]  # items of each class in training
    unusable: Sequence[UnusableItem]
    notes: Sequence[str]
    smallest: int = 0  # groups of validation or test, whichever has fewer
    divided: bool = False  # whether the shares of the card made the splits
    leak: str | None = None  # groups in several splits, in words

    @property
    def total(self) -> int:
        """The number of usable items."""
        return sum(self.sizes.values())

    def in_words(self) -> str:
        """The sizes on one line."""
        parts = ", ".join(f"{self.sizes[name]} {name}" for name in SPLITS)
        lost = (
            f"; {len(self.unusable)} cannot be used ({count_reasons(self.unusable)})" if self.unusable else ""
        )
        return f"{parts}; {self.groups} groups{lost}"


def read_items(card: Card, path: str) -> Items:
    """Read a corpus by its card, without its images.

    Raises: DataError.
    """
    log = ReadLog()
    splits = build_reader(card).read(card, path, log)
    missing = _missing(splits, log)
    groups = {name: splits[name]["group"][:] for name in SPLITS}
    places = {name: [log.locations.get(id, "item") for id in splits[name]["id"][:]] for name in SPLITS}
    return Items(
        {name: len(splits[name]) - missing[name] for name in SPLITS},
        len({group for of_split in groups.values() for group in of_split}),
        Counter(label for labels in splits["train"]["labels"][:] for label in labels),
        log.unusable,
        [*filter(None, [log.guesses]), *log.notes],
        min(len(set(groups[name])) for name in ("validation", "test")),
        log.divided,
        data_splits.describe_leak(groups, places),
    )


def _missing(splits: DatasetDict, log: ReadLog) -> Counter[str]:
    """The items whose image does not exist, by split; they are added to the unusable ones."""
    missing: Counter[str] = Counter()
    for name in SPLITS:
        rows = splits[name].select_columns(["id", "image"])
        for row in rows:
            path = row["image"]["path"]
            if (
                row["image"]["bytes"] is None
                and path
                and not os.path.exists(locations.split_location(path)[0])
            ):
                missing[name] += 1
                log.unusable.append(UnusableItem(log.locations.get(row["id"], "item"), MISSING_FILE, path))
    return missing


def guesses_of_items(items: Items, card: Card, ignored_split: bool) -> list[Guess]:
    """The keys that follow from the items; `ignored_split`: the split column is left out already."""
    guesses = []
    if card.columns.split and not ignored_split:
        if items.leak:
            reason = f"the column {card.columns.split} is not used: {items.leak.partition(';')[0]}"
            return [Guess("columns.split", "", reason)]
        if not items.sizes["train"]:
            return [
                Guess(
                    "columns.split", "", f"the column {card.columns.split} is not used: no item is in train"
                )
            ]
    if items.divided and items.smallest < _MIN_GROUPS <= items.groups // 2 and card.splits == Splits():
        reason = f"{items.groups} groups are few: with the usual shares one split has {items.smallest}"
        guesses.append(Guess("splits", _LARGER_SHARES, reason))
    lost = len(items.unusable)
    total = items.total + lost
    if lost > _DEFAULT_MAX_UNUSABLE * total and items.total:
        limit = ceil(1000 * lost / total + 1) / 1000
        reason = f"{lost} of {total} cannot be used: {count_reasons(items.unusable)}"
        guesses.append(Guess("max_unusable", limit, reason))
    frequent = sorted(items.classes.values(), reverse=True)
    if card.templates and len(frequent) > 1 and frequent[1] < _DEFAULT_MIN_ITEMS:
        guesses.append(Guess("min_items", max(1, frequent[1]), "few images of each class are in training"))
    return guesses


def has_path(path: str) -> bool:
    """Whether a path of this machine exists."""
    return Path(path).exists()
