"""Sizes, groups and classes: is the table what its card says?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from domainclip.data.checks.findings import MAX_PLACES, Finding
from domainclip.data.corpus import Corpus
from domainclip.data.quarantine import count_reasons
from domainclip.data.schema import SPLITS
from domainclip.errors import did_you_mean

_MIN_LABELLED = 20  # labelled items of a split, before a share says anything
_MAX_CLASS_SHARE = 0.9  # a class with more of the items says little: its share alone is an accuracy


def split_sizes(corpus: Corpus) -> Iterator[Finding]:
    """Items and groups of each split, and what was left out."""
    parts = []
    for name in SPLITS:
        groups, items = Counter(corpus.splits[name]["group"][:]), len(corpus.splits[name])
        parts.append(f"{name} {items} items of {len(groups)} groups")
        largest = max(groups.values(), default=0)
        if items >= 20 and largest > items / 2:
            yield Finding(
                "warning",
                f"one group holds {largest} of {items} items of {name}: is corpus.columns.group the right "
                "column?",
                "large_group",
                largest,
            )
    yield Finding("info", "; ".join(parts), "sizes", sum(map(len, corpus.splits.values())))
    if not len(corpus.splits["test"]):
        yield Finding("warning", "the test split is empty: there is nothing to measure on", "empty_test")
    if corpus.unusable:
        yield Finding(
            "warning",
            f"left out: {count_reasons(corpus.unusable)}",
            "left_out",
            len(corpus.unusable),
            tuple(bad.location for bad in corpus.unusable[:MAX_PLACES]),
        )


def class_coverage(corpus: Corpus) -> Iterator[Finding]:
    """Labels against the classes of the card, and classes that a split lacks or that are nearly all of it."""
    yield from _class_names(corpus)
    held = class_counts(corpus)
    for split in ("train", "test"):
        labelled = sum(1 for labels in corpus.splits[split]["labels"][:] if labels)
        if not labelled or not corpus.classes:
            continue
        missing = [name for name in corpus.classes if any(held[name].values()) and not held[name][split]]
        if missing:
            yield Finding(
                "warning",
                f"{len(missing)} of {len(corpus.classes)} classes have no item in {split}: "
                f"{_first_names(missing)}",
                "missing_class",
                len(missing),
            )
        for name in corpus.classes:
            share = held[name][split] / labelled
            if labelled >= _MIN_LABELLED and share > _MAX_CLASS_SHARE:
                yield Finding(
                    "warning",
                    f'class "{name}" holds for {share:.0%} of the {labelled} labelled items of {split}: read '
                    "macro accuracy, not accuracy",
                    "common_class",
                    held[name][split],
                )


def class_counts(corpus: Corpus) -> dict[str, dict[str, int]]:
    """class -> split -> items."""
    tally = {
        name: Counter(label for labels in corpus.splits[name]["labels"][:] for label in set(labels))
        for name in SPLITS
    }
    return {label: {split: tally[split][label] for split in SPLITS} for label in corpus.classes}


def _class_names(corpus: Corpus) -> Iterator[Finding]:
    if not corpus.card.classes:
        return
    tally = Counter(
        label for name in SPLITS for labels in corpus.splits[name]["labels"][:] for label in labels
    )
    unknown = sorted(set(tally) - set(corpus.card.classes))
    if unknown:
        # In a column that was mistaken for another, a class may be a patient's name.
        near = f': "{unknown[0]}", {did_you_mean(unknown[0], corpus.card.classes)}'
        number = sum(tally[label] for label in unknown)
        yield Finding(
            "warning",
            f"{number} labels name no class of the card" + (near if corpus.card.names_may_show else ""),
            "unknown_class",
            number,
        )
    for name in sorted(set(corpus.card.classes) - set(tally)):
        yield Finding("warning", f'no item has the class "{name}" of the card', "unused_class")


def _first_names(names: list[str]) -> str:
    # These stand in the card, or are frequent enough to be classes of the corpus: no one's name.
    more = f" and {len(names) - MAX_PLACES} more" if len(names) > MAX_PLACES else ""
    return ", ".join(f'"{name}"' for name in names[:MAX_PLACES]) + more
