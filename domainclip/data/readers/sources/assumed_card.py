"""The card of one corpus, fitted to the files and columns of another one that has no card.

A model is measured on a corpus from elsewhere with the card of its run: the captions, prompts and image
settings of the training, but the reader, table and columns that the new files have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword

from domainclip.data.cards import Card, Privacy
from domainclip.data.files import tables
from domainclip.data.files.column_roles import Columns
from domainclip.data.files.folder_levels import is_folder_level
from domainclip.data.images.fits_header import is_header_column
from domainclip.data.quarantine import ReadLog
from domainclip.data.readers.sources import columns as sources_columns
from domainclip.data.readers.sources.layout import Layout, find_layout
from domainclip.data.text import captions
from domainclip.errors import DataError

_TABLE_OPTIONS = ("encoding", "separator", "quoting", "label_separator")  # of each reader with a table
_OF_ITEMS = ("text", "label")  # in a template: the captions and classes of the item
_FOLDER_COLUMNS = (*_OF_ITEMS, "name")
_FACTS = (
    *("name", "pretty_name", "license", "checks", "classes", "retention", "consent", "obtain", "verified"),
    *("not_verified", "description", "max_unusable"),
)
_MAX_NAMED = 40  # columns that a message names


@dataclass(frozen=True)
class AssumedCard:
    """A card, the path of its corpus, and in words what was changed to fit it."""

    card: Card
    path: str
    notes: tuple[str, ...] = ()
    guessed_reader: bool = False  # whether the files show another reader than that of the card


def fit_card(card: Card, path: str, typed: Collection[str]) -> AssumedCard:
    """The card with the reader and the columns of the corpus at `path`.

    `typed` are the keys of the card that the user set for this corpus, as in "columns.labels": they stay as
    they are. Another column that the corpus lacks is guessed from the usual names, or left out; each change
    is noted.

    Raises: DataError when there is no such path, when its files do not show a reader, or when no column of
    its table names images, captions or classes.
    """
    if "reader" in typed:
        return AssumedCard(card, path)
    layout = find_layout(path)
    if layout is None:
        raise DataError(
            f"corpus.path: {Path(path).name} is neither a table nor a folder of images: name a card of this "
            "corpus with corpus.card=CARD, or its reader with corpus.reader=READER"
        )
    if layout.reader == "prepared":
        return AssumedCard(card, path)
    layout = _as_folder_of(card, layout)
    notes = []
    guessed = layout.reader != card.reader
    if guessed:
        options = {key: value for key, value in card.options.items() if f"options.{key}" in typed}
        notes.append(
            f"corpus.reader: {layout.reader}, by its files; that of the run is {card.reader} "
            "(corpus.reader or corpus.card names another)"
        )
        if layout.reader in ("table", "dicom"):
            options = {k: v for k, v in card.options.items() if k in _TABLE_OPTIONS} | options
        card = card.model_copy(update={"reader": layout.reader, "options": options})
        if layout.reader not in ("table", "dicom"):
            card = _without_columns(card, typed)
    if layout.table is not None and layout.reader in ("table", "dicom"):
        card, path, more = _fitted_to_table(card, path, layout.table, typed)
        notes += more
    elif layout.reader == "dicom":
        card, more = _fitted_columns(card, ["text"], typed)
        notes += more
    return AssumedCard(card, path, tuple(notes), guessed)


def undescribed(card: Card, typed: Mapping[str, Any]) -> Card:
    """The card without the facts of its own corpus: name, licence, consent, privacy, classes, retention set.

    `typed` are the values that the user set for this corpus, nested as in the card.
    """
    # Of a table from elsewhere, rows without class and caption are no reason to stop: they are counted.
    default = Card(name="external", pretty_name="External test set", max_unusable=0.1)
    facts = {key: getattr(default, key) for key in _FACTS if key not in typed}
    privacy = Privacy.model_validate(typed.get("privacy", {}))
    return card.model_copy(update={**facts, "privacy": privacy})


def _as_folder_of(card: Card, layout: Layout) -> Layout:
    """Class folders of DICOM files stay class folders for a card that reads class folders."""
    if layout.reader == "dicom" and layout.table is None and card.reader == "folder":
        return Layout("folder", layout.path)
    return layout


def _without_columns(card: Card, typed: Collection[str]) -> Card:
    """The card for a reader without a table: class folders, a data set of the Hub, shards."""
    kept = {
        key: value
        for key, value in card.columns.roles()
        if f"columns.{key}" in typed
        or (isinstance(value, str) and (is_header_column(value) or is_folder_level(value)))
    }
    template = _template(card, [*_FOLDER_COLUMNS])
    changed: dict[str, Any] = {"template": template, "rewrites": []}
    return card.model_copy(
        update={
            "columns": Columns.model_validate(kept),
            "captions": card.captions.model_copy(update=changed),
        }
    )


def _fitted_to_table(
    card: Card, path: str, table: Path, typed: Collection[str]
) -> tuple[Card, str, list[str]]:
    """The card with the columns of the table, the path to read, and notes."""
    options = dict(card.options)
    reports = options.get("reports")
    # An absolute path of the run's card is the table of the training corpus.
    elsewhere = Path(str(reports)).is_absolute() and "options.reports" not in typed
    if reports and not elsewhere and (Path(path) / str(reports)).is_file():
        table = Path(path) / str(reports)
    elif "options.reports" not in typed:
        options.pop("reports", None)
    read = {key: options[key] for key in ("encoding", "separator", "quoting") if key in options}
    available = tables.read_table(table, **read).columns
    notes: list[str] = []
    for key in ("where", "texts_where", "labels_where"):
        absent = [name for name in options.get(key) or {} if name not in available]
        if absent and f"options.{key}" not in typed:
            options.pop(key)
            notes.append(_note(f"corpus.options.{key}", absent, "all rows are used"))
    card = card.model_copy(update={"options": options})
    card, more = _fitted_columns(card, available, typed)
    _refuse_nothing_to_measure(card, available, table.name)
    start = path if options.get("reports") else str(table)
    return card, start, notes + more


def _fitted_columns(card: Card, available: Sequence[str], typed: Collection[str]) -> tuple[Card, list[str]]:
    """The card with only those columns that the table has; the others are guessed or left out."""

    def exists(name: str) -> bool:
        keyword = card.reader == "dicom" and tag_for_keyword(name) is not None
        return name in available or is_header_column(name) or is_folder_level(name) or keyword

    changed: dict[str, Any] = {}
    notes: list[str] = []
    for key, value in card.columns.roles():
        names = [value] if isinstance(value, str) else list(value or ())
        absent = [name for name in names if name and not exists(name)]
        if not absent or f"columns.{key}" in typed:
            continue
        present = [name for name in names if name not in absent]
        if key == "languages":
            changed[key] = {name: value[name] for name in present}
        else:
            changed[key] = (
                present if isinstance(value, list) and (present or key in ("meta", "acquisition")) else None
            )
        notes.append(_note(f"corpus.columns.{key}", absent, _instead(key, bool(present), available)))
    captions_of_card: dict[str, Any] = {}
    rewrites = [name for name in card.captions.rewrites if exists(name)]
    if rewrites != card.captions.rewrites:
        captions_of_card["rewrites"] = rewrites
    if "captions.template" not in typed:
        template = _template(card, [*available, *_OF_ITEMS])
        if template != card.captions.template:
            captions_of_card["template"] = template
            notes.append("corpus.captions.template: without the columns that this corpus has not")
    return (
        card.model_copy(
            update={
                "columns": card.columns.model_copy(update=changed),
                "captions": card.captions.model_copy(update=captions_of_card),
            }
        ),
        notes,
    )


def _instead(key: str, others: bool, available: Sequence[str]) -> str:
    """What takes the place of an absent column, and the key that names another."""
    if others:
        return "left out"
    if guess := sources_columns.guess_column(key, available, "corpus"):
        return f'"{guess}" is guessed; corpus.columns.{key}=COLUMN names another'
    none = "each image is a group" if key == "group" else "left out"
    return f"{none}; corpus.columns.{key}=COLUMN names one"


def _template(card: Card, available: Sequence[str]) -> str | None:
    """The template of the captions without the clauses whose columns are not available."""
    if card.captions.template is None:
        return None
    absent = {
        name
        for name in captions.template_columns(card.captions.template)
        if name not in available
        and not is_header_column(name)
        and not (card.reader == "dicom" and tag_for_keyword(name) is not None)
    }
    return captions.without_columns(card.captions.template, absent)


def _refuse_nothing_to_measure(card: Card, available: Sequence[str], source: str) -> None:
    """Refuse a table without captions and classes before its images are read.

    Raises: DataError.
    """
    named = sources_columns.named_columns(card)
    keywords = [name for name in named if card.reader == "dicom" and tag_for_keyword(name)]
    roles = sources_columns.resolve_columns(card, [*available, *keywords], source, ReadLog())
    in_template = captions.template_columns(card.captions.template or "")
    if not roles.texts and not roles.labels and not set(in_template) - set(_OF_ITEMS):
        raise DataError(
            f"{source}: no column names classes or captions: set corpus.columns.labels or "
            f"corpus.columns.texts; there are: {', '.join(available[:_MAX_NAMED])}"
        )


def _note(key: str, absent: Sequence[str], instead: str) -> str:
    names = ", ".join(f'"{name}"' for name in absent)
    return f"{key}: the run's {names} is no column of this corpus: {instead}"
