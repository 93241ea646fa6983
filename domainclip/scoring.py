"""What several probes share: vectors of classes, who holds which class, and scores that treat ties fairly.

Legend: n items, c classes, d width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from domainclip import statistics
from domainclip.contracts import Encoder, EvaluationSet, Metric, Results
from domainclip.data.cards import Prompts

if TYPE_CHECKING:
    from datasets import Dataset

# How the prompts of a class become one: the mean of unit vectors, made unit again (CLIP, open_clip); the mean
# of vectors as long as the tower made them, made unit (BioViL); or the mean of the cosines (MedCLIP), which
# favours classes whose prompts agree.
Ensemble = Literal["normalise_mean_normalise", "raw_mean", "mean_of_scores"]
# A class or cell with fewer items gets no figure of its own: it would say little, and may point at a person.
MIN_ITEMS = 10


def class_vectors(
    encoder: Encoder,
    prompts: Sequence[Sequence[str]],
    ensemble: Ensemble = "normalise_mean_normalise",
) -> np.ndarray:
    """(c, d) float64: one vector a class, from its prompts; `raw_mean` needs `encoder.raw_texts`."""
    encode = encoder.raw_texts if ensemble == "raw_mean" else encoder.texts  # type: ignore[attr-defined]
    vectors = encode([text for texts in prompts for text in texts]).astype(np.float64)
    ends = np.cumsum([len(texts) for texts in prompts])
    means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])])
    if ensemble != "mean_of_scores":
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return means


def cosines(encoder: Encoder, items: Dataset, vectors: np.ndarray) -> np.ndarray:
    """(n, c). Rounded, for single-precision towers do not mean more than six digits: closer is a tie."""
    rounded: np.ndarray = np.round(encoder.images(items).astype(np.float64) @ vectors.T, 6)
    return rounded


def margins(
    encoder: Encoder,
    items: Dataset,
    classes: Mapping[str, Prompts],
    ensemble: Ensemble = "normalise_mean_normalise",
) -> np.ndarray:
    """(n, c): cosine with the positive prompts, less that with the negative ones where a class has any."""
    given = list(classes.values())
    scores = cosines(encoder, items, class_vectors(encoder, [one.positive for one in given], ensemble))
    opposed = [i for i, one in enumerate(given) if one.negative]
    if opposed:
        against = class_vectors(encoder, [given[i].negative for i in opposed], ensemble)
        scores[:, opposed] -= cosines(encoder, items, against)
    return np.round(scores, 6)


def by_template(encoder: Encoder, items: Dataset, classes: Mapping[str, Prompts]) -> list[np.ndarray]:
    """(n, c) margins of one prompt a class at a time; none when the classes have not equally many, or one.

    The prompts are encoded all together, as for their mean: towers may round otherwise in other company.
    """
    given = list(classes.values())
    counts = {len(one.positive) for one in given}
    opposed = [i for i, one in enumerate(given) if one.negative]
    if len(counts) != 1 or counts == {1} or not {len(given[i].negative) for i in opposed} <= counts:
        return []
    k = counts.pop()

    def vectors(prompts: Sequence[Sequence[str]]) -> np.ndarray:
        rows = encoder.texts([text for texts in prompts for text in texts]).astype(np.float64)
        return rows.reshape(len(prompts), k, -1)

    positive = vectors([one.positive for one in given])
    found = [cosines(encoder, items, positive[:, i]) for i in range(k)]
    if opposed:
        negative = vectors([given[i].negative for i in opposed])
        for i, scores in enumerate(found):
            scores[:, opposed] -= cosines(encoder, items, negative[:, i])
    return [np.round(scores, 6) for scores in found]


def one_class(items: Dataset, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the items that hold exactly one of these classes, and which one, as places in `names`."""
    place = {name: i for i, name in enumerate(names)}
    held = [[place[label] for label in labels if label in place] for labels in items["labels"]]
    rows = np.array([row for row, classes in enumerate(held) if len(classes) == 1], dtype=int)
    return rows, np.array([held[row][0] for row in rows], dtype=int)


def several_classes(items: Dataset, names: Sequence[str]) -> np.ndarray:
    """(n, c) of 1 and 0, NaN where the item's meta names the class under `unknown_labels`."""
    labels = np.zeros((len(items), len(names)))
    place = {name: i for i, name in enumerate(names)}
    for row, (holding, meta) in enumerate(zip(items["labels"], items["meta"], strict=True)):
        labels[row, [place[name] for name in holding if name in place]] = 1.0
        unknown = json.loads(meta or "{}").get("unknown_labels") or []
        labels[row, [place[name] for name in unknown if name in place]] = np.nan
    return labels


def chosen(scores: np.ndarray) -> np.ndarray:
    """(n, c): how surely each class is the answer; 1, or 1/t for each of t that tie at the top."""
    top = scores == scores.max(axis=1, keepdims=True)
    shares: np.ndarray = top / top.sum(axis=1, keepdims=True)
    return shares


def hits(scores: np.ndarray, truth: np.ndarray, k: int = 1) -> np.ndarray:
    """(n,) chances that the right class is among the first k, ties being broken by lot."""
    own = scores[np.arange(len(scores)), truth][:, None]
    above, tied = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
    found: np.ndarray = np.clip((k - above) / tied, 0.0, 1.0)
    return found


def youden(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The threshold with the largest sensitivity + specificity, midway between two scores (Youden 1950).

    An answer is yes at or above it; of equally good ones, the highest. None when all items are of one kind.
    """
    known = ~np.isnan(labels)
    values, positive = scores[known], labels[known] == 1
    if positive.all() or not positive.any():
        return None
    levels, place = np.unique(-values, return_inverse=True)
    levels = -levels  # descending: yes to the first i + 1 levels
    yes, no = (np.cumsum(np.bincount(place[side], minlength=len(levels))) for side in (positive, ~positive))
    best = int(np.argmax(np.round(yes / yes[-1] - no / no[-1], 12)))
    return float(levels[best] if best + 1 == len(levels) else (levels[best] + levels[best + 1]) / 2)


def metric(
    name: str,
    items: Dataset,
    rows: np.ndarray,
    scores: np.ndarray,
    aggregate: statistics.Aggregate = statistics.mean,
    chance: float | None = None,
    higher_is_better: bool = True,
    unit: str = "share",
    judged: bool = True,
) -> Metric:
    """A figure over some rows of a set; `scores` are in the order of `rows`."""
    ids, groups = list(items["id"]), list(items["group"])
    return Metric(
        name,
        [ids[row] for row in rows],
        [groups[row] for row in rows],
        scores,
        aggregate,
        higher_is_better,
        chance,
        unit,
        judged,
    )


def nothing(probe: str, data: EvaluationSet, version: int, missing: str, **details: Any) -> Results:
    """The results of a probe that lacks something: `missing` ends the sentence "there are no …"."""
    said = {"not_measured": f"there are no {missing}", **details}
    return Results(probe, data.name, [], "", version, said)
