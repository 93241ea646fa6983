"""Overrides of a recipe's keys on the command line: `key=value`."""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

from domainclip.config import builtin, strict_yaml
from domainclip.errors import RecipeError

_PLACEHOLDER = re.compile(r"\{[^{}:,]+\}")  # of a template: {text}


def as_mapping(value: Any) -> Any:
    """`lora`, `[a, b]`, `{a}` and `{a: }` are short for mappings from names to options; "" is none."""
    if isinstance(value, str):
        name = value[1:-1].strip() if _PLACEHOLDER.fullmatch(value) else value
        return {name: {}} if name else {}
    if isinstance(value, list):
        return {str(name): {} for name in value}
    if isinstance(value, dict):
        return {str(key): {} if options is None else options for key, options in value.items()}
    return value


def _meant(text: str) -> str:
    """What a word without = probably names: a recipe, or a corpus."""
    if text in builtin.builtin_names("recipes", ".yaml") or text.endswith((".yaml", ".yml")):
        return f"a recipe is named with --recipe {shlex.quote(text)}; "
    return f"a corpus is named with corpus.path={shlex.quote(text)}; " if os.path.exists(text) else ""


def apply_override(data: dict[str, Any], text: str) -> None:
    """Changes `data` in place.

    Raises: RecipeError when the text is not of the form key=value.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w:-]+(\.[\w:-]+)*", key):
        raise RecipeError(f'override "{text}": {_meant(text)}write it as key=value, as in train.epochs=3')
    if strict_yaml.UNWRITABLE.search(value):
        raise RecipeError(f"override {key}: not UTF-8 text, or a NUL character: rename the file or folder")
    *path, last = key.split(".")
    place = data
    for step in path:
        inside = place.get(step)
        if isinstance(inside, str):  # `strategy: lora` overridden by strategy.lora.rank=4; `base: x` likewise
            inside = {"path": inside} if step in ("base", "corpus") else {inside: {}}
        elif isinstance(inside, list):
            inside = as_mapping(inside)
        elif not isinstance(inside, dict):
            inside = {}
        place[step] = inside
        place = inside
    place[last] = parse_value(value)


def parse_value(text: str) -> Any:
    """The value of an override, as a shell delivers it, which has taken the quotes away.

    `[a, b]` and `{a: 1}` are a list and a mapping; `3`, `1e-4`, `true` and `null` are what they are in YAML.
    Everything else is the text itself: nothing; `{text}`; `a photo of a {}`; `trial #2`; `Fig. 3: a dog`.
    """
    value = text.strip()
    if value[:1] in ("[", "{") and not _PLACEHOLDER.fullmatch(value):
        try:
            return _with_placeholders(strict_yaml.load_yaml(value, "override"))
        except RecipeError:
            items = _split_list(value)
            return text if items is None else [item if item == "{}" else parse_value(item) for item in items]
    if len(value) > 1 and value[0] == value[-1] and value[0] in ("'", '"'):
        try:
            return strict_yaml.load_yaml(value, "override")
        except RecipeError:
            return text
    return strict_yaml.parse_scalar(value) if value else text


def _with_placeholders(value: Any) -> Any:
    """Make `{}` and `{name}` texts again where they are items of a list: YAML reads them as mappings."""
    if not isinstance(value, list):
        return value
    short = [isinstance(item, dict) and list(item.values()) in ([], [None]) for item in value]
    return [f"{{{''.join(item)}}}" if is_short else item for item, is_short in zip(value, short, strict=True)]


def _split_list(text: str) -> list[str] | None:
    """The items of `[a photo of a {}, a scan of a {}]`, which is no YAML; None for another form."""
    if not re.fullmatch(r"\[[^\[\]'\"]*\]", text):
        return None
    return [item.strip() for item in text[1:-1].split(",")]
