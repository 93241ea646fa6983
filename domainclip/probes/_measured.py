"""One figure for any part of the items: accuracy with one class an item, AUROC with several, R@1 without.

Legend: n items, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from domainclip import scoring, statistics
from domainclip.contracts import Encoder, EvaluationSet
from domainclip.probes._galleries import galleries
from domainclip.probes._ranks import search


@dataclass(frozen=True)
class Measured:
    """One figure that can be had for any part of the items."""

    name: str
    rows: np.ndarray  # (n,) where the items stand in the set
    scores: np.ndarray  # (n, …)
    chance: float | None
    figure: Callable[[np.ndarray], statistics.Aggregate]  # of the items at these places
    # Yes-or-no answers by class: (n,) how surely yes was said, and the places of those it is right for.
    answers: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def measured_on(encoder: Encoder, data: EvaluationSet) -> Measured | None:
    """What can be measured on this set; None when it has neither two classes nor captions."""
    names = list(data.classes)
    if data.card.multi_label and names:
        return _several(encoder, data, names)
    if len(names) > 1:
        rows, truth = scoring.one_class(data.items, names)
        prompts = [data.classes[name].positive for name in names]
        cosines = scoring.cosines(encoder, data.items, scoring.class_vectors(encoder, prompts))[rows]
        hits = scoring.hits(cosines, truth)
        answers = {name: (hits, np.flatnonzero(truth == i)) for i, name in enumerate(names)}
        # With two classes, finding one is refusing the other; with more, each class has its accuracy.
        return Measured(
            "accuracy",
            rows,
            hits,
            1 / len(names),
            lambda _: statistics.mean,
            answers if len(names) == 2 else {},
        )
    return _retrieved(encoder, data)


def _several(encoder: Encoder, data: EvaluationSet, names: Sequence[str]) -> Measured:
    labels = scoring.several_classes(data.items, names)
    scores = scoring.margins(encoder, data.items, data.classes)
    answers = {}
    if data.validation is not None and len(data.validation):
        before = scoring.margins(encoder, data.validation, data.classes)
        truth = scoring.several_classes(data.validation, names)
        for i, name in enumerate(names):
            if (limit := scoring.youden(before[:, i], truth[:, i])) is not None:
                answers[name] = ((scores[:, i] >= limit).astype(float), np.flatnonzero(labels[:, i] == 1))

    def figure(places: np.ndarray) -> statistics.Aggregate:
        return partial(statistics.macro_auroc, labels=labels[places])

    return Measured("macro_auroc", np.arange(len(data.items)), scores, 0.5, figure, answers)


def _retrieved(encoder: Encoder, data: EvaluationSet) -> Measured | None:
    rows: list[int] = []
    hits: list[float] = []
    for gallery in galleries(data, group_truth=True, pairwise=False, most=None, seed=0):
        images = encoder.images(data.items)[gallery.rows]
        (found,) = search(images, encoder.texts(gallery.texts), [gallery.by_image])
        rows += gallery.rows.tolist()
        hits += found.hit(1).tolist()
    if not rows:
        return None
    return Measured("image_to_text_r1", np.array(rows), np.array(hits), None, lambda _: statistics.mean)
