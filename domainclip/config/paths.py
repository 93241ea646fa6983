"""Local paths: how they are recognised, and where a recipe that was downloaded may read."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domainclip.config import builtin, strict_yaml
from domainclip.errors import RecipeError

LOCAL = "(local)"  # stands for a path that was taken out of a recipe or card before it was shared
_LOCAL = re.compile(r"/\w|~[\w-]*[/\\]|\\\\|\.\.?[/\\]|file:|[A-Za-z]:[/\\]")
_READER_PATHS = ("reports", "image_folder")  # options of readers that name a file or folder
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


def allowed_folders(file: Path) -> list[Path] | None:
    """Return the folders that the paths in a recipe, suite or card may lie in; None: any folder.

    The paths in a user's file are the user's. A file that was downloaded may come from anyone: its paths must
    lie in the working folder, in its folder or among the built-in files.
    """
    return (
        [Path.cwd(), file.parent, builtin.builtin_folder("recipes").parent] if is_downloaded(file) else None
    )


def is_downloaded(file: Path) -> bool:
    """Return whether a client of the Hub wrote the file: into its cache, or into a folder that was named."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface"))
    caches = [home, Path(os.environ.get("HF_HUB_CACHE", home))]
    path = Path(os.path.abspath(file))  # a file of the cache is a link to a blob in it
    if any(path.is_relative_to(cache.expanduser().absolute()) for cache in caches):
        return True
    # Next to the files of `hf download --local-dir` is a record of each.
    records = ".cache/huggingface/download"
    return any((up / records / f"{path.relative_to(up)}.metadata").is_file() for up in path.parents)


def resolve_path(text: str, file: Path, allowed: Sequence[Path] | None, where: str) -> str:
    """Return an absolute path in one of the allowed folders (any path, when None), or a Hub id unchanged.

    A relative path is looked up in the working folder, in the recipe's folder and among the built-in
    files, in this order. `where` is the recipe's key, for messages.

    Raises: RecipeError for a path outside these folders, with links resolved, or one that no system can have.
    """
    if strict_yaml.UNWRITABLE.search(text):
        raise RecipeError(f"{where}: not UTF-8 text, or a NUL character: rename the file or folder")
    if text == LOCAL:
        raise RecipeError(f"{where}: {taken_out(where.rpartition(' ')[2])}")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text):
        return text  # a URL: its reader decides whether it may be read
    text = os.path.expanduser(text)  # a shell leaves the ~ of corpus.path=~/data as it is
    folders = [Path.cwd(), file.parent, builtin.builtin_folder("recipes").parent]
    # `os.path.exists` is false, and raises nothing, for a name that is too long.
    existing = next((folder / text for folder in folders if os.path.exists(folder / text)), None)
    if existing is None and _is_hub_id(text):
        return text
    path = (existing or Path.cwd() / text).resolve()
    if allowed is not None and not any(path.is_relative_to(folder.resolve()) for folder in allowed):
        raise RecipeError(
            f"{where}: {path} lies outside the working folder and the folder of this file, which was "
            "downloaded: name the path on the command line, or copy the file"
        )
    return str(path)


def check_reader_paths(options: Any, file: Path, where: str) -> None:
    """Refuse paths outside the corpus folder among the options of a reader, in a file that was downloaded.

    Raises: RecipeError, beginning with `where`.
    """
    for key in _READER_PATHS if isinstance(options, dict) and is_downloaded(file) else ():
        name = options.get(key)
        if isinstance(name, str) and (is_local_path(name, strict=True) or ".." in Path(name).parts):
            raise RecipeError(
                f"{where}.{key}: lies outside the corpus folder, and this file was downloaded: name the path "
                "on the command line, or copy the file"
            )


def find_table_file(name: Any, corpus: str, file: Path) -> str | None:
    """Return the path of a table in the working or the recipe's folder; None: it is in the corpus folder."""
    if not isinstance(name, str) or not name:
        return None
    name = os.path.expanduser(name)
    if os.path.isfile(Path(corpus) / name):
        return None
    files = (Path(folder, name) for folder in (Path.cwd(), file.parent))
    return next((str(path.resolve()) for path in files if os.path.isfile(path)), None)


def taken_out(key: str) -> str:
    """The end of a message on a key whose path was taken out."""
    # Without one, the recipe takes the retention set of its card.
    none = ", or retention=null corpus.retention=null to measure no retention set"
    alone = none if key == "retention.path" else ""
    return (
        f"{LOCAL} stands for a path that was taken out when this was shared: name it with {key}=PATH{alone}"
    )


def find_card_file(name: str | None, file: Path, *, typed: bool = False) -> str | None:
    """Return the path of a card file in the recipe's or the working folder; None: a built-in card.

    The card that a recipe names lies beside it; a typed one (`typed`), first in the working folder.
    """
    folders = (Path.cwd(), file.parent) if typed else (file.parent, Path.cwd())
    files = [Path(folder, name) for folder in folders] if name else []
    return next((str(path.resolve()) for path in files if os.path.isfile(path)), None)


def _is_hub_id(text: str) -> bool:
    local = is_local_path(text, strict=True) or text.startswith(".") or text.endswith(_DATA_FILES)
    return text.count("/") == 1 and not local
