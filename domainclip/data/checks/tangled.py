"""Attributes of images that give their class away: source and acquisition, or else properties of the files.

A model may learn such an attribute instead of the class, and fails where it is another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from domainclip.data.batching.item_columns import derived_column
from domainclip.data.checks.association import cramers_v, cross_validated, folds_of_groups
from domainclip.data.checks.findings import Finding, Level
from domainclip.data.checks.images import InspectedCorpus
from domainclip.data.corpus import Corpus
from domainclip.data.dicom import reading
from domainclip.data.files import locations
from domainclip.data.schema import ACQUISITION, SOURCE, SPLITS
from domainclip.data.text.class_names import fold
from domainclip.errors import UnreadableImage

_MIN_ITEMS = 10  # groups of a label, below which nothing can be said about it
_DRAWS = 199  # permutations of the labels; a smaller p than 1 / 200 is not needed
_MAX_P = 0.02  # of each of two attributes: false alarms in at most 4 % of all corpora
_WEAK, _STRONG = 0.1, 0.2  # Cramér's V from which on there is a note, and a warning
_MAX_GROUPS = 20_000
_MAX_FILES = 1000  # that the tree of `tangled_files` is fitted on
_MAX_CATEGORIES = 20  # of folders, file types …: the commonest ones
_MIN_GAIN, _MIN_Z = 0.1, 2.6  # of the balanced accuracy over chance; one-sided p of 0.005


@dataclass(frozen=True)
class _Labelled:
    """One item of each group with a single frequent label: groups are independent, their items are not."""

    positions: Sequence[tuple[str, int]]  # split and row
    labels: np.ndarray  # (n,) the number of the label
    names: Sequence[str]


def _labelled(corpus: Corpus) -> _Labelled:
    of_group: dict[str, tuple[str, int, str]] = {}
    for split in SPLITS:
        rows = derived_column(corpus.splits[split], ["group", "labels"], lambda *values: values)
        for row, (group, names) in enumerate(rows):
            if len(names) == 1:
                of_group.setdefault(group, (split, row, names[0]))
    chosen = list(of_group.values())
    step = -(-len(chosen) // _MAX_GROUPS) if chosen else 1
    chosen = chosen[::step]
    names, counts = np.unique([label for _, _, label in chosen] or [""], return_counts=True)
    frequent = names[counts >= _MIN_ITEMS].tolist()
    chosen = [one for one in chosen if one[2] in set(frequent)]
    return _Labelled(
        [(split, row) for split, row, _ in chosen],
        np.array([frequent.index(label) for _, _, label in chosen], dtype=int),
        frequent,
    )


def tangled_source(corpus: Corpus) -> Iterator[Finding]:
    """Source and acquisition that give the label away, for corpora whose card names them."""
    columns = corpus.card.columns
    if not columns.source and not columns.acquisition:
        return
    items = _labelled(corpus)
    if len(items.names) < 2:
        return
    metas = {split: derived_column(corpus.splits[split], ["meta"], str) for split in SPLITS}
    found = [json.loads(metas[split][row] or "{}") for split, row in items.positions]
    for name, key in (("source", SOURCE), ("acquisition", ACQUISITION)):
        values = np.array([str(meta.get(key, "")) for meta in found], dtype=str)
        if len(set(values)) > 1:
            yield from _tangled(name, values, items)


def _tangled(name: str, values: np.ndarray, items: _Labelled) -> Iterator[Finding]:
    v = cramers_v(values, items.labels)
    if v < _WEAK or _permutation_p(values, items.labels, v) > _MAX_P:
        return
    truth = np.eye(len(items.names))[items.labels]
    groups = [str(i) for i in range(len(items.labels))]
    table = cross_validated([(value,) for value in values], truth, groups).argmax(axis=1)
    right, commonest = float((table == items.labels).mean()), float(truth.mean(axis=0).max())
    level: Level = "warning" if v >= _STRONG else "info"
    yield Finding(
        level,
        f"corpus.columns.{name}: label and {name} are tangled: Cramér's V {v:.2f} (bias-corrected), and a "
        f"table of the {name} alone names {right:.0%} of the labels (cross-validated over {len(groups)} "
        f"groups; the commonest label is {commonest:.0%}): a model may learn the {name} instead of the "
        "label: read the results within sources, and hold one out with corpus.splits.by=source",
        "tangled_source",
        len(set(values)),
    )


def _permutation_p(values: np.ndarray, labels: np.ndarray, v: float) -> float:
    """The share of permuted labels that are as far from independence, the labels as they are included."""
    codes = np.unique(values, return_inverse=True)[1]
    draw = np.random.default_rng(0)
    as_far = sum(cramers_v(codes, draw.permutation(labels)) >= v - 1e-12 for _ in range(_DRAWS))
    return (1 + as_far) / (1 + _DRAWS)


def tangled_files(inspected: InspectedCorpus) -> Iterator[Finding]:
    """Folder, type, size, bit depth, manufacturer or brightness of the files that give the label away.

    Only for corpora whose card names neither source nor acquisition. A decision tree on these properties is
    cross-validated; no value of a header, and no name of a folder, is in the finding.
    """
    columns = inspected.corpus.card.columns
    if columns.source or columns.acquisition:
        return
    items, indices = _inspected_items(inspected)
    if len(items.names) < 2:
        return
    features = _features(inspected, items, indices)
    score = balanced_score(np.column_stack(list(features.values())), items.labels)
    if not score.alarming:
        return
    alone = {name: balanced_score(columns, items.labels) for name, columns in features.items()}
    telling = {name: one.accuracy for name, one in alone.items() if one.alarming}
    ordered = sorted(telling, key=lambda name: -telling[name])
    named = ", ".join(f"{name} alone {telling[name]:.0%}" for name in ordered) or "none of them alone"
    # Night scenes are dark, and galaxies small: brightness may be what the class is about.
    level: Level = "warning" if set(telling) - {"brightness"} else "info"
    yield Finding(
        level,
        f"files: their properties predict the label: a decision tree on {', '.join(features)} names "
        f"{score.accuracy:.0%} of the labels (mean over {len(items.names)} labels, chance "
        f"{1 / len(items.names):.0%}, cross-validated over {len(items.labels)} groups; {named}): a model may "
        "learn these instead of the label: name where the images come from with corpus.columns.source, and "
        "measure on data from elsewhere",
        "tangled_files",
        len(items.labels),
    )


def _inspected_items(inspected: InspectedCorpus) -> tuple[_Labelled, np.ndarray]:
    """The labelled items whose first image was inspected and is readable, and the indices of the images."""
    items = _labelled(inspected.corpus)
    usable = inspected.inspections["reason"] == b""
    index_of = {
        (position.split, position.row): index
        for index, position in enumerate(inspected.positions)
        if position.view == 0 and usable[index]
    }
    known = [place for place, position in enumerate(items.positions) if position in index_of]
    known = known[:: -(-len(known) // _MAX_FILES) if known else 1]
    labels = items.labels[known]
    counts = np.bincount(labels, minlength=len(items.names))
    kept = [place for place in known if counts[items.labels[place]] >= _MIN_ITEMS]
    frequent = np.flatnonzero(counts >= _MIN_ITEMS).tolist()
    return (
        _Labelled(
            [items.positions[place] for place in kept],
            np.array([frequent.index(items.labels[place]) for place in kept], dtype=int),
            [items.names[i] for i in frequent],
        ),
        np.array([index_of[items.positions[place]] for place in kept], dtype=int),
    )


def _features(inspected: InspectedCorpus, items: _Labelled, indices: np.ndarray) -> Mapping[str, np.ndarray]:
    """Columns (n, k) of the properties that differ between the images."""
    inspections = inspected.inspections[indices]
    paths = [str(inspected.images[index]["path"] or "") for index in indices.tolist()]
    files = [PurePath(locations.split_location(path)[0]) for path in paths]
    size = np.stack([inspections["width"], inspections["height"]], axis=1).astype(float)
    columns = {
        "size": np.column_stack([size, size[:, 0] / np.maximum(size[:, 1], 1)]),
        "brightness": inspections["thumbnail"].mean(axis=(1, 2))[:, None],
        "file type": _one_hot([file.suffix.lower() for file in files]),
        "stored mode": _one_hot([mode.decode("ascii", "replace") for mode in inspections["mode"]]),
    }
    if not _are_class_folders(files, items):
        columns["folder"] = _one_hot([str(file.parent) for file in files])
    if (inspections["mode"] == b"DICOM").mean() > 0.5:
        columns["manufacturer"] = _one_hot([_manufacturer(path) for path in paths])
    return {name: values for name, values in columns.items() if (values != values[:1]).any()}


def _are_class_folders(files: Sequence[PurePath], items: _Labelled) -> bool:
    """Whether the folders are named after the labels: they say nothing beyond the label."""
    same = [
        any(fold(part) == fold(items.names[label]) for part in file.parts[:-1])
        for file, label in zip(files, items.labels, strict=True)
    ]
    return sum(same) * 2 > len(same)


def _manufacturer(path: str) -> str:
    try:
        return str(reading.read_header(Path(path), ["Manufacturer"]).get("Manufacturer", ""))
    except (OSError, UnreadableImage):
        return ""


def _one_hot(values: Sequence[str]) -> np.ndarray:
    names, counts = np.unique(values, return_counts=True)
    common = names[np.argsort(-counts, kind="stable")][:_MAX_CATEGORIES]
    columns: np.ndarray = (np.asarray(values)[:, None] == common[None]).astype(float)
    return columns


@dataclass(frozen=True)
class BalancedScore:
    """Cross-validated balanced accuracy of a decision tree, and how far above chance it lies."""

    accuracy: float
    chance: float
    z: float

    @property
    def alarming(self) -> bool:
        """Whether it is clearly above chance, in size and beyond luck."""
        return self.accuracy >= self.chance + _MIN_GAIN and self.z >= _MIN_Z


def balanced_score(features: np.ndarray, labels: np.ndarray) -> BalancedScore:
    """The score of features (n, k) for labels (n,), the numbers 0 … c − 1 of c labels, of independent items.

    Answers that are independent of the labels have a recall of q for a label that is a share q of them. So
    their balanced accuracy is 1 / c in expectation, with the variance Σ q (1 − q) / m over c², where m items
    have the label.
    """
    from sklearn.tree import DecisionTreeClassifier

    folds = folds_of_groups([str(i) for i in range(len(labels))])
    answers = np.zeros(len(labels), dtype=int)
    for fold_number in np.unique(folds):
        inside = folds == fold_number
        tree = DecisionTreeClassifier(
            max_depth=4, min_samples_leaf=5, class_weight="balanced", random_state=0
        )
        answers[inside] = tree.fit(features[~inside], labels[~inside]).predict(features[inside])
    counts = np.bincount(labels)
    recalls = np.bincount(labels, weights=answers == labels) / counts
    shares = np.bincount(answers, minlength=len(counts)) / len(answers)
    variance = float((shares * (1 - shares) / counts).sum()) / len(counts) ** 2
    chance = 1 / len(counts)
    accuracy = float(recalls.mean())
    return BalancedScore(accuracy, chance, (accuracy - chance) / max(np.sqrt(variance), 1e-9))
