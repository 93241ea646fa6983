"""The column with the classes: few distinct values, several in a cell, or a flag for each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from domainclip.data.readers.guesses.column_words import (
    ACQUISITION,
    ADMINISTRATIVE,
    CLASSES,
    SOURCES,
    SUBGROUPS,
    find_word,
    words,
)
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.readers.guesses.profiles import ColumnProfile
from domainclip.data.readers.sources.columns import guess_column

_SEPARATORS = ("|", ";", ",")
_MAX_WORDS = 6  # of the name of a class
_MAX_CLASSES = 1000
_MIN_EACH = 3  # items of a class, on average
_MAX_UNNAMED, _MIN_UNNAMED = 50, 5  # classes, and items of each, where the name shows no class
_MIN_SHARE = 0.05  # of the cells that hold several classes


@dataclass(frozen=True)
class Classes:
    """The classes of a source: the guesses, and how many items each class has."""

    guesses: tuple[Guess, ...] = ()
    counts: Counter[str] | None = None

    @property
    def found(self) -> bool:
        """Whether there are classes."""
        return self.counts is not None


def guess_classes(profiles: Sequence[ColumnProfile], taken: Sequence[str], source: str) -> Classes:
    """The classes among the columns that have no other role.

    A column of the usual name comes first, then one whose name find_word what is classified, then flags.
    """
    free = [p for p in profiles if p.name not in taken and p.filled and not p.images and not p.is_split]
    usual = guess_column("labels", [profile.name for profile in free], source)
    ranked = sorted(
        (p for p in free if p.name == usual or find_word(p.name, CLASSES)),
        key=lambda p: (p.name != usual, _rank(p.name)),
    )
    for profile in ranked:
        other = find_word(profile.name, ADMINISTRATIVE) or _is_about_text(profile.name)
        if other and profile.name != usual:
            continue
        if (classes := _of_column(profile)) is not None:
            return classes
    flags = _flags([p for p in free if not find_word(p.name, SUBGROUPS)])
    return flags if flags.found else _only_candidate(free)


def _is_about_text(name: str) -> bool:
    """Whether a column, such as text_kind, is about the text and not about the image."""
    return words(name)[0] in ("text", "caption")


def _only_candidate(free: Sequence[ColumnProfile]) -> Classes:
    """The classes of the only column with few distinct values, where no name says what is classified."""
    others = (*SUBGROUPS, *ACQUISITION, *SOURCES, *ADMINISTRATIVE)
    few = [
        p
        for p in free
        if 2 <= p.distinct <= min(_MAX_UNNAMED, p.filled // _MIN_UNNAMED)
        and p.share > 0.5
        and not p.is_numeric
        and not p.is_flag
        and not p.is_address
        and not find_word(p.name, others)
        and not _is_about_text(p.name)
    ]
    return (_of_column(few[0]) or Classes()) if len(few) == 1 else Classes()


def _rank(name: str) -> int:
    word = find_word(name, CLASSES)
    return CLASSES.index(word) if word else len(CLASSES)


def _of_column(profile: ColumnProfile) -> Classes | None:
    separator, counts = _split(profile)
    if not 2 <= len(counts) <= _MAX_CLASSES or profile.words > _MAX_WORDS:
        return None
    if counts.total() < _MIN_EACH * len(counts) and _frequent(counts) < 2:
        return None  # nearly every row has another value
    reason = f"{len(counts)} distinct values in {profile.filled} of {profile.rows} rows"
    guesses = [Guess("columns.labels", profile.name, reason, profile.examples())]
    if separator:
        several = sum(n for text, n in profile.counts.items() if separator in text)
        guesses += [
            Guess("options.label_separator", separator, f"{several} cells hold several classes"),
            Guess("multi_label", True, "an item has several classes"),
        ]
    elif profile.lists:
        guesses.append(Guess("multi_label", True, f"{profile.lists} cells hold several classes"))
    return Classes(tuple(guesses), counts)


def _frequent(counts: Counter[str], least: int = 10) -> int:
    return sum(count >= least for count in counts.values())


def _split(profile: ColumnProfile) -> tuple[str | None, Counter[str]]:
    """The separator of cells with several classes, None without one, and the items of each class."""
    for separator in _SEPARATORS:
        several = sum(n for text, n in profile.counts.items() if separator in text)
        if several < _MIN_SHARE * profile.counts.total():
            continue
        parts: Counter[str] = Counter()
        for text, count in profile.counts.items():
            for part in filter(None, map(str.strip, text.split(separator))):
                parts[part] += count
        # The parts of cells of classes occur again in other cells, the parts of a sentence do not.
        if len(parts) < profile.distinct and max((len(part.split()) for part in parts), default=9) <= 4:
            return separator, parts
    return None, profile.counts


def _flags(free: Sequence[ColumnProfile]) -> Classes:
    flags = [p for p in free if p.is_flag]
    if len(flags) < 2:
        return Classes()
    counts = Counter(
        {
            p.name: sum(n for t, n in p.counts.items() if t in ("1", "1.0") or t.casefold() == "true")
            for p in flags
        }
    )
    reason = f"{len(flags)} columns hold only 1, 0, -1 or nothing: a class each"
    guesses = (
        Guess("columns.labels", [p.name for p in flags], reason),
        Guess("multi_label", True, "each class is a column of its own"),
    )
    return Classes(guesses, counts)
