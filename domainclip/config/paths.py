"""Local paths: how they are recognised, and where a recipe, which anyone may have written, may read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from domainclip.config import builtin, strict_yaml
from domainclip.errors import RecipeError

_LOCAL = re.compile(r"/\w|~[\w-]*[/\\]|\\\\|\.\.?[/\\]|file:|[A-Za-z]:[/\\]")
_DATA_FILES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".yaml")  # a Hub id may hold other dots


def is_local_path(text: str, *, strict: bool = False) -> bool:
    r"""Return whether a text is written as a path of some machine, whether it exists or not.

    True for /data, ~/data, ./data, ../data, file:/data, C:\data and \\host\share. With `strict` also for
    every text that could be such a path: one that begins with / or ~, or holds a backslash or two slashes.
    That is for the words of a command line; in a recipe, "~ {}" and "left/right/both" are texts.
    """
    if _LOCAL.match(text):
        return True
    return strict and (text.startswith(("/", "~")) or "\\" in text or text.count("/") > 1)


def resolve_path(text: str, file: Path, roots: Sequence[Path] | None, where: str) -> str:
    """Return an absolute path under one of the roots (any path, when None), or a Hub id unchanged.

    A relative path is looked up in the working folder, in the recipe's folder and among the built-in
    files, in this order. `where` is the recipe's key, for messages.

    Raises: RecipeError for a path outside the roots, with links resolved, or one that no system can have.
    """
    if strict_yaml.UNWRITABLE.search(text):
        raise RecipeError(f"{where}: not UTF-8 text, or a NUL character: rename the file or folder")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text):
        return text  # a URL: its reader decides whether it may be read
    text = os.path.expanduser(text)  # a shell leaves the ~ of corpus.path=~/data as it is
    folders = [Path.cwd(), file.parent, builtin.builtin_folder("recipes").parent]
    # `os.path.exists` is false, and raises nothing, for a name that is too long.
    existing = next((folder / text for folder in folders if os.path.exists(folder / text)), None)
    if existing is None and _is_hub_id(text):
        return text
    path = (existing or Path.cwd() / text).resolve()
    if roots is not None and not any(path.is_relative_to(root.resolve()) for root in roots):
        raise RecipeError(f'{where}: {path} lies outside the declared roots: add its folder to "roots"')
    return str(path)


def find_card_file(name: str | None, file: Path) -> str | None:
    """Return the path of a card file in the working or the recipe's folder; None: a built-in card."""
    files = [Path(folder, name) for folder in (Path.cwd(), file.parent)] if name else []
    return next((str(path.resolve()) for path in files if os.path.isfile(path)), None)


def _is_hub_id(text: str) -> bool:
    local = is_local_path(text, strict=True) or text.startswith(".") or text.endswith(_DATA_FILES)
    return text.count("/") == 1 and not local
