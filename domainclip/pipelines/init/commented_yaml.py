"""YAML with a comment for each key that is a guess."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from domainclip.config.strict_yaml import dump_yaml

_WIDTH = 118
_MAX_FLOW = 78  # characters of a mapping on one line


def commented_yaml(data: Mapping[str, Any], comments: Mapping[str, str]) -> str:
    """The mapping as YAML; `comments` by dotted key, as in "domainclip.columns.image"."""
    return "\n".join(_lines(data, comments, "", 0)) + "\n"


def _lines(data: Mapping[str, Any], comments: Mapping[str, str], above: str, depth: int) -> Iterator[str]:
    for key, value in data.items():
        name = f"{above}{key}"
        start = f"{'  ' * depth}{dump_yaml(str(key), one_line=True)}:"
        comment = comments.get(name, "")
        inner = any(other.startswith(f"{name}.") for other in comments)
        flow = dump_yaml(value, one_line=True)
        if isinstance(value, Mapping) and value and (inner or len(flow) > _MAX_FLOW):
            yield from _commented(start, comment, depth)
            yield from _lines(value, comments, f"{name}.", depth + 1)
        else:
            yield from _commented(f"{start} {flow}", comment, depth)


def _commented(line: str, comment: str, depth: int) -> Iterator[str]:
    """The line with its comment at the end, or above it where both are too long."""
    comment = " ".join(comment.split())
    if comment and len(line) + len(comment) + 4 <= _WIDTH:
        yield f"{line}  # {comment}"
        return
    if comment:
        yield f"{'  ' * depth}# {comment}"
    yield line
