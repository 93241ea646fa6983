"""Scripts and languages of captions, and what a tokeniser makes of them.

Legend: t tokens of a caption without the special ones.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

# The first word of a letter's Unicode name says its script; these are named otherwise.
_NAMED = {"cjk": "Han", "hiragana": "Kana", "katakana": "Kana", "katakana-hiragana": "Kana"}
_SCRIPTS = frozenset(
    (
        *("latin", "greek", "cyrillic", "armenian", "hebrew", "arabic", "syriac", "thaana", "devanagari"),
        *("bengali", "gurmukhi", "gujarati", "oriya", "tamil", "telugu", "kannada", "malayalam", "sinhala"),
        *("thai", "lao", "tibetan", "myanmar", "georgian", "ethiopic", "khmer", "mongolian", "hangul"),
        *("bopomofo", "cherokee"),
    )
)
RIGHT_TO_LEFT = frozenset({"Arabic", "Hebrew", "Syriac", "Thaana"})
# Written without spaces: characters are counted in the place of words.
UNSPACED = frozenset({"Han", "Japanese", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"})
# The tokenizer of CLIP, made for English, has 0.27 tokens a character there, 0.40 in German, 0.65 in Czech;
# and 1.0 in Arabic, 1.3 in Hindi, 2.3 in Chinese, where it is down to bytes (measured on 16,810 captions of
# a thousand photographs). One made for Chinese takes 1 token a character.
_TOO_MANY, _TOO_MANY_UNSPACED = 0.8, 1.2
_BETTER = {
    "Han": "OFA-Sys/chinese-clip-vit-base-patch16 or google/siglip2-base-patch16-224",
    "": "google/siglip2-base-patch16-224, or a vision-text dual encoder with an XLM-RoBERTa text tower",
}


@dataclass(frozen=True)
class LanguageProfile:
    """The captions of one language in one script."""

    language: str  # "" when unknown
    script: str
    captions: int
    words: int  # or characters, see `unit`
    unit: str  # "word", or "character" in scripts without spaces
    tokens: int  # special ones not counted
    characters: int  # without spaces
    truncated: int  # captions that are longer than the base reads
    right_to_left: bool

    @property
    def tokens_per_word(self) -> float:
        """Tokens a word, or a character in scripts without spaces."""
        return self.tokens / max(1, self.words)

    @property
    def tokens_per_character(self) -> float:
        """Near 0.25 where a tokeniser knows the words, near 1 and above where it is down to bytes."""
        return self.tokens / max(1, self.characters)

    @property
    def share_truncated(self) -> float:
        """The share of captions whose end the base never reads."""
        return self.truncated / max(1, self.captions)


def profile_captions(
    texts: Sequence[str],
    languages: Sequence[str],
    count_tokens: Callable[[list[str]], Sequence[int]],
    max_tokens: int,
) -> list[LanguageProfile]:
    """One row for each language and script, the commonest first.

    `count_tokens` gives lengths before truncation, special tokens included; texts and languages go
    side by side.
    """
    distinct = sorted({*texts, ""})
    lengths = dict(zip(distinct, count_tokens(distinct), strict=True))
    by: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for text, language in zip(texts, languages, strict=True):
        by[language, script(text)].append(text)
    rows = []
    for (language, name), own in sorted(by.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        rows.append(
            LanguageProfile(
                language=language,
                script=name,
                captions=len(own),
                words=sum(map(count_words, own)),
                unit="character" if name in UNSPACED else "word",
                tokens=sum(max(0, lengths[text] - lengths[""]) for text in own),
                characters=sum(len("".join(text.split())) for text in own),
                truncated=sum(lengths[text] > max_tokens for text in own),
                right_to_left=name in RIGHT_TO_LEFT,
            )
        )
    return rows


def tokenizer_warnings(rows: Sequence[LanguageProfile]) -> list[str]:
    """A line for each script that the base's tokeniser splits into bytes, naming a better base."""
    by: defaultdict[str, list[LanguageProfile]] = defaultdict(list)
    for row in rows:
        by[row.script].append(row)
    latin = [row for row in rows if row.script == "Latin"]
    lines = []
    for name, own in by.items():
        rate = _rate(own)
        if name in ("Emoji", "None") or rate < (_TOO_MANY_UNSPACED if name in UNSPACED else _TOO_MANY):
            continue
        beside = f" ({_rate(latin):.2f} in Latin script)" if latin and name != "Latin" else ""
        n, cut = sum(r.captions for r in own), sum(r.truncated for r in own)
        lines.append(
            f"the base splits {name} script into bytes: {rate:.2f} tokens a character{beside}, {cut} of {n} "
            f"captions cut; take a base that knows the script: {_BETTER.get(name, _BETTER[''])}"
        )
    return lines


def _rate(rows: Sequence[LanguageProfile]) -> float:
    return sum(r.tokens for r in rows) / max(1, sum(r.characters for r in rows))


def to_nfc(text: str) -> str:
    """The text in composed form (NFC): "e" and a combining accent are one letter, as tokenisers expect."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def script(text: str) -> str:
    """The script of most letters of a text; "Emoji" when there are only pictures, "None" without either."""
    tally = Counter(map(_script_of, text))
    tally.pop("", None)
    pictures = tally.pop("Emoji", 0)
    if not tally:
        return "Emoji" if pictures else "None"
    if tally["Kana"]:  # Chinese never holds kana, Japanese nearly always does
        return "Japanese"
    return max(sorted(tally), key=tally.__getitem__)


def count_words(text: str) -> int:
    """Words, or characters in scripts without spaces."""
    if script(text) in UNSPACED:
        return sum(character.isalnum() for character in text)
    return len(text.split())


@lru_cache(maxsize=2**16)
def _script_of(character: str) -> str:
    if unicodedata.category(character) == "So" and character >= "\u2600":
        return "Emoji"
    if not character.isalpha():
        return ""
    parts = unicodedata.name(character, "").casefold().split()
    word = next((part for part in parts[:2] if part in _SCRIPTS or part in _NAMED), "")
    return _NAMED.get(word, word.capitalize())
