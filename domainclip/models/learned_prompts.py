"""Learned tokens inside a text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from domainclip.data.text.languages import UNSPACED, script

# Where the tokenizer's config keeps what is put before a text, by the class that it names ("": before the
# rest), and what stands for the name of a class: {"before": {…}, "names": {…}}.
LEARNED_TOKENS = "domainclip_words"


def insert_learned_tokens(tokenizer: Any, texts: list[str]) -> list[str]:
    """The texts with what was learnt in them: new words for names, and a context before the whole.

    The context is that of the one class that a text names, or of all texts; without either there is none.
    """
    said: Mapping[str, Mapping[str, str]] = tokenizer.init_kwargs.get(LEARNED_TOKENS) or {}
    before, names = said.get("before", {}), said.get("names", {})
    if not before and not names:
        return texts
    classes = [name for name in before if name]
    found = []
    for text in texts:
        own = learned_token_names(text, classes)
        context = before[own[0]] if len(own) == 1 else before.get("", "")
        found.append(context + _renamed(text, names))
    return found


def learned_token_names(text: str, names: Sequence[str]) -> list[str]:
    """The classes that a text names, as whole words in any case, in the order in which it does.

    A name inside a longer one, as effusion in pleural effusion, is not named by it.
    """
    pattern, order = _pattern(tuple(names))
    return list(dict.fromkeys(order[(match.lastindex or 1) - 1] for match in pattern.finditer(text)))


def _renamed(text: str, names: Mapping[str, str]) -> str:
    pattern, order = _pattern(tuple(names))
    return pattern.sub(lambda match: names[order[(match.lastindex or 1) - 1]], text)


@lru_cache(maxsize=16)
def _pattern(names: tuple[str, ...]) -> tuple[re.Pattern[str], list[str]]:
    """What finds any of them, longer ones first, and the name that each of its groups stands for."""
    order = sorted(names, key=len, reverse=True)
    # Where a script writes no spaces, nothing says where a word ends.
    edges = [("", "") if script(name) in UNSPACED else (r"(?<!\w)", r"(?!\w)") for name in order]
    groups = [f"({left}{re.escape(name)}{right})" for name, (left, right) in zip(order, edges, strict=True)]
    return re.compile("|".join(groups) or r"(?!)", re.IGNORECASE), order
