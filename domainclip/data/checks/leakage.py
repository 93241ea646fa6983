"""Checks for leaks: a group or an image in two splits; and images that occur twice in one split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np

from domainclip.data import splits
from domainclip.data.checks import images, tallies
from domainclip.data.checks.findings import MAX_LOCATIONS, Finding
from domainclip.data.checks.images import InspectedCorpus
from domainclip.data.corpus import Corpus
from domainclip.data.images.copies import find_copies
from domainclip.data.images.near_duplicates import DuplicatePair
from domainclip.data.images.perceptual_hashes import ORIENTATIONS
from domainclip.data.schema import SPLITS
from domainclip.distributed.phases import phase

_REMEDY = "leave its group out of the earlier split with corpus.splits.near_duplicates=leave_out"


def shared_groups(corpus: Corpus) -> Iterator[Finding]:
    """Groups in more than one split; else truth keys in more than one, where the card names them."""
    columns: tuple[Literal["group", "truth"], ...] = ("group", "truth")
    for column in columns[: 2 if corpus.card.columns.truth else 1]:
        if not tallies.share_a_value([corpus.splits[name] for name in SPLITS], column):
            continue
        locations = {name: item_locations(corpus, name) for name in SPLITS}
        keys = {name: corpus.splits[name][column][:] for name in SPLITS}
        text = splits.describe_leak(keys, locations, column)
        if text:
            train, validation, test = (set(keys[name]) for name in SPLITS)
            shared = (train & validation) | (train & test) | (validation & test)
            yield Finding("error", text, "group_leak", len(shared))
            return


def item_locations(corpus: Corpus, split: str) -> list[str]:
    """The location of each item of a split in the source."""
    # By id, not by position: curation may have removed rows since the corpus was read.
    return [corpus.locations.get(id, f"item {id}") for id in corpus.splits[split]["id"][:]]


def identical_images(corpus: Corpus) -> Iterator[Finding]:
    """Images that are byte for byte the same, in two splits or in one."""
    locations = _locations_by_digest(corpus)
    for first, second in combinations(SPLITS, 2):
        shared = [by_split for by_split in locations.values() if first in by_split and second in by_split]
        if shared:
            location, other = shared[0][first][0], shared[0][second][0]
            yield Finding(
                "error",
                f"the same image in two splits: {len(shared)} in {first} and {second}; one of them: "
                f"{location}, {other}; {_REMEDY}",
                "image_leak",
                len(shared),
                (location, other),
            )
    repeated = [copies for by_split in locations.values() for copies in by_split.values() if len(copies) > 1]
    if repeated:
        number = sum(len(copies) - 1 for copies in repeated)
        yield Finding(
            "info",
            f"{number} images are repeated in their split; first: {', '.join(repeated[0][:MAX_LOCATIONS])}",
            "same_image",
            number,
            tuple(" and ".join(copies) for copies in repeated),
        )


def _locations_by_digest(corpus: Corpus) -> dict[str, dict[str, list[str]]]:
    """digest -> split -> locations of its images, of the digests that occur more than once."""
    # By 64 bits of each: the digests themselves would take a hundred bytes a pair.
    hashes = np.fromiter(map(hash, images.image_digests(corpus)), np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    repeated = set(values[counts > 1].tolist())
    locations: dict[str, dict[str, list[str]]] = {}
    for name, id, digests in images.digests_of_items(corpus) if repeated else ():
        for digest in dict.fromkeys(digests):  # an image that an item holds twice is not reported
            if hash(digest) in repeated:
                view = digests.index(digest)
                location = corpus.locations.get(id, f"item {id}") + (f" view {view}" if view else "")
                locations.setdefault(digest, {}).setdefault(name, []).append(location)
    return locations


@phase("searching for near-duplicates")
def near_duplicate_images(
    corpus: Corpus,
    inspected: InspectedCorpus,
    embed: Callable[[list[dict[str, Any]]], np.ndarray] | None,
    workers: int = 0,
) -> Iterator[Finding]:
    """Images that were re-encoded, resized, cropped or mirrored, in two splits or in one."""
    pairs = _find_pairs(inspected, embed, workers)
    across = [pair for pair in pairs if inspected.split(pair.first) != inspected.split(pair.second)]
    if across:
        order = {name: index for index, name in enumerate(SPLITS)}
        tally = Counter(
            tuple(sorted((inspected.split(pair.first), inspected.split(pair.second)), key=order.__getitem__))
            for pair in across
        )
        between = ", ".join(f"{number} in {a} and {b}" for (a, b), number in sorted(tally.items()))
        yield Finding(
            "error",
            f"nearly the same image in two splits: {between}; {_clearest_pair(inspected, across)}; "
            f"{_REMEDY}, or, if they are different images, set corpus.checks.near_duplicates=warning",
            "near_duplicates",
            len(across),
            _pair_locations(inspected, across),
        )
    within = [pair for pair in pairs if inspected.split(pair.first) == inspected.split(pair.second)]
    if within:
        same_group = sum(inspected.group(pair.first) == inspected.group(pair.second) for pair in within)
        yield Finding(
            "info",
            f"{len(within)} {'pair' if len(within) == 1 else 'pairs'} of nearly the same image in one "
            f"split, {same_group} of them in one group; {_clearest_pair(inspected, within)}",
            "near_duplicates_within",
            len(within),
            _pair_locations(inspected, within),
        )


def _find_pairs(
    inspected: InspectedCorpus,
    embed: Callable[[list[dict[str, Any]]], np.ndarray] | None,
    workers: int,
) -> list[DuplicatePair]:
    """Near-duplicates of different items, by their index; identical files are reported elsewhere."""
    rows = inspected.images
    encode = None if embed is None else lambda indices: embed([rows[index] for index in indices])
    pairs = find_copies(inspected.inspections, inspected.digests, encode, workers)
    return [pair for pair in pairs if inspected.item(pair.first) != inspected.item(pair.second)]


def _clearest_pair(inspected: InspectedCorpus, pairs: Sequence[DuplicatePair]) -> str:
    best = max(pairs, key=lambda pair: pair.score)
    orientation = "" if best.orientation == ORIENTATIONS[0] else f" ({best.orientation})"
    return f"one of them: {inspected.location(best.first)}, {inspected.location(best.second)}{orientation}"


def _pair_locations(inspected: InspectedCorpus, pairs: Sequence[DuplicatePair]) -> tuple[str, ...]:
    """Every pair, the highest score first: all are needed to remove a leak."""
    best = sorted(pairs, key=lambda pair: -pair.score)
    return tuple(f"{inspected.location(pair.first)} and {inspected.location(pair.second)}" for pair in best)
