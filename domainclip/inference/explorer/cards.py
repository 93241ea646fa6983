"""Items as the page shows them: an image or an id, the truth, and the answer of each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domainclip.inference.explorer.answers import Answers
from domainclip.inference.explorer.explorer import Explorer
from domainclip.inference.explorer.outcomes import NAMES, Compared
from domainclip.inference.explorer.view import View
from domainclip.report import phrasing

_CAPTION = 200  # letters that are shown


@dataclass(frozen=True)
class CardAnswer:
    """The answer of one model for one item."""

    model: str
    text: str
    right: bool | None  # None where the truth is not known
    strength: str
    rank: str


@dataclass(frozen=True)
class ItemCard:
    """One item."""

    row: int
    id: str
    group: str
    labels: str
    caption: str
    outcome: str  # a key of NAMES, or ""
    outcome_name: str
    answers: Sequence[CardAnswer]
    cosine: str = ""
    place: str = ""  # its rank in the search
    elsewhere: str = ""  # its rank in the same search by the other model


def item_cards(
    explorer: Explorer, view: View, compared: Compared | None, rows: Sequence[int]
) -> list[ItemCard]:
    """The cards of some rows, in their order."""
    explored, chosen = explorer.explored, [int(row) for row in rows]
    items = explored.data.items.select(chosen)
    ids, groups, captions = items["id"][:], items["group"][:], explored.captions(chosen)
    models = (0, view.second) if view.second else (0,)
    of_models = [compared.first, compared.second][: len(models)] if compared is not None else []
    answers = [
        _answers(explored.models[model].label, of_model, chosen)
        for model, of_model in zip(models, of_models, strict=False)
    ]
    outcomes = ["" if compared is None else compared.outcome(row) for row in chosen]
    return [
        ItemCard(
            row=row,
            id=str(ids[i]),
            group=str(groups[i]),
            labels=", ".join(shown_labels(explorer, row)),
            caption=_short(captions[i]),
            outcome=outcomes[i],
            outcome_name=NAMES.get(outcomes[i], ""),
            answers=[of_model[i] for of_model in answers],
        )
        for i, row in enumerate(chosen)
    ]


def shown_labels(explorer: Explorer, row: int) -> list[str]:
    """The labels of an item that may be shown: others than the classes may be names of persons."""
    labels = explorer.labels[row]
    if not explorer.explored.card.names_may_show:
        labels = labels & set(explorer.explored.data.classes)
    return sorted(labels)


def strength_text(value: float) -> str:
    """A probability, a score or a cosine with as many digits as the page has room for."""
    return "" if np.isnan(value) else f"{value:.2f}"


def _answers(model: str, answers: Answers, rows: Sequence[int]) -> list[CardAnswer]:
    texts, right, known = answers.describe(rows), answers.right, answers.known
    return [
        CardAnswer(
            model,
            _short(text),
            bool(right[row]) if known[row] else None,
            strength_text(float(answers.strengths[row])),
            "" if np.isnan(answers.ranks[row]) else phrasing.number(float(answers.ranks[row]), "rank"),
        )
        for row, text in zip(rows, texts, strict=True)
    ]


def _short(text: str) -> str:
    return text if len(text) <= _CAPTION else f"{text[: _CAPTION - 1].rstrip()}…"
