"""Where the paths of a recipe may lie: a recipe may come from anyone."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from domainclip.config import builtin
from domainclip.errors import RecipeError


def resolve_path(text: str, file: Path, roots: Sequence[Path] | None, where: str) -> str:
    """An absolute path under one of the roots (any path, when None), or a Hub id unchanged.

    A relative path starts at the working folder, the recipe's own, or what ships: the first that has it.

    Raises: RecipeError for a path outside the roots, links followed.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text):
        return text  # an address: whether it may be read, its reader knows
    text = os.path.expanduser(text)  # a shell leaves ~ alone behind corpus.path=
    bases = [Path.cwd(), file.parent, builtin.builtin_folder("recipes").parent]
    found = next((base / text for base in bases if (base / text).exists()), None)
    if found is None and not _looks_local(text):
        return text  # a Hub id
    path = (found or Path.cwd() / text).resolve()
    if roots is not None and not any(path.is_relative_to(root.resolve()) for root in roots):
        raise RecipeError(f'{where}: {path} lies outside the declared roots: add its folder to "roots"')
    return str(path)


def own_card(name: str | None, file: Path) -> str | None:
    """The absolute path of a card of one's own, beside the working folder or the recipe; None: it ships."""
    found = [Path(folder, name) for folder in (Path.cwd(), file.parent)] if name else []
    return next((str(path.resolve()) for path in found if path.is_file()), None)


def _looks_local(text: str) -> bool:
    files = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".yaml")  # a Hub id may hold other dots
    return text.startswith((".", "/", "~")) or text.count("/") != 1 or text.endswith(files)
