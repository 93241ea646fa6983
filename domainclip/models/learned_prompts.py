"""Insert learned tokens into a text: a context in front of it, and tokens for class names.

The tokenizer's config holds them: {"before": {class: context}, "names": {class: tokens}}. The class "" stands
for texts that do not name exactly one class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from domainclip.data.text.languages import UNSPACED, script

LEARNED_TOKENS = "domainclip_words"  # key in the tokenizer's config


def insert_learned_tokens(hf_tokenizer: Any, texts: list[str]) -> list[str]:
    """The texts with learned tokens in place of class names, and a learned context in front.

    The context is that of the only class that a text names, else that of all texts; without either, none.
    """
    learned: Mapping[str, Mapping[str, str]] = hf_tokenizer.init_kwargs.get(LEARNED_TOKENS) or {}
    contexts, names = learned.get("before", {}), learned.get("names", {})
    if not contexts and not names:
        return texts
    classes = [name for name in contexts if name]
    result = []
    for text in texts:
        named = learned_token_names(text, classes)
        context = contexts[named[0]] if len(named) == 1 else contexts.get("", "")
        result.append(context + _replace_names(text, names))
    return result


def learned_token_names(text: str, names: Sequence[str]) -> list[str]:
    """The classes that a text names, as whole words in any case, in the order of the text.

    A name inside a longer one, as effusion in pleural effusion, does not count.
    """
    pattern, order = _pattern(tuple(names))
    return list(dict.fromkeys(order[(match.lastindex or 1) - 1] for match in pattern.finditer(text)))


def _replace_names(text: str, names: Mapping[str, str]) -> str:
    pattern, order = _pattern(tuple(names))
    return pattern.sub(lambda match: names[order[(match.lastindex or 1) - 1]], text)


@lru_cache(maxsize=16)
def _pattern(names: tuple[str, ...]) -> tuple[re.Pattern[str], list[str]]:
    """A pattern that matches any of the names, longer ones first, and the name of each of its groups."""
    order = sorted(names, key=len, reverse=True)
    # In a script without spaces, the end of a word cannot be recognized.
    edges = [("", "") if script(name) in UNSPACED else (r"(?<!\w)", r"(?!\w)") for name in order]
    groups = [f"({left}{re.escape(name)}{right})" for name, (left, right) in zip(order, edges, strict=True)]
    return re.compile("|".join(groups) or r"(?!)", re.IGNORECASE), order
