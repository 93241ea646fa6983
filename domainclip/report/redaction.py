"""What may be said in public: recipes without local paths, and a search for what must never leave.

The allow-list of `hub` decides which files leave. This is the second gate: it reads their text.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from domainclip.config.paths import is_local_path
from domainclip.config.recipe import Recipe

LOCAL = "(local)"  # what stands where a local path stood

# A path of two steps or more, but not the end of a web address, a date or a closing tag.
_PATH = r"(?<![\w.:/<+])/(?:[\w.+@-]+/)+[\w.+@-]+"
_NUMBER = r"(?:[a-z]{1,4}-?)?\d{4,}"
_FORBIDDEN = {
    "an access token": r"\b(?:hf|api_org|ghp)_[A-Za-z0-9]{16,}|\bgithub_pat_\w{20,}|\bAKIA[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "an e-mail address": r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b",
    "a local path": rf"\bfile:/|\b[A-Za-z]:\\+Users|~/\w|{_PATH}",
    "the location of a corpus": r"\b(?:corpus|retention)(?:\.path)?=(?!\(local\))[^\s{]*[/\\.]",
    # The root 1.2.840.10008 is the standard's own: transfer syntaxes and classes, not persons.
    "a DICOM UID": r"(?<![\w.])(?!1\.2\.840\.10008\.)[0-2](?:\.(?:0|[1-9]\d*)){6,}\b|\b2\.25\.\d{20,}",
    "a patient or accession number": (
        rf"(?i)\bMRN\W{{0,4}}{_NUMBER}|\b(?:accession(?: n\w+)?|patient[ _]?(?:id|n\w+))\W{{1,4}}{_NUMBER}"
    ),
    "a character that reverses text": "[\u202a-\u202e\u2066-\u2069]",
}
_ESCAPED = {
    "&": "(?:&amp;|&)",
    "<": "(?:&lt;|<)",
    ">": "(?:&gt;|>)",
    '"': '(?:&#34;|&quot;|")',
    "'": "(?:&#39;|')",
}
_SEARCHES = {what: re.compile(pattern) for what, pattern in _FORBIDDEN.items()}


def is_hub_name(text: str) -> bool:
    """Whether the Hub could have a repository OWNER/NAME of that name."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def hub_id(text: str) -> str | None:
    """The text, when it is such a name and no folder here; else None."""
    return text if is_hub_name(text) and not Path(text).exists() else None


def public_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML in which no local path stands; a base on the Hub keeps its name."""
    public = _without_paths(recipe.model_dump(mode="json") | {"roots": []})
    public["base"]["path"] = hub_id(recipe.base.path) or LOCAL
    return yaml.safe_dump(public, sort_keys=False, allow_unicode=True)


def local_paths(recipe: Recipe, run: Path) -> list[str]:
    """The paths of this machine that a text about this run could hold, longest first."""
    sources = [recipe.corpus, recipe.retention] if recipe.retention else [recipe.corpus]
    said = [recipe.base.path, *recipe.roots, *_strings([source.model_dump() for source in sources])]
    here = {str(place) for place in (run.absolute(), run.resolve(), Path.home(), Path.cwd())}
    here |= {text.rstrip("/\\") for text in said if is_local_path(text)}
    return sorted((path for path in here if len(path) > 1), key=len, reverse=True)


def hide(text: str, paths: Iterable[str]) -> str:
    """The text with each known path replaced, where it stands whole.

    What goes on below a known path may name a patient: it is left for `search` to refuse.
    """
    for path in filter(None, paths):
        text = re.sub(_written(path) + r"/?(?![\w/\\-]|\.\w)", LOCAL, text)
    return text


def search(text: str, paths: Iterable[str] = ()) -> Iterator[tuple[int, str]]:
    """Line and kind of everything that must not leave; never the thing itself."""
    known = [re.compile(_written(path)) for path in paths]
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"data:image/[\w;+,/=-]+", "", line)  # a picture in letters, which may spell anything
        # Markdown and HTML may have escaped a part of what is looked for.
        shown = re.sub(r"\\([^a-zA-Z0-9\s\\])", r"\1", html.unescape(line))
        for what, pattern in _SEARCHES.items():
            if pattern.search(line) or pattern.search(shown):
                yield number, what
        if f"{LOCAL}/" in shown or any(pattern.search(line) for pattern in known):
            yield number, "a local path"


def _without_paths(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _without_paths(one, str(name)) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_paths(one, key) for one in value]
    if not isinstance(value, str):
        return value
    if key == "card":
        return Path(value).stem  # a card of one's own is named by its file
    # A data set's place is nobody's business, even where it happens to look like a name on the Hub.
    return LOCAL if key == "path" or is_local_path(value) else value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _written(path: str) -> str:
    """A pattern for a path as plain text, Markdown or HTML would write it."""
    # Only what HTML escapes has two forms: two equal ones would try all 2ⁿ ways to read a path.
    letters = (_ESCAPED.get(letter) or re.escape(letter) for letter in path)
    return r"(?<![\w.:/])" + "".join(rf"\\?{letter}" for letter in letters)


_LOCAL = "(local)"


_PATHS = ("--out", "--run-dir", "--accelerate-config")  # whatever they name lies here


_SOURCES = ("base", "corpus", "retention", "roots")


def public_command() -> str:
    """What was typed, for the report; paths name people and projects, and are left out."""
    words = sys.argv[1:]
    named = [before in _PATHS for before in ["", *words]]  # the value of such an option
    shown = [_LOCAL if hidden else without_path(word) for word, hidden in zip(words, named, strict=False)]
    return " ".join(["domainclip", *shown])


def without_path(word: str) -> str:
    """A word of the command line, an option, a folder or a key with its value, without what lies here."""
    found = re.fullmatch(r"(-r|--?[\w-]+=|[A-Za-z_][\w.]*=)(.+)", word, re.DOTALL)
    key, value = found.groups() if found and not _exists(word) else ("", word)
    name = key.rstrip("=")
    # A corpus of the Hub may be named; `smith_clinic.csv` may not, wherever it lies.
    source = name in _SOURCES or name.endswith(".path")
    hidden = (
        name in _PATHS
        or is_local_path(value, strict=True)
        or _exists(value)
        or (source and not re.fullmatch(r"[\w.-]+/[\w.-]+", value))
    )
    return key + _LOCAL if hidden else word


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # longer than any name of a file
        return False
