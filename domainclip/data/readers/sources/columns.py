"""The column of a source for each role: named by the card, else guessed from the names."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from domainclip.data.cards import Card
from domainclip.data.files.column_names import describe_difference
from domainclip.data.files.column_roles import Columns
from domainclip.data.files.folder_levels import is_folder_level
from domainclip.data.images.fits_header import is_header_column
from domainclip.data.quarantine import ReadLog
from domainclip.data.text.captions import template_columns
from domainclip.errors import DataError, did_you_mean

# The usual names of the column of each role, the most likely first; case is ignored.
_USUAL_NAMES = {
    "image": ("image", "file_name", "image_path", "filepath", "filename", "file", "path", "img"),
    "texts": (
        *("text", "caption", "captions", "texts", "report", "description", "sentence", "title"),
        *("sentences", "conversations"),
    ),
    "labels": ("label", "labels", "class", "class_name", "category"),
    "group": ("group_id", "group", "patient_id", "patientid", "subject_id", "object_id", "study_id"),
    "split": ("split", "subset", "partition"),
    "language": ("language", "lang"),
}
# The roles of one column.
_ONE_COLUMN = (
    *("id", "image", "language", "group", "truth", "split", "source"),
    *("reference", "change", "candidates", "written"),
)
_FAMILIAR = frozenset(name for names in _USUAL_NAMES.values() for name in names)
# A name of one word; "P0017", a date, a person's name and a sentence are cells rather than names.
_PLAIN = re.compile(r"(?!.*\d{3})[^\W\d][\w.-]{0,39}|")
_MAX_NAMED = 40  # columns that a message names


def resolve_columns(card: Card, available: Sequence[str], source: str, log: ReadLog) -> Columns:
    """The card's columns with every `null` guessed, or `""`/`[]` where there is none; guesses are logged.

    Raises: DataError for a column that the source does not have, with the most similar one.
    """
    columns = card.columns
    _refuse_missing(card, available, source)
    template = card.captions.template
    if columns.texts and template and "text" not in template_columns(template):
        log.add_note("corpus.columns.texts is not used: the card's captions.template does not name {text}")
    guesses: dict[str, object] = {}
    for role, usual_names in _USUAL_NAMES.items():
        if getattr(columns, role) is not None:
            continue
        if role == "texts" and template and "text" not in template_columns(template):
            guesses[role] = []  # the template makes the captions without texts
            continue
        guess = _guess(role, usual_names, available, source)
        guesses[role] = ([guess] if guess else []) if role == "texts" else guess
        if guess:
            log.guessed[role] = guess
    return columns.model_copy(update=guesses)


def guess_column(role: str, available: Sequence[str], source: str) -> str:
    """The column that the usual names of a role point to; empty without one, or for a role without names.

    Raises: DataError for two that differ in capitals only.
    """
    return _guess(role, _USUAL_NAMES.get(role, ()), available, source)


def require_image_column(columns: Columns, available: Sequence[str], source: str) -> str:
    """The column that names the images.

    Raises: DataError when no column is named and none can be guessed.
    """
    if not columns.image:
        raise DataError(
            f"{source}: no column names the images: set corpus.columns.image; {list_columns(available)}"
        )
    return columns.image


def find_image_column(named: str | None, available: Sequence[str], source: str, option: str) -> str:
    """The column of a table without a card that names the images: as `option` names it, or a guess.

    Raises: DataError for a column that the source does not have, or when none can be guessed.
    """
    if named is not None and named not in available:
        raise DataError(f'{source}: no column "{named}" ({option}): {suggest_columns(named, available)}')
    column = named or _guess("image", _USUAL_NAMES["image"], available, source)
    if not column:
        raise DataError(
            f"{source}: no column names the images: name it with {option}; there are: "
            f"{', '.join(available[:_MAX_NAMED])}"
        )
    return column


def named_columns(card: Card) -> dict[str, str]:
    """Every column that the card names, with the key that names it."""
    columns, key_of = card.columns, dict[str, str]()
    for key in _ONE_COLUMN:
        if getattr(columns, key):
            key_of[getattr(columns, key)] = f"corpus.columns.{key}"
    labels = [columns.labels] if isinstance(columns.labels, str) else columns.labels or []
    for key, names in (("texts", columns.texts or []), ("labels", labels), ("meta", columns.meta)):
        key_of |= {name: f"corpus.columns.{key}" for name in names if name}
    key_of |= dict.fromkeys(columns.acquisition, "corpus.columns.acquisition")
    key_of |= dict.fromkeys(columns.languages, "corpus.columns.languages")
    key_of |= dict.fromkeys(card.captions.rewrites, "corpus.captions.rewrites")
    template = template_columns(card.captions.template or "")
    # {text} and {label} are the captions and classes of the item.
    key_of |= {name: "corpus.captions.template" for name in template if name not in ("text", "label")}
    return key_of


def _refuse_missing(card: Card, available: Sequence[str], source: str) -> None:
    named = named_columns(card)
    for name, key in named.items():
        if name not in available and not is_header_column(name) and not is_folder_level(name):
            suggestion = suggest_columns(name, available, named)
            raise DataError(f'{source}: no column "{name}" ({key}): {suggestion}')


def suggest_columns(name: str, available: Sequence[str], named: Collection[str] = ()) -> str:
    """The end of a message about a missing column: the most similar one, and all that exist.

    `named` are the columns that the card names.
    """
    if _may_be_cells(available, named):
        return list_columns(available, named)
    suggestion = did_you_mean(name, available)
    equal = next((f"({text}) " for text in (describe_difference(name, n) for n in available) if text), "")
    if suggestion.startswith("known") and len(available) <= 12:
        return suggestion
    similar = f"{suggestion} {equal}" if suggestion.startswith("did") else ""
    return f"{similar}{list_columns(available, named)}."


def list_columns(available: Sequence[str], named: Collection[str] = ()) -> str:
    """The names of the columns; their number where they may be cells of persons."""
    if _may_be_cells(available, named):
        return (
            f"the first line has {len(available)} cells, none of them a usual name of a column, and may be "
            "a row: add a line with the names of the columns"
        )
    rest = f" and {len(available) - _MAX_NAMED} more" if len(available) > _MAX_NAMED else ""
    return f"there are: {', '.join(available[:_MAX_NAMED])}{rest}"


def _may_be_cells(available: Sequence[str], named: Collection[str]) -> bool:
    """Whether the names may be the first row of a table without a header: none is known, some are no word."""
    words = [word.casefold() for name in available for word in (name, *re.split("[;,|\t]", name))]
    if any(word in _FAMILIAR or word in {name.casefold() for name in named} for word in words):
        return False
    return not all(map(_PLAIN.fullmatch, available))


def _guess(role: str, usual_names: Sequence[str], available: Sequence[str], source: str) -> str:
    by_name: dict[str, list[str]] = {}
    for name in available:
        by_name.setdefault(name.casefold(), []).append(name)
    guesses = next((by_name[name] for name in usual_names if name in by_name), [""])
    if len(guesses) > 1:
        named = " and ".join(f'"{name}"' for name in guesses)
        raise DataError(
            f"{source}: columns {named} differ in capitals only: name one in corpus.columns.{role}"
        )
    return guesses[0]
