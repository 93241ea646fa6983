"""Built-in files: recipes, data cards, suites and examples.

In a checkout they are folders at the top; in a wheel they lie under `_shipped`.
"""

from __future__ import annotations

import os
from pathlib import Path

from domainclip.errors import RecipeError, did_you_mean

_PACKAGE = Path(__file__).parent.parent


def builtin_folder(kind: str) -> Path:
    """The folder of "recipes", "data_cards", "suites" or "examples"."""
    inside = _PACKAGE / "_shipped" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def builtin_names(kind: str, suffix: str) -> list[str]:
    """The names of the built-in files of a kind, without suffix."""
    return sorted(file.stem for file in builtin_folder(kind).glob(f"*{suffix}"))


# What to do with a built-in name that was given in the place of another kind.
_USE = {
    "recipes": (".yaml", "a recipe: use it with --recipe {}"),
    "data_cards": (".md", "a data card: use it with --card {}, or as corpus.card={}"),
    "suites": (".yaml", "a suite: use it with domainclip eval --suite {}"),
    "recipes/ablations": (".yaml", "an ablation plan: use it with domainclip ablate {}"),
}


def _other_kind(kind: str, name: str) -> str | None:
    kinds = [other for other, (suffix, _) in _USE.items() if name in builtin_names(other, suffix)]
    return next((_USE[other][1].replace("{}", name) for other in kinds if other != kind), None)


def find_file(kind: str, name: str, suffix: str) -> Path:
    """The file at a path, else the built-in file of that name, with or without suffix.

    Raises: RecipeError when there is neither.
    """
    # os.path and not pathlib, which raises for a name that is too long. A pipe may be read, as of <(command).
    if os.path.exists(name) and not os.path.isdir(name):
        return Path(name)
    file = builtin_folder(kind) / (name if name.endswith(suffix) else name + suffix)
    if os.path.isfile(file) and file.parent == builtin_folder(kind):
        return file
    if os.path.isdir(name):
        raise RecipeError(f'{kind}: "{name}" is a folder: name the file in it')
    if other := _other_kind(kind, Path(name).stem):
        raise RecipeError(f'{kind}: "{name}" is {other}')
    known = builtin_names(kind, suffix)
    raise RecipeError(f'{kind}: no file or built-in name "{name}": {did_you_mean(Path(name).stem, known)}')


def copy_file(file: Path, to: Path) -> Path:
    """Copy a built-in file to a new file, or into a folder; the path of the copy.

    Raises: RecipeError when the file exists already.
    """
    target = to / file.name if to.is_dir() else to
    if target.exists():
        raise RecipeError(f"{target}: exists already; name another file")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.read_bytes())
    return target
