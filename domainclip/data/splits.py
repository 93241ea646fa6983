"""The split that a group belongs to, and groups that are in two splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

from domainclip.data.cards import Splits
from domainclip.errors import DataError

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "restval": "train",  # of the Karpathy splits of COCO
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def split_of(group: str, splits: Splits) -> str:
    """train, validation or test, by a stable hash of the group's name: adding items moves no group."""
    digest = hashlib.blake2b(f"{splits.seed}\0{group}".encode(), digest_size=8).digest()
    fraction = int.from_bytes(digest, "big") / 2**64
    if fraction < splits.train:
        return "train"
    # A share of zero stays empty, whatever the rounding at its edge.
    return "validation" if fraction < splits.train + splits.validation or splits.test == 0 else "test"


def split_by_source(sources: Sequence[str], groups: Sequence[str], splits: Splits) -> list[str]:
    """The split of each item, with one source as the test split, and the other sources divided by group.

    A group with an item of that source is in the test split as a whole, so that it is not trained on. Items
    without a source are of no source that can be held out.

    Raises: DataError for fewer than two sources, or when there is no such source; no source is named.
    """
    names = sorted({source for source in sources if source})
    if len(names) < 2:
        raise DataError(
            f"corpus.splits.by: source needs two sources or more, and corpus.columns.source has {len(names)}"
            ": name another column, or use splits.by=group"
        )
    chosen = splits.test_source
    if isinstance(chosen, int) and str(chosen) not in names:
        held_out = names[chosen - 1] if 1 <= chosen <= len(names) else ""
    else:
        held_out = str(chosen) if str(chosen) in names else ""
    if not held_out:
        raise DataError(
            f"corpus.splits.test_source: not one of the {len(names)} sources: give the name of one, or its "
            f"place in their alphabetical order, 1 to {len(names)}"
        )
    in_test = {group for source, group in zip(sources, groups, strict=True) if source == held_out}
    validation = splits.validation / (splits.train + splits.validation)
    rest = splits.model_copy(update={"train": 1 - validation, "validation": validation, "test": 0.0})
    return ["test" if group in in_test else split_of(group, rest) for group in groups]


def parse_split(value: str, where: str) -> str:
    """The split that a word of the source names: "val", "valid", "dev" … are "validation".

    Raises: DataError for any other word: with its location and without the word, which can name a patient
    when a wrong column was named as the split column.
    """
    known = _SPLIT_NAMES.get(value.strip().casefold())
    if known is None:
        raise DataError(f"{where}: not the name of a split: use train, validation (val, valid, dev) or test")
    return known


def is_split(value: str) -> bool:
    """Whether a word, for example the name of a folder, names a split."""
    return value.strip().casefold() in _SPLIT_NAMES


def describe_leak(
    groups: Mapping[str, Sequence[str]],
    locations: Mapping[str, Sequence[str]],
    column: Literal["group", "truth"] = "group",
) -> str | None:
    """One line about groups, or truth keys, that are in more than one split; None when there are none.

    Counts and row numbers only: the name of a group can be a patient's.
    """
    locations_of: dict[str, dict[str, list[str]]] = {}
    for split, names in groups.items():
        for name, location in zip(names, locations[split], strict=True):
            locations_of.setdefault(name, {}).setdefault(split, []).append(location)
    shared = [by_split for by_split in locations_of.values() if len(by_split) > 1]
    if not shared:
        return None
    pairs = Counter(pair for by_split in shared for pair in combinations(by_split, 2))
    between = ", ".join(f"{n} in {first} and {second}" for (first, second), n in pairs.items())
    example = [location for in_split in shared[0].values() for location in in_split]
    leak, noun = ("patient-level leak", "group") if column == "group" else ("leak", "truth key")
    remedy = (
        'or set corpus.columns.split="" to split by group'
        if column == "group"
        else "or name a column in corpus.columns.group whose groups hold each key whole"
    )
    return (
        f"{leak}: {len(shared)} {noun} is" if len(shared) == 1 else f"{leak}: {len(shared)} {noun}s are"
    ) + (
        f" in more than one split ({between}); one of them: {', '.join(example[:6])}; mend the split column, "
        f"{remedy}"
    )
