"""The columns with captions, and the language of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from domainclip.data.readers.guesses.column_words import ADMINISTRATIVE, CAPTIONS, find_word, words
from domainclip.data.readers.guesses.guess import Guess
from domainclip.data.readers.guesses.profiles import ColumnProfile
from domainclip.data.readers.sources.columns import guess_column
from domainclip.data.text.languages import script
from domainclip.data.text.lexicon import find_lexicon

_TEXTS = 200  # of a column, whose language is looked at
_MIN_WORDS = 4  # of a caption, where its column has no usual name
_MIN_VOTES = 0.5
_MAX_FOREIGN = 0.3  # of the captions in other languages than English, above which they are trained on
_NAMES = {
    **{"english": "en", "german": "de", "deutsch": "de", "french": "fr", "spanish": "es", "italian": "it"},
    **{"chinese": "zh", "arabic": "ar", "hindi": "hi", "czech": "cs", "polish": "pl", "russian": "ru"},
    **{"japanese": "ja", "korean": "ko", "portuguese": "pt", "dutch": "nl", "turkish": "tr"},
}
# Codes of languages that columns are named after; "id" and "no" are other words.
_CODES = frozenset(
    [
        "en",
        "de",
        "fr",
        "es",
        "it",
        "pt",
        "nl",
        "pl",
        "cs",
        "sk",
        "ru",
        "uk",
        "bg",
        "tr",
        "el",
        "hu",
        "ro",
        "sv",
        "da",
        "fi",
        "nb",
        "fa",
        "he",
        "ar",
        "hi",
        "bn",
        "ta",
        "te",
        "th",
        "vi",
        "ko",
        "ja",
        "zh",
        "sw",
    ]
)


def guess_captions(
    profiles: Sequence[ColumnProfile], taken: Sequence[str], source: str
) -> tuple[list[Guess], dict[str, str]]:
    """The guesses of `columns.texts` and of the languages, and the language of each caption column.

    `taken` are columns with another role.
    """
    free = [p for p in profiles if p.name not in taken and p.filled and not p.images]
    chosen, reason = _caption_columns(free, source)
    if not chosen:
        return [], {}
    languages = {profile.name: language_of(profile) for profile in chosen}
    left_out = _foreign(chosen, languages)
    used = [profile for profile in chosen if profile.name not in left_out]
    languages = {profile.name: languages[profile.name] for profile in used}
    if left_out:
        reason += (
            f"; {_listed(left_out)} left out: few captions, in languages that an English model cannot read"
        )
    guesses = [Guess("columns.texts", [p.name for p in used], reason, used[0].examples())]
    codes = sorted(set(filter(None, languages.values())))
    if len(codes) > 1:
        why = "the ends of the names, or the scripts and the most frequent words of the captions"
        guesses.append(Guess("columns.languages", {n: c for n, c in languages.items() if c}, why))
    return guesses, languages


def _caption_columns(free: Sequence[ColumnProfile], source: str) -> tuple[list[ColumnProfile], str]:
    """The columns of the captions, and why."""
    usual = guess_column("texts", [profile.name for profile in free], source)
    named = [p for p in free if is_caption_name(p.name) and not p.is_numeric and not p.is_flag]
    texts = [p for p in named if p.words >= 2 or p.name == usual] or named
    if texts:
        texts = _without_copies(texts)
        by_stem = Counter(words(p.name)[0] for p in texts)
        stem = words(usual)[0] if usual and words(usual)[0] in by_stem else by_stem.most_common(1)[0][0]
        family = [p for p in texts if words(p.name)[0] == stem]
        if stem in ("findings", "impression", "finding"):
            family = [p for p in texts if words(p.name)[0] in ("findings", "impression", "conclusion")]
        return family, _described(family, "named as captions")
    longest = max(
        (
            p
            for p in free
            if p.words >= _MIN_WORDS
            and p.distinct > 0.05 * p.filled
            and not find_word(p.name, ADMINISTRATIVE)
            and not p.is_address
        ),
        key=lambda p: p.words * p.share,
        default=None,
    )
    return ([longest], _described([longest], "the column with the longest texts")) if longest else ([], "")


def is_caption_name(name: str) -> bool:
    """Whether a column is named as captions are: text, caption_2, text_de, "Report (English)"."""
    first, *rest = words(name) or [""]
    return first in CAPTIONS and all(
        part.isdecimal()
        or part in _CODES
        or part in _NAMES
        or part in CAPTIONS
        or re.fullmatch("multi30k|v\\d+", part)
        for part in rest
    )


def _without_copies(texts: Sequence[ColumnProfile]) -> list[ColumnProfile]:
    """The columns without one whose captions are all in another: `text` beside `text_en`."""
    kept: list[ColumnProfile] = []
    for profile in texts:
        others = [p for p in texts if p is not profile and p.counts.keys() >= profile.counts.keys()]
        same = [
            p for p in others if p.counts.keys() > profile.counts.keys() or len(p.name) > len(profile.name)
        ]
        if not same:
            kept.append(profile)
    return kept


def language_of(profile: ColumnProfile) -> str:
    """The language of a column: by the end of its name, else by its script and most frequent words."""
    for part in reversed(words(profile.name)[1:]):
        if part in _CODES:
            return part
        if part in _NAMES:
            return _NAMES[part]
    return language_of_texts(list(islice(profile.counts, _TEXTS)))


def language_of_texts(texts: Sequence[str]) -> str:
    """The language of most texts, by script and function words; "" where none is clear."""
    votes: Counter[str] = Counter()
    for text in texts:
        code = find_lexicon(text).language
        votes[code] += len(text.split()) if script(text) == "Latin" else 1 + len(text) // 4
    if not votes:
        return ""
    code, most = votes.most_common(1)[0]
    return code if most >= _MIN_VOTES * votes.total() else ""


def _foreign(chosen: Sequence[ColumnProfile], languages: dict[str, str]) -> list[str]:
    """The columns in other languages than English, where these are few of the captions."""
    foreign = [p for p in chosen if languages[p.name] not in ("en", "")]
    total, share = sum(p.filled for p in chosen), sum(p.filled for p in foreign)
    return [p.name for p in foreign] if 0 < share <= _MAX_FOREIGN * total else []


def _described(columns: Sequence[ColumnProfile], reason: str) -> str:
    first = columns[0]
    return (
        f"{reason}; {first.name} is filled in {first.filled} of {first.rows} rows, {first.words:g} words each"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
