"""Which split a group belongs to, and whether a group lies in two."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from domainclip.data.cards import Splits
from domainclip.errors import DataError

_SAID = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def split_of(group: str, splits: Splits) -> str:
    """train, validation or test: a stable hash of the group's name, so that adding items moves none."""
    digest = hashlib.blake2b(f"{splits.seed}\0{group}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < splits.train:
        return "train"
    # A share of zero stays empty, whatever rounding does at its edge.
    return "validation" if place < splits.train + splits.validation or splits.test == 0 else "test"


def parse_split(value: str, where: str) -> str:
    """What the source's own word for a split means: "val", "valid", "dev" … are "validation".

    Raises: DataError for any other word: with `where` it stands and without it, for in a column that was
    mistaken for another it may name a patient.
    """
    known = _SAID.get(value.strip().casefold())
    if known is None:
        raise DataError(f"{where}: no name of a split: use train, validation (val, valid, dev) or test")
    return known


def is_split(value: str) -> bool:
    """Whether a word, as the name of a folder, names a split."""
    return value.strip().casefold() in _SAID


def describe_leak(groups: Mapping[str, Sequence[str]], places: Mapping[str, Sequence[str]]) -> str | None:
    """One line about groups that lie in more than one split; None when there are none.

    Counts and row numbers only: the name of a group may be a patient's.
    """
    held: dict[str, dict[str, list[str]]] = {}
    for split, names in groups.items():
        for name, place in zip(names, places[split], strict=True):
            held.setdefault(name, {}).setdefault(split, []).append(place)
    shared = [by_split for by_split in held.values() if len(by_split) > 1]
    if not shared:
        return None
    pairs = Counter(pair for by_split in shared for pair in combinations(by_split, 2))
    between = ", ".join(f"{n} in {first} and {second}" for (first, second), n in pairs.items())
    example = [place for listed in shared[0].values() for place in listed]
    return (
        f"patient-level leak: {len(shared)} {'group is' if len(shared) == 1 else 'groups are'} in more than "
        f"one split ({between}); one of them: {', '.join(example[:6])}; mend the split column, or set "
        'corpus.columns.split="" to split by group'
    )
