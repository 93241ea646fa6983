"""Overrides of a recipe's keys on the command line: `key=value`."""

from __future__ import annotations

import re
from typing import Any

from domainclip.config import strict_yaml
from domainclip.errors import RecipeError


def as_mapping(value: Any) -> Any:
    """`lora`, `[a, b]` and `{a: }` are short for mappings from names to options."""
    if isinstance(value, str):
        return {value: {}}
    if isinstance(value, list):
        return {str(name): {} for name in value}
    if isinstance(value, dict):
        return {str(key): {} if options is None else options for key, options in value.items()}
    return value


def apply_override(data: dict[str, Any], text: str) -> None:
    """Changes `data` in place.

    Raises: RecipeError when the text is not of the form key=value.
    """
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w.:-]+", key):
        raise RecipeError(f'override "{text}": write it as key=value, as in train.epochs=3')
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
    place[last] = strict_yaml.parse_scalar(value)
