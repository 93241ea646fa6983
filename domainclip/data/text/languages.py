"""Scripts and languages of captions, and how many tokens a tokenizer needs for them.

Legend: t tokens of a caption without the special ones.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

# The first word of a letter's Unicode name is its script; these names differ.
_SCRIPT_OF_WORD = {"cjk": "Han", "hiragana": "Kana", "katakana": "Kana", "katakana-hiragana": "Kana"}
_SCRIPTS = frozenset(
    (
        *("latin", "greek", "cyrillic", "armenian", "hebrew", "arabic", "syriac", "thaana", "devanagari"),
        *("bengali", "gurmukhi", "gujarati", "oriya", "tamil", "telugu", "kannada", "malayalam", "sinhala"),
        *("thai", "lao", "tibetan", "myanmar", "georgian", "ethiopic", "khmer", "mongolian", "hangul"),
        *("bopomofo", "cherokee"),
    )
)
RIGHT_TO_LEFT = frozenset({"Arabic", "Hebrew", "Syriac", "Thaana"})
# Scripts without spaces: characters are counted instead of words.
UNSPACED = frozenset({"Han", "Japanese", "Thai", "Lao", "Khmer", "Myanmar", "Tibetan"})
# CLIP's tokenizer, made for English, needs 0.27 tokens a character there, 0.40 in German, 0.65 in Czech; and
# 1.0 in Arabic, 1.3 in Hindi, 2.3 in Chinese, where it falls back to bytes (measured on 16,810 captions of a
# thousand photographs). One made for Chinese needs 1 token a character.
_MAX_RATE, _MAX_RATE_UNSPACED = 0.8, 1.2  # tokens a character
_ALTERNATIVES = {
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
    tokens: int  # without special ones
    characters: int  # without spaces
    truncated: int  # captions longer than the base reads
    right_to_left: bool

    @property
    def tokens_per_word(self) -> float:
        """Tokens a word, or a character in scripts without spaces."""
        return self.tokens / max(1, self.words)

    @property
    def tokens_per_character(self) -> float:
        """Near 0.25 where a tokenizer has the words, near 1 and above where it falls back to bytes."""
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
    """One profile for each language and script, the most frequent first.

    `languages` holds the language of each text; `count_tokens` returns lengths before truncation, special
    tokens included.
    """
    distinct = sorted({*texts, ""})
    lengths = dict(zip(distinct, count_tokens(distinct), strict=True))
    by_language: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for text, language in zip(texts, languages, strict=True):
        by_language[language, script(text)].append(text)
    profiles = []
    for (language, name), group in sorted(by_language.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        profiles.append(
            LanguageProfile(
                language=language,
                script=name,
                captions=len(group),
                words=sum(map(count_words, group)),
                unit="character" if name in UNSPACED else "word",
                tokens=sum(max(0, lengths[text] - lengths[""]) for text in group),
                characters=sum(len("".join(text.split())) for text in group),
                truncated=sum(lengths[text] > max_tokens for text in group),
                right_to_left=name in RIGHT_TO_LEFT,
            )
        )
    return profiles


def tokenizer_warnings(profiles: Sequence[LanguageProfile]) -> list[str]:
    """A line for each script that the base's tokenizer splits into bytes, with a better base."""
    by_script: defaultdict[str, list[LanguageProfile]] = defaultdict(list)
    for profile in profiles:
        by_script[profile.script].append(profile)
    latin = by_script.get("Latin", [])
    lines = []
    for name, group in by_script.items():
        rate = _rate(group)
        if name in ("Emoji", "None") or rate < (_MAX_RATE_UNSPACED if name in UNSPACED else _MAX_RATE):
            continue
        compared = f" ({_rate(latin):.2f} in Latin script)" if latin and name != "Latin" else ""
        n, cut = sum(p.captions for p in group), sum(p.truncated for p in group)
        lines.append(
            f"the base splits {name} script into bytes: {rate:.2f} tokens a character{compared}, {cut} of "
            f"{n} captions truncated; take a base that knows the script: "
            f"{_ALTERNATIVES.get(name, _ALTERNATIVES[''])}"
        )
    return lines


def _rate(profiles: Sequence[LanguageProfile]) -> float:
    return sum(p.tokens for p in profiles) / max(1, sum(p.characters for p in profiles))


def to_nfc(text: str) -> str:
    """The text in composed form (NFC): "e" with a combining accent is one letter, as tokenizers expect."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def script(text: str) -> str:
    """The script of most letters of a text; "Emoji" when there are only symbols, "None" without either."""
    tally = Counter(map(_script_of, text))
    tally.pop("", None)
    emoji = tally.pop("Emoji", 0)
    if not tally:
        return "Emoji" if emoji else "None"
    if tally["Kana"]:  # Chinese never contains kana, Japanese nearly always does
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
    word = next((part for part in parts[:2] if part in _SCRIPTS or part in _SCRIPT_OF_WORD), "")
    return _SCRIPT_OF_WORD.get(word, word.capitalize())
