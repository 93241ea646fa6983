"""YAML without surprises: `1e-4` is a number, `no` is a word, and nothing executes or explodes.

Plain `yaml.safe_load` reads `1e-4` as text, `no` as false, `010` as 8 and `12:30:00` as 45000, keeps the
last of two equal keys, and expands aliases without bound. Recipes and cards need none of that.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from domainclip.errors import RecipeError

MAX_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """The YAML 1.2 core schema: its own table of implicit types, none inherited."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (pyyaml's own class attribute)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1, for other programs, or the schema above reads as another value."""

    def ignore_aliases(self, data: Any) -> bool:
        """True: `load_yaml` refuses aliases, so a value that occurs twice is written twice."""
        return True


def _implicit(tag: str, pattern: str, first: list[str]) -> None:
    for kind in (_Loader, _Dumper):
        kind.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), first)


_SIGNS = list("-+.0123456789")
_implicit("bool", r"^(?:true|True|false|False)$", list("tTfF"))
_implicit("null", r"^(?:~|null|Null|)$", ["~", "n", "N", ""])
_implicit("int", r"^[-+]?(?:0|[1-9][0-9]*)$", _SIGNS)
_implicit("float", r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$", _SIGNS)
_implicit("float", r"^[-+]?[0-9]+[eE][-+]?[0-9]+$", _SIGNS)


def load_yaml(text: str, name: str) -> Any:
    """The value of a YAML document; `name` is the file, for messages.

    Raises: RecipeError for a syntax error, a tag, an alias, a repeated key, or more than 1 MB.
    """
    if len(text) > MAX_BYTES:
        raise RecipeError(f"{name}: {len(text)} characters; a recipe or card has at most {MAX_BYTES}")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_surprises(text, name)
        _refuse_repeated_keys(node, name)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not valid YAML: {_one_line(error)}") from None
    except ValueError as error:
        raise RecipeError(f"{name}: not valid YAML: {error}") from None
    except RecursionError:
        raise RecipeError(f"{name}: not valid YAML: nested too deeply") from None


def read_yaml(file: Path, what: str) -> dict[str, Any]:
    """The mapping in a file; `what` names its content for messages, e.g. "a recipe".

    Raises: RecipeError as `load` does, and for other bytes than UTF-8 or another value; OSError.
    """
    try:
        data = load_yaml(file.read_text(encoding="utf-8"), file.name)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file.name}: not UTF-8 text, at byte {error.start}") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{file.name}: {what} is a mapping of keys to values")
    return data


def dump_yaml(value: Any, *, one_line: bool = False) -> str:
    """The value as YAML that `load_yaml` reads back unchanged, keys in their order."""
    width = 10**9 if one_line else None
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=one_line, width=width
    )
    # A scalar alone is followed by the mark that ends a document.
    return text.removesuffix("\n").removesuffix("\n...") if one_line else text


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Between single quotes, pyyaml writes U+0085 as the end of a line.
    style = None if text.isprintable() or "\n" in text else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def parse_scalar(text: str) -> Any:
    """The value of a `key=value` override: as YAML reads it, or the text itself."""
    try:
        return load_yaml(text, "override")
    except RecipeError:
        return text


def _refuse_surprises(text: str, name: str) -> None:
    for event in yaml.parse(text, Loader=_Loader):
        mark = event.start_mark
        line = mark.line + 1 if mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise RecipeError(f"{name}, line {line}: alias *{event.anchor}: write the value out instead")
        tag = getattr(event, "tag", None)
        # A quoted scalar carries the non-specific tag "!" without anyone having written one.
        if tag is not None and tag != "!":
            raise RecipeError(f"{name}, line {line}: tag {tag}: tags are not allowed here")


def _refuse_repeated_keys(node: yaml.Node, name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise RecipeError(f'{name}, line {line}: key "{key.value}" occurs twice')
            seen.add(str(key.value))
            _refuse_repeated_keys(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, name)


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)
