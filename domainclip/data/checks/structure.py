"""Checks of the structure: sizes of splits and groups, and classes against the card."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from domainclip.data.batching.item_columns import derived_column
from domainclip.data.checks import tallies
from domainclip.data.checks.findings import MAX_LOCATIONS, Finding
from domainclip.data.corpus import Corpus
from domainclip.data.dicom import typed_values
from domainclip.data.quarantine import count_reasons
from domainclip.data.schema import SPLITS
from domainclip.errors import did_you_mean

_MIN_LABELLED = 20  # labelled items of a split, below which a share is not reported
_MAX_CLASS_SHARE = 0.9  # of the items: always predicting a larger class gives a higher accuracy than this
_MIN_ITEMS = 20  # of a split, below which a large group is not reported


def split_sizes(corpus: Corpus) -> Iterator[Finding]:
    """Items and groups of each split, and the items that were left out."""
    sizes = []
    for name in SPLITS:
        groups, items = tallies.count_values(corpus.splits[name], "group"), len(corpus.splits[name])
        sizes.append(f"{name} {items} items of {len(groups)} groups")
        largest = max(groups.values(), default=0)
        if items >= _MIN_ITEMS and largest > items / 2:
            yield Finding(
                "warning",
                f"corpus.columns.group: one group holds {largest} of {items} items of {name}: check that "
                "it is the right column",
                "large_group",
                largest,
            )
    yield Finding("info", "; ".join(sizes), "sizes", sum(map(len, corpus.splits.values())))
    if not len(corpus.splits["test"]):
        yield Finding("warning", "the test split is empty: check corpus.columns.split", "empty_test")
    if corpus.unusable:
        yield Finding(
            "warning",
            f"left out: {count_reasons(corpus.unusable)}",
            "left_out",
            len(corpus.unusable),
            tuple(item.location for item in corpus.unusable),
        )


def class_coverage(corpus: Corpus) -> Iterator[Finding]:
    """Labels that the card does not define, classes missing in a split, and classes of nearly all items."""
    yield from _class_names(corpus)
    class_items = class_counts(corpus)
    for split in ("train", "test"):
        labelled = tallies.count_labelled(corpus.splits[split])
        if not labelled or not corpus.classes:
            continue
        missing = [
            name
            for name in corpus.classes
            if any(class_items[name].values()) and not class_items[name][split]
        ]
        if missing:
            yield Finding(
                "warning",
                f"{len(missing)} of {len(corpus.classes)} classes have no item in {split}: "
                f"{_first_names(missing)}",
                "missing_class",
                len(missing),
            )
        for name in corpus.classes:
            share = class_items[name][split] / labelled
            if labelled >= _MIN_LABELLED and share > _MAX_CLASS_SHARE:
                yield Finding(
                    "warning",
                    f'class "{name}" holds for {share:.0%} of the {labelled} labelled items of {split}: read '
                    "macro accuracy, not accuracy",
                    "common_class",
                    class_items[name][split],
                )


def unusable_attributes(corpus: Corpus) -> Iterator[Finding]:
    """Ages, dates and numbers of DICOM files whose values are none: subgroups do not show these items."""
    for name in corpus.card.columns.meta:
        vr = typed_values.type_of(name, ())
        if not typed_values.is_numeric(vr):
            continue
        values = [
            json.loads(meta or "{}").get(name)
            for items in corpus.splits.values()
            for meta in derived_column(items, ["meta"], str)
        ]
        given = [value for value in values if value is not None and str(value).strip()]
        bad = sum(not isinstance(typed_values.typed_value(value, vr), float) for value in given)
        if bad:
            kind = typed_values.type_name(vr)
            text = f"corpus.columns.meta: {name} is no {kind} in {bad} of {len(values)} items: subgroups "
            yield Finding("warning", f"{text}do not show them", "unusable_attribute", bad)


def class_counts(corpus: Corpus) -> dict[str, dict[str, int]]:
    """class -> split -> items."""
    tally = {name: tallies.count_labels(corpus.splits[name]) for name in SPLITS}
    return {label: {split: tally[split][label] for split in SPLITS} for label in corpus.classes}


def _class_names(corpus: Corpus) -> Iterator[Finding]:
    if not corpus.card.classes:
        return
    tally = Counter(
        label for name in SPLITS for labels in corpus.splits[name]["labels"][:] for label in labels
    )
    unknown = sorted(set(tally) - set(corpus.card.classes))
    if unknown:
        # If the column was mistaken for another, a label may be a patient's name.
        example = f': "{unknown[0]}", {did_you_mean(unknown[0], corpus.card.classes)}'
        number = sum(tally[label] for label in unknown)
        yield Finding(
            "warning",
            f"{number} labels outside the classes of the card"
            + (example if corpus.card.names_may_show else ""),
            "unknown_class",
            number,
        )
    for name in sorted(set(corpus.card.classes) - set(tally)):
        hint = did_you_mean(name, unknown) if corpus.card.names_may_show else ""
        meant = f", {hint}" if hint.startswith("did") else ""
        yield Finding("warning", f'no item has the class "{name}" of the card{meant}', "unused_class")


def _first_names(names: list[str]) -> str:
    # Safe to show: they are in the card, or frequent enough to be classes, and so not a patient's name.
    more = f" and {len(names) - MAX_LOCATIONS} more" if len(names) > MAX_LOCATIONS else ""
    return ", ".join(f'"{name}"' for name in names[:MAX_LOCATIONS]) + more
