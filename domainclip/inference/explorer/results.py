"""The parts of the page: searches, one item, and prompts that are tried.

Legend: n items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import roc_auc_score

from domainclip.evaluation.metrics.labels import label_matrix
from domainclip.inference.classifier import Classifier, ClassQuestion
from domainclip.inference.explorer import answers
from domainclip.inference.explorer.cards import ItemCard, item_cards
from domainclip.inference.explorer.explorer import Explorer
from domainclip.inference.explorer.outcomes import Compared
from domainclip.inference.explorer.view import PER_PAGE, View

_TOP = 5


@dataclass(frozen=True)
class SearchColumn:
    """The nearest items by one model."""

    model: str
    cards: Sequence[ItemCard]


def searched(
    explorer: Explorer, view: View, compared: Compared | None, rows: np.ndarray
) -> list[SearchColumn]:
    """The nearest of some rows by each of the two models, with their ranks by the other one."""
    models, ranked = ((0, view.second) if view.second else (0,)), dict[int, list[int]]()
    cosines = {model: explorer.cosines(view, model) for model in models}
    for model, of_model in cosines.items():
        assert of_model is not None
        ranked[model] = rows[np.argsort(-of_model[rows], kind="stable")].tolist()
    columns = []
    for model, other in zip(models, models[::-1], strict=True):
        of_model, places = cosines[model], {row: rank for rank, row in enumerate(ranked[other], start=1)}
        assert of_model is not None
        shown = ranked[model][view.start : view.start + PER_PAGE // 2]
        cards = [
            replace(
                card,
                cosine=f"{of_model[card.row]:.3f}",
                place=str(view.start + i),
                elsewhere=str(places[card.row]) if model != other else "",
            )
            for i, card in enumerate(item_cards(explorer, view, compared, shown), start=1)
        ]
        columns.append(SearchColumn(explorer.explored.models[model].label, cards))
    return columns


@dataclass(frozen=True)
class ModelDetail:
    """Everything that one model answers for one item."""

    model: str
    classes: Sequence[tuple[str, str]]  # the most probable first, with a probability or score
    captions: Sequence[tuple[str, bool]]
    written: str  # by the captioner of the model; empty where it has none, or the caption must not be shown
    nearest: Sequence[ItemCard]


def item_details(explorer: Explorer, view: View, compared: Compared | None) -> list[ModelDetail]:
    """The classes, captions and nearest items of one item by each of the two models."""
    classes, details = explorer.classes(view), []
    around = View(like=view.row)
    for model in dict.fromkeys((0, view.second)):
        cosines = explorer.cosines(around, model)
        assert cosines is not None
        others = [row for row in np.argsort(-cosines, kind="stable").tolist() if row != view.row][:_TOP]
        cards = item_cards(explorer, view, compared, others)
        nearest = [replace(card, cosine=f"{cosines[card.row]:.3f}") for card in cards]
        details.append(
            ModelDetail(
                explorer.explored.models[model].label,
                _class_list(explorer, view, model) if classes else [],
                answers.captions_of_item(explorer.explored, model, view.row, _TOP),
                explorer.explored.written_caption(model, view.row),
                nearest,
            )
        )
    return details


def _class_list(explorer: Explorer, view: View, model: int) -> list[tuple[str, str]]:
    """The classes by probability, or the findings by score in logits."""
    classes = dict(explorer.classes(view))
    several = explorer.asks_findings(classes)
    if not several and len(classes) < 2:
        return []
    encoder = explorer.explored.models[model].encoder
    classifier = Classifier(encoder, ClassQuestion(classes, several))
    vector = explorer.explored.images(model)[view.row][None]
    if several:
        (findings,) = classifier.find(vector)
        scores = {name: found.score for name, found in findings.items()}
    else:
        scores = classifier.classify(vector)[0].probabilities
    ordered = sorted(scores.items(), key=lambda pair: -pair[1])
    return [(name, f"{score:.2f}") for name, score in ordered[: 2 * _TOP]]


@dataclass(frozen=True)
class TriedClass:
    """How often two models are right on the items of one class, or how well they rank a finding."""

    name: str
    items: int
    first: float
    second: float


def tried(explorer: Explorer, view: View, compared: Compared | None) -> list[TriedClass]:
    """The recall of each class, or the AUROC of each finding where both kinds of items are known."""
    classes = explorer.classes(view)
    if explorer.asks_findings(classes):
        return [row for name in classes if (row := _auroc(explorer, view, name)) is not None]
    if compared is None:
        return []
    rows = []
    for name in classes:
        known = compared.first.known & compared.second.known
        of_class = np.flatnonzero(known & np.array([name in of_item for of_item in explorer.labels]))
        if len(of_class):
            first, second = (float(one.hits[of_class].mean()) for one in (compared.first, compared.second))
            rows.append(TriedClass(name, len(of_class), first, second))
    return rows


def _auroc(explorer: Explorer, view: View, name: str) -> TriedClass | None:
    labels = label_matrix(explorer.explored.data.items, [name])[:, 0]
    known = np.flatnonzero(~np.isnan(labels))
    if len(set(labels[known].tolist())) < 2:
        return None
    areas = []
    for model in (0, view.second):
        of_model = explorer.answers(view.but(finding=name, kind="classes"), model)
        assert of_model is not None
        areas.append(float(roc_auc_score(labels[known], of_model.strengths[known])))
    return TriedClass(name, int(np.nansum(labels)), areas[0], areas[1])
