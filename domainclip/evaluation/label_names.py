"""Labels of a corpus in the spelling of the classes of a run."""

from __future__ import annotations

from collections.abc import Iterable

from datasets import Dataset

from domainclip.data.schema import COLUMNS, features
from domainclip.data.text.class_names import fold


def in_spelling_of(items: Dataset, classes: Iterable[str]) -> tuple[Dataset, int]:
    """The items, with the labels that differ from a class only in spelling named like it; and their number.

    The spelling is capitals, spaces, hyphens, underscores and the Unicode form.
    """
    known = {fold(name): name for name in classes}
    names = set(known.values())
    labels = items["labels"][:]
    renamed = {
        label: known[fold(label)]
        for label in {label for row in labels for label in row}
        if label not in names and fold(label) in known
    }
    if not renamed:
        return items, 0
    values = [list(dict.fromkeys(renamed.get(label, label) for label in row)) for row in labels]
    changed = items.remove_columns("labels").add_column("labels", values, feature=features()["labels"])
    return changed.select_columns(list(COLUMNS)), len(renamed)
