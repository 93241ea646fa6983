"""Which column of a source is what: as the card says, else guessed from the names."""

from __future__ import annotations

from collections.abc import Sequence

from domainclip.data.cards import Card, Columns
from domainclip.data.quarantine import ReadLog
from domainclip.data.text.captions import template_columns
from domainclip.errors import DataError, did_you_mean

# The names that a column has when nobody says otherwise, the likeliest first, compared without case.
_USUAL = {
    "image": ("image", "file_name", "image_path", "filepath", "filename", "file", "path", "img"),
    "texts": ("text", "caption", "captions", "texts", "report", "description", "sentence", "title"),
    "labels": ("label", "labels", "class", "class_name", "category"),
    "group": ("group_id", "group", "patient_id", "patientid", "subject_id", "object_id", "study_id"),
    "split": ("split", "subset", "partition"),
    "language": ("language", "lang"),
}


_SHOWN = 40  # columns that a message names


def resolve_columns(card: Card, available: Sequence[str], source: str, log: ReadLog) -> Columns:
    """The card's columns with every `null` guessed, or `""`/`[]` where there is none; guesses are noted.

    Raises: DataError for a column that the source does not have, with the nearest that it has.
    """
    said = card.columns
    _refuse_missing(card, available, source)
    template = card.captions.template
    if said.texts and template and "text" not in template_columns(template):
        log.add_note("corpus.columns.texts is not used: the card's captions.template does not name {text}")
    found: dict[str, object] = {}
    for role, usual in _USUAL.items():
        if getattr(said, role) is not None:
            continue
        if role == "texts" and template and "text" not in template_columns(template):
            found[role] = []  # the template says what a caption is made of
            continue
        guess = _guess(usual, available)
        found[role] = ([guess] if guess else []) if role == "texts" else guess
        if guess:
            log.add_note(f"column {role}: {guess} (guessed; say otherwise with corpus.columns.{role})")
    return said.model_copy(update=found)


def require_image_column(columns: Columns, available: Sequence[str], source: str) -> str:
    """The column that names the images.

    Raises: DataError when none is named and none can be guessed.
    """
    if not columns.image:
        raise DataError(
            f"{source}: which column names the images? set corpus.columns.image; "
            f"there are: {', '.join(available)}"
        )
    return columns.image


def named_columns(card: Card) -> dict[str, str]:
    """Every column that the card names, with the key that names it."""
    said, found = card.columns, dict[str, str]()
    for key in ("id", "image", "language", "group", "split"):
        if getattr(said, key):
            found[getattr(said, key)] = f"corpus.columns.{key}"
    labels = [said.labels] if isinstance(said.labels, str) else said.labels or []
    for key, names in (("texts", said.texts or []), ("labels", labels), ("meta", said.meta)):
        found |= {name: f"corpus.columns.{key}" for name in names if name}
    found |= dict.fromkeys(said.languages, "corpus.columns.languages")
    found |= dict.fromkeys(card.captions.rewrites, "corpus.captions.rewrites")
    template = template_columns(card.captions.template or "")
    # {text} and {label} mean the item's own captions and classes.
    found |= {name: "corpus.captions.template" for name in template if name not in ("text", "label")}
    return found


def _refuse_missing(card: Card, available: Sequence[str], source: str) -> None:
    for name, key in named_columns(card).items():
        if name not in available:
            raise DataError(f'{source}: no column "{name}" ({key}): {suggest_columns(name, available)}')


def suggest_columns(name: str, available: Sequence[str]) -> str:
    """A closing sentence for a column that is not there: the nearest, and all that there are."""
    near = did_you_mean(name, available)
    if near.startswith("known") and len(available) <= 12:
        return near
    rest = f" and {len(available) - _SHOWN} more" if len(available) > _SHOWN else ""
    said = f"{near} " if near.startswith("did") else ""
    return f"{said}there are: {', '.join(available[:_SHOWN])}{rest}."


def _guess(usual: Sequence[str], available: Sequence[str]) -> str:
    by_name = {name.casefold(): name for name in reversed(available)}
    return next((by_name[name] for name in usual if name in by_name), "")
