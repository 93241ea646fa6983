"""The same patient, object or picture in two splits, and the same picture twice in one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from domainclip import disk_cache
from domainclip.data import splits
from domainclip.data.checks.findings import MAX_PLACES, Finding
from domainclip.data.checks.images import InspectedCorpus
from domainclip.data.corpus import Corpus
from domainclip.data.images import inspection, perceptual_hashes
from domainclip.data.images import near_duplicates as images_near_duplicates
from domainclip.data.images.near_duplicates import DuplicatePair
from domainclip.data.images.perceptual_hashes import THUMBNAIL_SIDE
from domainclip.data.schema import SPLITS

_REMEDY = "give such rows one group, or leave one out"


def shared_groups(corpus: Corpus) -> Iterator[Finding]:
    """A group in two splits."""
    held = {name: corpus.splits[name]["group"][:] for name in SPLITS}
    text = splits.describe_leak(held, {name: item_places(corpus, name) for name in SPLITS})
    if text:
        own = [set(held[name]) for name in SPLITS]
        shared = (own[0] & own[1]) | (own[0] & own[2]) | (own[1] & own[2])
        yield Finding("error", text, "group_leak", len(shared))


def item_places(corpus: Corpus, split: str) -> list[str]:
    """Where each item of a split stands in the source."""
    # By id, not by position: curation may have taken rows out since the corpus was read.
    return [corpus.locations.get(id, f"item {id}") for id in corpus.splits[split]["id"][:]]


def identical_images(corpus: Corpus) -> Iterator[Finding]:
    """Pictures that are byte for byte the same, in two splits or in one."""
    where: dict[str, dict[str, list[str]]] = {}  # digest -> split -> places
    for name in SPLITS:
        for id, place in zip(corpus.splits[name]["id"][:], item_places(corpus, name), strict=True):
            own = [corpus.digests.get(id, id), *corpus.view_digests.get(id, [])]
            for digest in dict.fromkeys(own):  # a picture that stands twice in one item is no finding
                view = own.index(digest)
                said = f"{place} view {view}" if view else place
                where.setdefault(digest, {}).setdefault(name, []).append(said)
    for first, second in combinations(SPLITS, 2):
        same = [held for held in where.values() if first in held and second in held]
        if same:
            one, other = same[0][first][0], same[0][second][0]
            yield Finding(
                "error",
                f"the same picture in two splits: {len(same)} in {first} and {second}; one of them: {one}, "
                f"{other}; {_REMEDY}",
                "picture_leak",
                len(same),
                (one, other),
            )
    again = [own for held in where.values() for own in held.values() if len(own) > 1]
    if again:
        number = sum(len(own) - 1 for own in again)
        yield Finding(
            "info",
            f"{number} pictures stand again in their own split; first: {', '.join(again[0][:MAX_PLACES])}",
            "same_picture",
            number,
            tuple(" and ".join(own) for own in again),
        )


def near_duplicate_images(
    corpus: Corpus,
    seen: InspectedCorpus,
    embed: Callable[[list[dict[str, Any]]], np.ndarray] | None,
    workers: int = 0,
) -> Iterator[Finding]:
    """Pictures that were re-encoded, resized, cut or mirrored, in two splits or in one."""
    twins = _find_pairs(seen, embed, workers)
    across = [pair for pair in twins if seen.split(pair.first) != seen.split(pair.second)]
    if across:
        order = {name: at for at, name in enumerate(SPLITS)}
        between = Counter(
            tuple(sorted((seen.split(pair.first), seen.split(pair.second)), key=order.__getitem__))
            for pair in across
        )
        said = ", ".join(f"{number} in {a} and {b}" for (a, b), number in sorted(between.items()))
        yield Finding(
            "error",
            f"nearly the same picture in two splits: {said}; {_clearest_pair(seen, across)}; {_REMEDY}, or, "
            "when they are not the same, say checks: {near_duplicates: warning} in the card",
            "near_duplicates",
            len(across),
            _all_places(seen, across),
        )
    within = [pair for pair in twins if seen.split(pair.first) == seen.split(pair.second)]
    if within:
        own = sum(seen.group(pair.first) == seen.group(pair.second) for pair in within)
        yield Finding(
            "info",
            f"{len(within)} {'pair' if len(within) == 1 else 'pairs'} of nearly the same picture in one "
            f"split, {own} of them of one group; {_clearest_pair(seen, within)}",
            "near_duplicates_within",
            len(within),
            _all_places(seen, within),
        )


def _find_pairs(
    seen: InspectedCorpus, embed: Callable[[list[dict[str, Any]]], np.ndarray] | None, workers: int
) -> list[DuplicatePair]:
    """Pairs of different items, by their rows in `seen`; byte for byte the same is told elsewhere."""
    told = seen.looks
    readable = (told["reason"] == b"") & ~told["blank"]
    big = np.flatnonzero(readable & (np.minimum(told["width"], told["height"]) >= THUMBNAIL_SIDE))
    pictures = seen.images
    encode = None if embed is None else lambda chosen: embed([pictures[int(big[row])] for row in chosen])
    found = images_near_duplicates.select_duplicates(
        _cached_scores(seen, big, workers), told["colour"][big], encode
    )
    named = [DuplicatePair(int(big[p.first]), int(big[p.second]), p.orientation, p.score) for p in found]
    return [
        pair
        for pair in named
        if seen.item(pair.first) != seen.item(pair.second)
        and seen.digests[pair.first] != seen.digests[pair.second]
    ]


def _cached_scores(seen: InspectedCorpus, rows: np.ndarray, workers: int) -> np.ndarray:
    """The scored pairs among some pictures; kept, like the looks that they come from."""
    digests = [seen.digests[row] for row in rows]
    name = disk_cache.key("pairs", inspection.VERSION, digests)
    kept = disk_cache.read("hashes", name)
    if kept is not None and kept.dtype == images_near_duplicates.SCORED_PAIR:
        return kept[1:]
    found = images_near_duplicates.score_pairs(
        seen.looks["thumbnail"][rows], seen.looks["hashes"][rows], workers
    )
    # With a row before the first: an array without rows cannot be mapped from disk.
    whole = np.concatenate([np.zeros(1, images_near_duplicates.SCORED_PAIR), found])
    inspection.store_inspection(
        name, whole, {"what": "pairs of pictures that are alike", "pairs": len(found)}
    )
    return found


def _clearest_pair(seen: InspectedCorpus, pairs: Sequence[DuplicatePair]) -> str:
    best = max(pairs, key=lambda pair: pair.score)
    turn = "" if best.orientation == perceptual_hashes.ORIENTATIONS[0] else f" ({best.orientation})"
    return f"one of them: {seen.place(best.first)}, {seen.place(best.second)}{turn}"


def _all_places(seen: InspectedCorpus, pairs: Sequence[DuplicatePair]) -> tuple[str, ...]:
    """All of them, the surest first: whoever mends a leak has to know every one."""
    best = sorted(pairs, key=lambda pair: -pair.score)
    return tuple(f"{seen.place(pair.first)} and {seen.place(pair.second)}" for pair in best)
