"""Names that a person typed: the files that they are, before anything is loaded.

Only the standard library is imported, so that a typing error costs no second.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domainclip.data.files.locations import split_location
from domainclip.errors import DataError, ModelError, RecipeError, did_you_mean

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_MODEL_FILES = ("config.json", "adapter_config.json", "open_clip_config.json")
_CHECKPOINT_FILES = ("MANIFEST.json", "state.json")


@dataclass(frozen=True)
class TypedFile:
    """A file or folder that exists, or a position in one such as scan.dcm#frame=3."""

    name: str  # as it was typed, or as a pattern matched it
    path: str  # where it is read

    @property
    def file(self) -> Path:
        """The file or folder on the disk."""
        return Path(split_location(self.path)[0])


def find_files(words: Sequence[str]) -> list[TypedFile]:
    """The files and folders that the words name, in their order, each once; a word may be a pattern.

    Raises: DataError for the first word that names nothing.
    """
    found: dict[str, TypedFile] = {}
    for word in words:
        for name in _matches(word):
            path = os.path.expanduser(name)
            found.setdefault(os.path.abspath(path), TypedFile(name, path))
    return list(found.values())


def _matches(word: str) -> list[str]:
    if _ADDRESS.match(word):
        raise DataError(f"{word}: an address, not a file: fetch it first; images are not downloaded")
    path = os.path.expanduser(word)
    if os.path.lexists(split_location(path)[0]):  # also a file with a * in its name, and a link to nowhere
        return [word]
    if any(mark in word for mark in "*?["):
        names = sorted(glob.glob(path, recursive=True))
        if names:
            return names
        raise DataError(f"{word}: no file has a name of this pattern")
    if "{" in word and word.endswith(".tar"):
        return [word]  # shards, expanded by their reader
    raise DataError(f"{word}: no such file or folder")


def check_model(name: str) -> None:
    """Refuse the name of a run or model that cannot be one; a name of the Hub passes.

    Raises: ModelError with the remedy.
    """
    path = Path(name).expanduser()
    if path.is_file():
        raise ModelError(f"{name}: a file: name the run folder, as runs/medical_xray-1")
    if not path.is_dir():
        # runs/a-1 could be a repository OWNER/NAME, unless there is a folder runs here.
        on_hub = name.count("/") == 1 and name[0] not in "./~"
        if on_hub and not path.parent.is_dir():
            return
        folders = [one.name for one in path.parent.iterdir() if one.is_dir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, folders)
        raise ModelError(
            f"{name}: no such run or model folder{f': {near}' if near.startswith('did') else ''}"
        )
    if any((folder / file).is_file() for folder in (path, path / "model") for file in _MODEL_FILES):
        return
    if all((path / file).is_file() for file in _CHECKPOINT_FILES):
        return
    if seeds := sorted(folder.parent.name for folder in path.glob("seed-*/model")):
        raise ModelError(f"{name}: holds a run for each seed: name one, as {Path(name) / seeds[0]}")
    if (path / "recipe.yaml").is_file():
        raise ModelError(
            f"{name}: this run has no model yet: continue it with domainclip finetune --resume "
            f"--run-dir {shlex.quote(name)}"
        )
    raise ModelError(f"{name}: neither a run folder nor a model folder: name one, as runs/medical_xray-1")


def check_new_file(file: Path, suffixes: Sequence[str], option: str) -> None:
    """Refuse a file to write that exists, has another suffix, or lies in no folder.

    Raises: RecipeError.
    """
    if file.suffix.lower() not in suffixes:
        raise RecipeError(f"{option} {file}: unknown kind of file: end its name in {', '.join(suffixes)}")
    if file.exists():
        raise RecipeError(f"{option} {file}: exists already: name another file")
    if not file.parent.is_dir():
        raise RecipeError(f"{option} {file}: no such folder: make it first")
