"""Finds what ships beside the code: recipes, data cards, suites, examples.

In a checkout they are folders at the top; in a wheel they stand under `_shipped`.
"""

from __future__ import annotations

from pathlib import Path

from domainclip.errors import RecipeError, did_you_mean

_PACKAGE = Path(__file__).parent.parent


def builtin_folder(kind: str) -> Path:
    """The folder of "recipes", "data_cards", "suites" or "examples"."""
    inside = _PACKAGE / "_shipped" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def builtin_names(kind: str, suffix: str) -> list[str]:
    """The names of what ships, without suffix."""
    return sorted(file.stem for file in builtin_folder(kind).glob(f"*{suffix}"))


def find_file(kind: str, name: str, suffix: str) -> Path:
    """The file that `name` means: a path of yours first, then what ships, with or without suffix.

    Raises: RecipeError for a name that is neither.
    """
    own = Path(name)
    if own.is_file():
        return own
    file = builtin_folder(kind) / (name if name.endswith(suffix) else name + suffix)
    if file.is_file() and file.parent == builtin_folder(kind):
        return file
    known = builtin_names(kind, suffix)
    raise RecipeError(f'{kind}: no file or shipped name "{name}": {did_you_mean(own.stem, known)}')
