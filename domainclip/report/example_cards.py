"""The examples of a report as texts and images for the template."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from domainclip.evaluation.metrics.first_answers import Answer
from domainclip.report import phrasing
from domainclip.report.context import Example, Examples, ModelAnswers

_CAPTION, _ANSWER = 240, 120  # letters that are shown of an item's caption, and of an answer


@dataclass(frozen=True)
class Column:
    """The answers of one model."""

    model: str
    label: Answer | None
    rank: str
    captions: Sequence[Answer]


@dataclass(frozen=True)
class ExampleCard:
    """One image with the answers of each model."""

    image: Markup
    heat: Markup | str
    caption: str
    label: str
    columns: Sequence[Column]


@dataclass(frozen=True)
class CardGroup:
    """The cards of one kind of example."""

    heading: str
    cards: Sequence[ExampleCard]


@dataclass(frozen=True)
class CardSection:
    """All examples of a report."""

    note: str
    has_heat: bool
    groups: Sequence[CardGroup]


def cards(examples: Examples) -> CardSection:
    """The examples as texts, with their number and what counts as right."""
    groups = [
        CardGroup(_heading(group.kind, group.total, len(group.examples)), [_card(e) for e in group.examples])
        for group in examples.groups
    ]
    return CardSection(_note(examples), any(card.heat for group in groups for card in group.cards), groups)


def _heading(kind: str, total: int, shown: int) -> str:
    if not total:
        return f"{kind}: none"
    if not shown:
        return f"{kind}: {total}, shown above"
    return f"{kind}: {shown} of {total}" if shown < total else f"{kind}: {total}"


def _note(examples: Examples) -> str:
    if not examples.captions:
        return (
            f"Chosen from {examples.images} images by the class that each model names first. The hardest are "
            "those whose class has the worst rank."
        )
    return (
        f"Chosen from {examples.images} images, for each of which {examples.captions} different captions are "
        f"ranked by similarity. Right are {examples.right}; of several, the first is shown. The rank is that "
        "of the first right caption. The hardest are those with the worst rank; an image is shown once."
    )


def _card(example: Example) -> ExampleCard:
    names = ("Base", "Adapted") if len(example.models) > 1 else ("Model",)
    return ExampleCard(
        _data_uri(example.image),
        "" if example.heat is None else _data_uri(example.heat),
        _short(example.caption, _CAPTION),
        example.label,
        [_column(name, answers) for name, answers in zip(names, example.models, strict=True)],
    )


def _column(name: str, answers: ModelAnswers) -> Column:
    return Column(
        name,
        answers.label,
        "" if answers.rank is None else phrasing.number(answers.rank, "rank"),
        [Answer(_short(answer.text, _ANSWER), answer.right) for answer in answers.captions],
    )


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1].rstrip()}…"


def _data_uri(png: bytes) -> Markup:
    return Markup("data:image/png;base64,{}").format(base64.b64encode(png).decode("ascii"))
