"""Redaction of public texts: recipes without local paths, and a search for private data.

The allow-list of `hub` selects the files to push. This is the second check, of their text.
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from domainclip.config import strict_yaml
from domainclip.config.paths import LOCAL, is_local_path
from domainclip.config.recipe import Recipe
from domainclip.report.path_search import holds_path
from domainclip.report.readings import json_line, readings

_NUMBER = r"(?:[a-z]{1,4}-?)?\d{4,}"
_FORBIDDEN = {
    "an access token": r"\b(?:hf|api_org|ghp)_[A-Za-z0-9]{16,}|\bgithub_pat_\w{20,}|\bAKIA[0-9A-Z]{16}\b"
    r"|(?i:[?&;](?:\w*token|sig|signature|x-amz-\w+|x-goog-\w+|api_?key|password)=[\w%+/-]{8,})"
    r"|https?://[^/\s:@<>\"']+:[^/\s:@<>\"']+@",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "an e-mail address": r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b",
    "the location of a corpus": r"\b(?:corpus|retention|train\.mix\.[\w-]+|anchor_(?:images|texts))"
    r"(?:\.path)?=(?!\(local\))[^\s{]*[/\\.]",
    # The root 1.2.840.10008 belongs to the standard: transfer syntaxes and classes, not persons.
    "a DICOM UID": r"(?<![\w.])(?!1\.2\.840\.10008\.)[0-2](?:\.(?:0|[1-9]\d*)){6,}\b|\b2\.25\.\d{20,}",
    "a patient or accession number": (
        rf"(?i)\bMRN\W{{0,4}}{_NUMBER}|\b(?:accession(?: n\w+)?|patient[ _]?(?:id|n\w+))\W{{1,4}}{_NUMBER}"
    ),
}
# As a JSON escape, which `readings` resolves, such a character has no effect.
_REVERSING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_ESCAPED = {
    "&": "(?:&amp;|&)",
    "<": "(?:&lt;|<)",
    ">": "(?:&gt;|>)",
    '"': '(?:&#34;|&quot;|")',
    "'": "(?:&#39;|')",
}
_SEARCHES = {what: re.compile(pattern) for what, pattern in _FORBIDDEN.items()}


def is_hub_name(text: str) -> bool:
    """Whether the text is a valid repository name OWNER/NAME."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def hub_id(text: str) -> str | None:
    """The text, if it is a repository name and not a local folder; else None."""
    return text if is_hub_name(text) and not Path(text).exists() else None


def public_settings(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe without local paths; a base on the Hub keeps its name."""
    public: dict[str, Any] = without_paths(recipe.model_dump(mode="json"))
    public["base"]["path"] = hub_id(recipe.base.path) or LOCAL
    return public


def public_recipe(recipe: Recipe) -> str:
    """The same as YAML."""
    return strict_yaml.dump_yaml(public_settings(recipe))


def local_paths(recipe: Recipe, run: Path) -> list[str]:
    """The local paths that a text about this run could contain, longest first."""
    sources = [source.model_dump() for source in recipe.corpora().values()]
    anchors = [recipe.anchor_images.path, recipe.anchor_texts.path]
    named = [*sources, *anchors, recipe.strategy, recipe.objectives]
    texts = [recipe.base.path, *_strings(named)]
    paths = {str(place) for place in (run.absolute(), run.resolve(), Path.home(), Path.cwd())}
    paths |= {text.rstrip("/\\") for text in texts if is_local_path(text)}
    return sorted((path for path in paths if len(path) > 1), key=len, reverse=True)


def hide(text: str, paths: Iterable[str]) -> str:
    """The text with each known path replaced where it is complete.

    A path below a known path may name a patient: it is left unchanged, so that `search` reports it.
    """
    for path in filter(None, paths):
        text = re.sub(_written(path) + r"/?(?![\w/\\-]|\.\w)", LOCAL, text)
    return text


def search(text: str, paths: Iterable[str] = (), *, json: bool = False) -> Iterator[tuple[int, str]]:
    """Line number and kind of all private data in the text; never the data itself.

    `paths` are known local paths. In a JSON file (`json`) a backslash is written twice.
    """
    known = [re.compile(_written(path)) for path in paths]
    for number, line in enumerate(text.splitlines(), 1):
        written = {*readings(json_line(line) if json else line)}
        kinds = [what for what, pattern in _SEARCHES.items() if any(map(pattern.search, written))]
        if any(_is_local(reading, known) for reading in written):
            kinds.append("a local path")
        if _REVERSING.search(html.unescape(line)):
            kinds.append("a character that reverses text")
        for what in kinds:
            yield number, what


def _is_local(text: str, known: Sequence[re.Pattern[str]]) -> bool:
    below = f"{LOCAL}/" in text or f"{LOCAL}\\" in text
    return below or holds_path(text) or any(path.search(text) for path in known)


def without_paths(value: Any, key: str = "") -> Any:
    """The options of a recipe or card, with LOCAL in the place of each local path."""
    if isinstance(value, dict):
        return {name: without_paths(inner, str(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner, key) for inner in value]
    if not isinstance(value, str):
        return value
    if key == "card":
        return Path(value).stem  # the file name of a user's card
    # The location of a data set is private, even if it looks like a name on the Hub.
    return LOCAL if key == "path" or is_local_path(value) or holds_path(value) else value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _written(path: str) -> str:
    """A pattern that matches a path in plain text, Markdown and HTML."""
    # Alternatives only where HTML escapes: two equal ones would need 2ⁿ attempts for a path of n characters.
    letters = (_ESCAPED.get(letter) or re.escape(letter) for letter in path)
    return r"(?<![\w.:/])" + "".join(rf"\\?{letter}" for letter in letters)


# Options whose value is a local path, or names machines and accounts of a cluster.
_PATHS = ("--out", "--run-dir", "--accelerate-config", "--master", "--slurm")
_SOURCES = ("base", "corpus", "retention")


def public_command() -> str:
    """The command line for the report, without local paths, which may name persons and projects."""
    words = sys.argv[1:]
    are_paths = [before in _PATHS for before in ["", *words]]  # the value of such an option
    shown = [LOCAL if hidden else without_path(word) for word, hidden in zip(words, are_paths, strict=False)]
    return " ".join(["domainclip", *shown])


def without_path(word: str) -> str:
    """A word of the command line (option, folder, or key with value) without local paths."""
    match = re.fullmatch(r"(-r|--?[\w-]+=|[A-Za-z_][\w.]*=)(.+)", word, re.DOTALL)
    key, value = match.groups() if match and not _exists(word) else ("", word)
    name = key.rstrip("=")
    # A corpus on the Hub may be named; `smith_clinic.csv` may not, even if it does not exist.
    source = name in _SOURCES or name.endswith(".path")
    hidden = (
        name in _PATHS
        or is_local_path(value, strict=True)
        or _exists(value)
        or (source and not re.fullmatch(r"[\w.-]+/[\w.-]+", value))
    )
    return key + LOCAL if hidden else word


def _exists(value: str) -> bool:
    try:
        return Path(value).exists()
    except (OSError, ValueError):  # too long for a file name
        return False
