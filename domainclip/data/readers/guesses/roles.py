"""The role of every column: split, group, captions, classes, language, truth key, source, subgroups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domainclip.data.readers.guesses import column_words
from domainclip.data.readers.guesses.caption_columns import guess_captions, is_caption_name
from domainclip.data.readers.guesses.class_columns import Classes, guess_classes
from domainclip.data.readers.guesses.column_words import find_word, words
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.readers.guesses.profiles import ColumnProfile
from domainclip.data.readers.sources.columns import guess_column

_MAX_SOURCES = 50
_LANGUAGE = 3  # letters of a code, at most


@dataclass(frozen=True)
class Roles:
    """The guesses for the columns of a source."""

    guesses: tuple[Guess, ...]
    classes: Classes
    languages: Mapping[str, str] = field(default_factory=dict)  # of each caption column

    def value(self, key: str) -> Any:
        """The guess of a key; None without one."""
        return next((guess.value for guess in self.guesses if guess.key == key), None)


def guess_roles(
    profiles: Sequence[ColumnProfile], rows: Sequence[Mapping[str, Any]], image: str, source: str
) -> Roles:
    """All roles but that of the image, which is the column `image` ("" where none names it).

    A column has one role.
    """
    guesses: list[Guess] = []
    taken = [image]

    def take(guess: Guess | None) -> None:
        if guess is not None:
            guesses.append(guess)
            taken.append(guess.value)

    take(_split(profiles, source))
    take(_group(profiles, taken, source))
    take(_language(profiles, taken, source))
    classes = guess_classes(_plain(profiles), taken, source)
    labels = classes.guesses[0].value if classes.found else []
    taken += labels if isinstance(labels, list) else [labels]
    captions, languages = guess_captions(_plain(profiles), taken, source)
    guesses += [*captions, *classes.guesses]
    taken += captions[0].value if captions else []
    if (truth := _truth(guesses, rows)) is not None:
        guesses.append(truth)
    take(_source(profiles, taken))
    guesses += _attributes(profiles, taken)
    return Roles(tuple(guesses), classes, languages)


def _plain(profiles: Sequence[ColumnProfile]) -> list[ColumnProfile]:
    """The columns that may be captions or classes: no ids, no splits, no images."""
    return [p for p in profiles if not p.images and not p.is_split]


def _split(profiles: Sequence[ColumnProfile], source: str) -> Guess | None:
    usual = guess_column("split", [p.name for p in profiles], source)
    splits = [p for p in profiles if p.is_split]
    for profile in sorted(splits, key=lambda p: p.name != usual):
        if profile.share == 1:
            sizes = ", ".join(f"{n} {name}" for name, n in sorted(profile.counts.items()))
            return Guess("columns.split", profile.name, f"all its values name splits ({sizes})")
    return None


def _group(profiles: Sequence[ColumnProfile], taken: Sequence[str], source: str) -> Guess | None:
    free = [p for p in profiles if p.name not in taken and p.distinct > 1]
    usual = guess_column("group", [p.name for p in free], source)
    named = [p for p in free if find_word(p.name, column_words.GROUPS) and _is_id(p)]
    ranked = sorted(named, key=lambda p: column_words.GROUPS.index(find_word(p.name, column_words.GROUPS)))
    for profile in [*(p for p in free if p.name == usual), *ranked]:
        if profile.distinct * 2 < profile.filled and profile.distinct < 20 and profile.name != usual:
            continue  # a class or a site rather than a group
        several = f", {profile.repeated} of them in several rows" if profile.repeated else ""
        return Guess(
            "columns.group",
            profile.name,
            f"{profile.distinct} distinct values in {profile.filled} rows{several}: one is in one split only",
            profile.examples(),
        )
    return None


def _is_id(profile: ColumnProfile) -> bool:
    """Whether a column holds ids: one word each, of a name that ends so, or of many values."""
    ends = words(profile.name)[-1] in ("id", "uid", "number", "no", "nr", "key", "name", "code")
    return profile.words <= 2 and (ends or profile.distinct > 0.1 * profile.filled)


def _language(profiles: Sequence[ColumnProfile], taken: Sequence[str], source: str) -> Guess | None:
    free = [p for p in profiles if p.name not in taken]
    usual = guess_column("language", [p.name for p in free], source)
    for profile in free:
        codes = profile.counts and all(len(c) <= _LANGUAGE and c.isalpha() for c in profile.counts)
        if profile.name == usual and codes:
            return Guess("columns.language", usual, f"{profile.distinct} codes of languages")
    return None


def _truth(guesses: Sequence[Guess], rows: Sequence[Mapping[str, Any]]) -> Guess | None:
    """The group as truth key, where nearly all images of a group have one caption."""
    by_key = {guess.key: guess.value for guess in guesses}
    group, texts = by_key.get("columns.group"), by_key.get("columns.texts")
    if not group or not texts:
        return None
    captions: dict[str, set[str]] = {}
    images: Counter[str] = Counter()
    for row in rows:
        key = str(row.get(group) or "")
        if key and row.get(texts[0]):
            captions.setdefault(key, set()).add(str(row[texts[0]]))
            images[key] += 1
    several = [key for key, count in images.items() if count > 1]
    alike = sum(len(captions[key]) == 1 for key in several)
    if len(several) < 5 or alike < 0.9 * len(several):
        return None
    reason = f"in {alike} of {len(several)} groups of several images all images have one caption"
    return Guess("columns.truth", group, reason)


def _source(profiles: Sequence[ColumnProfile], taken: Sequence[str]) -> Guess | None:
    for word in column_words.SOURCES:
        for p in profiles:
            few = 2 <= p.distinct <= min(_MAX_SOURCES, p.filled // 10) and not p.is_numeric
            if p.name not in taken and word in words(p.name) and few and p.share > 0.5:
                return Guess(
                    "columns.source", p.name, f"{p.distinct} distinct values: where images come from"
                )
    return None


def _attributes(profiles: Sequence[ColumnProfile], taken: list[str]) -> list[Guess]:
    """How images were taken, and the columns for subgroups."""
    few = [
        p
        for p in profiles
        if p.name not in taken
        and 2 <= p.distinct <= max(2, p.filled // 5)
        and p.share > 0.3
        and not is_caption_name(p.name)
    ]
    acquisition = [p for p in few if p.distinct <= 30 and find_word(p.name, column_words.ACQUISITION)]
    subgroups = [
        p
        for p in profiles
        if p.name not in taken
        and find_word(p.name, column_words.SUBGROUPS)
        and 2 <= p.distinct <= (120 if p.is_numeric else 30)
    ]
    guesses = []
    if acquisition:
        counts = ", ".join(f"{p.distinct} distinct values of {p.name}" for p in acquisition)
        guesses.append(
            Guess("columns.acquisition", [p.name for p in acquisition], f"{counts}: how images were taken")
        )
    if subgroups:
        guesses.append(Guess("columns.meta", [p.name for p in subgroups], "for results by subgroup"))
    return guesses
