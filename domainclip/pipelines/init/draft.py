"""The draft of a card: the guesses for a corpus, made from its files before any item is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from domainclip.data.readers.guesses.domain import DomainGuess, guess_domain
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.readers.guesses.image_column import ImageColumn
from domainclip.data.readers.guesses.profiles import ColumnProfile
from domainclip.data.readers.guesses.roles import Roles
from domainclip.data.readers.guesses.source_rows import SourceRows

Ask = Callable[[str, Sequence[str]], str | None]  # a question and the choices; None: nobody answers
_TEXTS = 2000


@dataclass(frozen=True)
class Draft:
    """The guesses for a corpus, and what they were made from."""

    path: str  # that the recipe names
    about: str  # the files, in words
    reader: str
    guesses: tuple[Guess, ...]
    domain: DomainGuess
    classes: Counter[str] = field(default_factory=Counter)
    languages: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    template: str = ""  # of the captions, where attributes or keywords make them
    why_reader: str = ""
    text_share: float = 1.0  # the largest share of rows that a caption column fills
    readable: bool = True  # whether init reads the items itself: not those of another machine

    def value(self, key: str) -> Any:
        """The guess of a key; None without one."""
        return next((guess.value for guess in self.guesses if guess.key == key), None)

    @property
    def has_texts(self) -> bool:
        """Whether there are captions that someone wrote."""
        return bool(self.value("columns.texts"))

    @property
    def has_classes(self) -> bool:
        """Whether items have classes."""
        return bool(self.value("columns.labels"))


def draft_of_rows(
    path: str,
    about: str,
    reader: str,
    guesses: Sequence[Guess],
    roles: Roles,
    source: SourceRows,
    profiles: Sequence[ColumnProfile],
    files: Literal["fits", ""] = "",
) -> Draft:
    languages = sorted(set(filter(None, roles.languages.values())))
    return Draft(
        path=str(Path(path).resolve()) if Path(path).exists() else path,
        about=about,
        reader=reader,
        guesses=(*guesses, *roles.guesses),
        domain=guess_domain(source.columns, caption_texts(profiles, roles), class_names(roles), files),
        classes=roles.classes.counts or Counter(),
        languages=tuple(languages),
        columns=tuple(source.columns),
        text_share=max(
            (p.share for p in profiles if p.name in (roles.value("columns.texts") or [])), default=1.0
        ),
    )


def caption_texts(profiles: Sequence[ColumnProfile], roles: Roles) -> Iterable[str]:
    captions = roles.value("columns.texts") or []
    return islice((text for p in profiles if p.name in captions for text in p.counts), _TEXTS)


def class_names(roles: Roles) -> Iterable[str]:
    return islice(roles.classes.counts or (), 100)


def image_reason(image: ImageColumn) -> str:
    if image.folder is None:
        return f"{image.existing} of {image.tried} cells hold an image"
    if not image.existing:
        return "its cells are named as image files, but none of the first is there"
    return f"{image.existing} of the first {image.tried} cells name files"
