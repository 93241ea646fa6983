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
_MAX_DEPTH = 50
UNWRITABLE = re.compile(r"[\x00\ud800-\udfff]")  # no path and no UTF-8 file can hold them


class _Loader(yaml.SafeLoader):
    """The YAML 1.2 core schema: its own table of implicit types, none inherited."""

    yaml_implicit_resolvers: dict[str, Any] = {}


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
    """The value of a YAML document, its keys as text; `name` is the file, for messages.

    Raises: RecipeError for a syntax error, a tag, an alias, a repeated key or one that is no text, a NUL
    character, more than 50 levels, or more than 1 MB.
    """
    if len(text) > MAX_BYTES:
        raise RecipeError(f"{name}: {len(text)} characters; a recipe or card has at most {MAX_BYTES}")
    try:
        _refuse_surprises(text, name)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(node, name)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not valid YAML: {_one_line(error)}") from None
    except ValueError:  # of int()
        raise RecipeError(f"{name}: a number of thousands of digits: write a shorter one") from None


def read_yaml(file: Path, what: str) -> dict[str, Any]:
    """The mapping in a file; `what` names its content for messages, e.g. "a recipe".

    Raises: RecipeError as `load_yaml` and `read_text` do, and for another value than a mapping.
    """
    data = load_yaml(read_text(file), file.name)
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


def read_text(file: Path) -> str:
    """The text of a UTF-8 file of at most 1 MB, without a byte-order mark.

    Raises: RecipeError for other bytes, a larger file, or one that cannot be read.
    """
    try:
        with file.open("rb") as stream:  # a device or a pipe may have no end
            data = stream.read(4 * MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{file}: cannot be read: {error.strerror}") from None
    if len(data) > 4 * MAX_BYTES:
        raise RecipeError(f"{file.name}: more than {4 * MAX_BYTES} bytes: name a recipe, a card or a plan")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{file.name}: not UTF-8 text, at byte {error.start}") from None


def parse_scalar(text: str) -> Any:
    """The value of a word: the number, truth value or null that YAML reads in it, else the text."""
    loader = _Loader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    try:
        return loader.construct_object(yaml.ScalarNode(tag, text))
    except ValueError:  # a number of thousands of digits
        return text


def _refuse_surprises(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise RecipeError(f"{name}, line {line}: more than {_MAX_DEPTH} levels of nesting: write fewer")
        if isinstance(event, yaml.AliasEvent):
            raise RecipeError(f"{name}, line {line}: alias *{event.anchor}: write the value out instead")
        tag = getattr(event, "tag", None)
        # A quoted scalar carries the non-specific tag "!" without anyone having written one.
        if tag is not None and tag != "!":
            raise RecipeError(f"{name}, line {line}: tag {tag}: tags are not allowed here")


def _check_node(node: yaml.Node, name: str) -> None:
    if isinstance(node, yaml.ScalarNode) and UNWRITABLE.search(node.value):
        line = node.start_mark.line + 1 if node.start_mark else 1
        raise RecipeError(f"{name}, line {line}: a NUL character or half a character pair: remove it")
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, name)
        for key, value in node.value:
            _check_node(key, name)
            _check_node(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_node(item, name)


def _check_keys(node: yaml.MappingNode, name: str) -> None:
    """Refuse repeated and empty keys, and make text of the others: `1:` names the class "1"."""
    seen: set[str] = set()
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or not key.value.strip():
            raise RecipeError(
                f"{name}, line {line}: a key must be a text, not a list or a mapping, nor empty"
            )
        if key.value in seen:
            raise RecipeError(f'{name}, line {line}: key "{key.value}" occurs twice: remove one of them')
        seen.add(key.value)
        key.tag = "tag:yaml.org,2002:str"


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}: {problem}" if mark else str(problem)
