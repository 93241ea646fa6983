"""A corpus, read whole: three splits of standard columns, its classes, and what was left out and why."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from datasets import DatasetDict

from domainclip import parts
from domainclip.contracts import COLUMNS, SPLITS
from domainclip.data import privacy
from domainclip.data.cards import Card, Prompts
from domainclip.data.quarantine import Bad, Journal, refuse_over
from domainclip.data.rows import FEATURES
from domainclip.errors import DataError

_ENDS = 2**16  # bytes of a file's beginning and of its end that tell it from another


@dataclass(frozen=True)
class LoadedCorpus:
    """What a run needs to know of its corpus."""

    splits: DatasetDict
    classes: dict[str, Prompts]
    card: Card
    fingerprint: str  # sha256 over the content of all rows: a run resumes only when it is unchanged
    quarantine: list[Bad] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)  # by id: where the row stood in the source
    digests: dict[str, str] = field(default_factory=dict)  # by id: of the picture


def load_corpus(card: Card, path: str, secret: bytes | None = None) -> LoadedCorpus:
    """Reads the corpus that a card describes.

    Ids and groups are replaced by pseudonyms under `secret` (the local one when None), unless the card
    says that there is nothing identifying. Splits and fingerprint are made before, so that they are the
    same on every machine.

    Raises: RecipeError for a wrong option of the reader; DataError for a corpus that cannot be used.
    """
    journal = Journal()
    reader = parts.build("corpora", card.reader, card.options, where="corpus.options")
    splits = reader.read(card, path, journal)
    _refuse_other_columns(splits, card.reader)
    splits, digests = _with_pictures(splits, journal)
    usable = sum(map(len, splits.values()))
    if not usable and not journal.bad:
        raise DataError(f"corpus {card.name}: {path} holds no items")
    refuse_over(journal.bad, usable + len(journal.bad), card)
    fingerprint = _fingerprint(splits, digests)
    places = {id: journal.places[id] for id in digests}
    if not card.names_may_show:
        key = secret or privacy.secret()
        splits = _pseudonymous(splits, key)
        places, digests = ({privacy.pseudonym(i, key): v for i, v in by.items()} for by in (places, digests))
    return LoadedCorpus(
        splits=splits,
        classes=_classes(splits, card, journal),
        card=card,
        fingerprint=fingerprint,
        quarantine=journal.bad,
        notes=journal.notes,
        places=places,
        digests=digests,
    )


def _refuse_other_columns(splits: DatasetDict, reader: str) -> None:
    for name in SPLITS:
        if name not in splits or set(splits[name].column_names) != set(COLUMNS):
            raise DataError(f'reader "{reader}": split {name} must have the columns {", ".join(COLUMNS)}')
    ids = [id for name in SPLITS for id in splits[name]["id"][:]]
    if len(set(ids)) < len(ids):
        raise DataError(f'reader "{reader}": {len(ids) - len(set(ids))} ids are not unique')


def _with_pictures(splits: DatasetDict, journal: Journal) -> tuple[DatasetDict, dict[str, str]]:
    """Only rows whose picture is there, and a digest of each picture by id."""
    kept, digests = DatasetDict(), dict[str, str]()
    for name in SPLITS:
        ids, images, rows = splits[name]["id"][:], splits[name]["image"][:], []
        # Waiting for a disk or a file server is all the work there is, so threads share it.
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(_digest, images))
        for row, (id, image, digest) in enumerate(zip(ids, images, found, strict=True)):
            place = journal.places.setdefault(id, f"{name} item {row + 1}")
            if digest in (_MISSING, _EMPTY):
                journal.bad.append(Bad(place, digest, image["path"] or ""))
            else:
                rows.append(row)
                digests[id] = digest
        whole = len(rows) == len(found)
        kept[name] = splits[name] if whole else splits[name].select(rows).flatten_indices()
    return kept, digests


_MISSING, _EMPTY = "missing file", "empty file"


def _digest(image: dict[str, Any]) -> str:
    """sha256 of the size, the first and the last 64 kB of a picture; or what is wrong with it.

    No date: a copy of a corpus is the same corpus.
    """
    data = image["bytes"]
    if data is not None:
        size, ends = len(data), data[:_ENDS] + data[-_ENDS:]
    else:
        try:
            with open(image["path"] or "", "rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                ends = stream.read(_ENDS)
                stream.seek(max(0, size - _ENDS))
                ends += stream.read(_ENDS)
        except OSError:
            return _MISSING
    return hashlib.sha256(f"{size}:".encode() + ends).hexdigest() if size else _EMPTY


def _fingerprint(splits: DatasetDict, digests: dict[str, str]) -> str:
    whole = hashlib.sha256()
    for name in SPLITS:
        for row in splits[name].select_columns([column for column in COLUMNS if column != "image"]).to_list():
            whole.update(json.dumps([name, digests[row["id"]], row], sort_keys=True).encode())
    return whole.hexdigest()


def _pseudonymous(splits: DatasetDict, secret: bytes) -> DatasetDict:
    hidden = DatasetDict()
    for name, rows in splits.items():
        for column in ("id", "group"):
            values = [privacy.pseudonym(value, secret) for value in rows[column][:]]
            rows = rows.remove_columns(column).add_column(column, values, feature=FEATURES[column])
        hidden[name] = rows.select_columns(list(COLUMNS))
    return hidden


def _classes(splits: DatasetDict, card: Card, journal: Journal) -> dict[str, Prompts]:
    """The card's own classes, or templates around the names that are frequent enough in training."""
    if card.classes or not card.templates:
        return dict(card.classes)
    # A set that is for evaluation only has no training split to count in.
    counted = [splits["train"]] if len(splits["train"]) else list(splits.values())
    tally = Counter(label for rows in counted for labels in rows["labels"][:] for label in labels)
    rare = sorted(name for name, n in tally.items() if n < card.min_items)
    if rare:
        journal.note(
            f"classes: {len(rare)} with fewer than {card.min_items} items are left out of zero-shot "
            "evaluation (corpus.min_items)"
        )
    frequent = sorted(name for name, n in tally.items() if n >= card.min_items)
    return {
        name: Prompts(positive=[text.replace("{}", name) for text in card.templates]) for name in frequent
    }
