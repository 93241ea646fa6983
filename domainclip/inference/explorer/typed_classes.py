"""The classes and prompts that are typed on the page: a class a line, its prompts behind a colon."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import yaml

from domainclip.data.cards import Prompts
from domainclip.errors import RecipeError, did_you_mean
from domainclip.evaluation import suites

_NEGATIVE, _NEXT = ";;", "|"
_LINE = re.compile(r'\s*(?:"(?P<quoted>[^"]+)"|(?P<name>(?!")[^:]*))\s*(?::(?P<prompts>.*))?', re.DOTALL)
_MAX_TEXTS = 20_000  # prompts of one question


def parse(text: str, templates: Sequence[str]) -> dict[str, Prompts]:
    """The classes of lines such as `cat`, `cat: a cat | a kitten` and `nodule: a nodule ;; no nodule`.

    A name with a colon stands in double quotes. A name without prompts is put into each of the templates, by
    default CLIP's first.

    Raises: RecipeError for a class that is named twice, a prompt without a class, a template without {}, or
    more prompts than a page can wait for.
    """
    classes: dict[str, Prompts] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parts = _LINE.fullmatch(line)
        name = (parts["quoted"] or parts["name"]).strip() if parts is not None else ""
        if parts is None or not name:
            raise RecipeError(f"classes: line {number} has no name before the colon: write it as cat: a cat")
        if name in classes:
            raise RecipeError(f"classes: line {number} names a class a second time: leave one of them out")
        classes[name] = _prompts(name, parts["prompts"] or "")
    if (count := len(classes) * max(1, len(templates))) > _MAX_TEXTS:
        raise RecipeError(f"classes: {count} prompts are more than {_MAX_TEXTS}: name fewer templates")
    return suites.with_templates(classes, [*templates] or suites.TEMPLATES)


def _prompts(name: str, text: str) -> Prompts:
    positive, _, negative = text.partition(_NEGATIVE)
    return Prompts(positive=_texts(positive) or [name], negative=_texts(negative))


def _texts(text: str) -> list[str]:
    return [one.strip() for one in text.split(_NEXT) if one.strip()]


def lines(classes: Mapping[str, Prompts], templates: Sequence[str]) -> str:
    """The classes as `parse` reads them; those whose prompts are the templates by their names alone."""
    return "\n".join(_line(name, prompts, templates) for name, prompts in classes.items())


def _line(name: str, prompts: Prompts, templates: Sequence[str]) -> str:
    plain = prompts.positive == [template.replace("{}", name) for template in templates]
    positive = "" if plain and not prompts.negative else f" {_NEXT} ".join(prompts.positive)
    negative = f" {_NEGATIVE} " + f" {_NEXT} ".join(prompts.negative) if prompts.negative else ""
    shown = f'"{name}"' if ":" in name else name
    return f"{shown}: {positive}{negative}" if positive or negative else shown


def as_file(classes: Mapping[str, Prompts]) -> str:
    """The classes as a YAML file for `--classes`."""
    content = {name: prompts.model_dump(exclude_defaults=True) for name, prompts in classes.items()}
    return str(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))


def check_class(name: str, classes: Mapping[str, Prompts]) -> None:
    """Refuse a class that is none of these.

    Raises: RecipeError.
    """
    if name and name not in classes:
        raise RecipeError(f"class: unknown: {did_you_mean(name, classes)}")
