"""Which split a group belongs to, and whether a group lies in two."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import combinations

from domainclip.data.cards import Splits
from domainclip.errors import DataError, did_you_mean

_SAID = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
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


def said(value: str, where: str) -> str:
    """What the source's own word for a split means: "val", "valid", "dev" … are "validation".

    Raises: DataError for any other word, with `where` it stands.
    """
    known = _SAID.get(value.strip().casefold())
    if known is None:
        raise DataError(f'{where}: split "{value}": {did_you_mean(value.casefold(), _SAID)}')
    return known


def is_split(value: str) -> bool:
    """Whether a word, as the name of a folder, names a split."""
    return value.strip().casefold() in _SAID


def leak(groups: Mapping[str, Sequence[str]], places: Mapping[str, Sequence[str]]) -> str | None:
    """One line about groups that lie in more than one split; None when there are none.

    Counts and row numbers only: the name of a group may be a patient's.
    """
    found = [
        (first, second, set(groups[first]) & set(groups[second])) for first, second in combinations(groups, 2)
    ]
    shared = set().union(*(both for _, _, both in found))
    if not shared:
        return None
    between = ", ".join(f"{len(both)} in {first} and {second}" for first, second, both in found if both)
    one = min(
        ((name, place) for split, names in groups.items() for name, place in _placed(split, names, places)),
        key=lambda pair: (pair[0] not in shared, _order(pair[1])),
    )[0]
    same = [place for split, names in groups.items() for name, place in _placed(split, names, places) if name == one]
    noun = "group is" if len(shared) == 1 else "groups are"
    return (
        f"patient-level leak: {len(shared)} {noun} in more than one split ({between}); one of them: "
        f"{', '.join(sorted(same, key=_order)[:6])}; mend the split column, or set "
        'corpus.columns.split="" to split by group'
    )


def _placed(split: str, names: Sequence[str], places: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    known = places.get(split) or [f"{split} item {i + 1}" for i in range(len(names))]
    return list(zip(names, known, strict=True))


def _order(place: str) -> tuple[str, int]:
    word, _, number = place.rpartition(" ")
    return word, int(number) if number.isdigit() else 0
