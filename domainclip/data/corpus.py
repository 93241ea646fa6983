"""A corpus, read whole: three splits of standard columns, its classes, and what was left out and why."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice, tee
from typing import Any

from datasets import Dataset, DatasetDict

from domainclip import registry
from domainclip.data import prepared_format, pseudonyms
from domainclip.data.cards import Card, Prompts
from domainclip.data.images.digests import EMPTY_FILE, MISSING_FILE, image_digests
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog, UnusableItem, check_max_unusable
from domainclip.data.rows import FEATURES
from domainclip.data.schema import COLUMNS, SPLITS
from domainclip.data.streaming import SAMPLE_SIZE, Stream
from domainclip.errors import DataError

_PIECE = 64  # rows: a row may hold its pictures whole


@dataclass(frozen=True)
class Corpus:
    """What a run needs to know of its corpus."""

    splits: DatasetDict
    classes: dict[str, Prompts]
    card: Card
    fingerprint: str  # sha256 over the content of all rows: a run resumes only when it is unchanged
    unusable: list[UnusableItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    locations: dict[str, str] = field(default_factory=dict)  # by id: where the row stood in the source
    digests: dict[str, str] = field(default_factory=dict)  # by id: of the picture
    view_digests: dict[str, list[str]] = field(default_factory=dict)  # by id, where an item has views
    # What is trained on when it is not held here: the training split is then a sample of it.
    stream: Stream | None = None

    def with_train_items(self, items: Dataset) -> Corpus:
        """The corpus with other training items."""
        return replace(self, splits=DatasetDict({**self.splits, "train": items}))


def build_reader(card: Card) -> CorpusReader:
    """The reader that a card names.

    Raises: RecipeError for a wrong option.
    """
    reader: CorpusReader = registry.build("readers", card.reader, card.options, where="corpus.options")
    return reader


def load_corpus(
    card: Card, path: str, secret: bytes | None = None, *, reader: CorpusReader | None = None
) -> Corpus:
    """Reads the corpus that a card describes, with its `reader` where that is built already.

    Ids and groups are replaced by pseudonyms under `secret` (the local one when None), unless the card
    says that there is nothing identifying. Splits and fingerprint are made before, so that they are the
    same on every machine.

    Raises: RecipeError for a wrong option of the reader; DataError for a corpus that cannot be used.
    """
    log = ReadLog()
    if (prepared := _as_prepared(card, path)) is not card:
        card, reader = prepared, None
    reader = reader or build_reader(card)
    splits = reader.read(card, path, log)
    stream = _stream(reader, card, path, log)
    _refuse_other_columns(splits, card.reader)
    splits, digests = _with_pictures(splits, log)
    usable = sum(map(len, digests.values()))  # pictures: a view that is gone counts as one
    if not usable and not log.unusable:
        raise DataError(f"corpus {card.name}: {path} holds no items")
    check_max_unusable(log.unusable, usable + len(log.unusable), card)
    fingerprint = _fingerprint(splits, digests, card) + (f"-{stream.fingerprint()}" if stream else "")
    rows = {id: log.locations[id] for id in digests}
    if not card.names_may_show:
        key = secret or pseudonyms.pseudonym_key()
        splits = _pseudonymous(splits, key)
        stream = replace(stream, secret=key) if stream else None
        rows = {pseudonyms.pseudonym(id, key): place for id, place in rows.items()}
        digests = {pseudonyms.pseudonym(id, key): own for id, own in digests.items()}
    return Corpus(
        splits=splits,
        classes=_classes(splits, card, log),
        card=card,
        fingerprint=fingerprint,
        unusable=log.unusable,
        notes=log.notes,
        locations=rows,
        digests={id: own[0] for id, own in digests.items()},
        view_digests={id: own[1:] for id, own in digests.items() if len(own) > 1},
        stream=stream,
    )


def _as_prepared(card: Card, path: str) -> Card:
    """What `data prepare` wrote is read as that, whatever the card says of the source."""
    if card.reader == "prepared" or prepared_format.read_manifest(path) is None:
        return card
    return card.model_copy(update={"reader": "prepared", "options": {}})


def _stream(reader: CorpusReader, card: Card, path: str, log: ReadLog) -> Stream | None:
    """The training split of a reader that streams; what a stream is not known for is said."""
    if not reader.streaming:
        return None
    from domainclip.distributed import collectives  # torch, which nothing else here needs

    found: Stream | None = collectives.on_first_process(lambda: reader.open_stream(card, path, log))
    if found is not None:
        log.add_note(
            f"{len(found)} training pairs in {len(found.shard_sizes)} shards are streamed; duplicates, "
            f"captions and pictures are checked in the first {min(SAMPLE_SIZE, len(found))} of them"
        )
    return found


def _refuse_other_columns(splits: DatasetDict, reader: str) -> None:
    for name in SPLITS:
        if name not in splits or set(splits[name].column_names) != set(COLUMNS):
            raise DataError(f'reader "{reader}": split {name} must have the columns {", ".join(COLUMNS)}')
    ids = [id for name in SPLITS for id in splits[name]["id"][:]]
    if len(set(ids)) < len(ids):
        raise DataError(f'reader "{reader}": {len(ids) - len(set(ids))} ids are not unique')


def _with_pictures(splits: DatasetDict, log: ReadLog) -> tuple[DatasetDict, dict[str, list[str]]]:
    """Only pictures that are there, and by id the digests of an item's image and views.

    An item whose image is gone is shown by its next view; with no picture left, it is left out.
    """
    kept, digests = DatasetDict(), dict[str, list[str]]()
    for name in SPLITS:
        ids, rows, changed = splits[name]["id"][:], [], {}
        # Twice the same rows: one goes ahead through the digests, by a piece of them.
        ahead, behind = tee(_pictures(splits[name]))
        found = image_digests(chain.from_iterable(ahead))
        for row, (id, own) in enumerate(zip(ids, behind, strict=True)):
            seen = list(islice(found, len(own)))
            place = log.locations.setdefault(id, f"{name} item {row + 1}")
            there = [at for at, digest in enumerate(seen) if digest not in (MISSING_FILE, EMPTY_FILE)]
            for at in sorted({*range(len(own))} - {*there}) if there else [0]:
                said = f"{place} view {at}" if at else place
                log.unusable.append(UnusableItem(said, seen[at], own[at]["path"] or ""))
            if there:
                rows.append(row)
                digests[id] = [seen[at] for at in there]
            if 0 < len(there) < len(own):
                changed[row] = [own[at] for at in there]
        split = _with_views(splits[name], changed)
        kept[name] = split if len(rows) == len(ids) else split.select(rows).flatten_indices()
    return kept, digests


def _pictures(split: Dataset) -> Iterator[list[dict[str, Any]]]:
    """The image and the views of each row."""
    for some in split.select_columns(["image", "views"]).iter(_PIECE):
        yield from ([image, *views] for image, views in zip(some["image"], some["views"], strict=True))


def _with_views(split: Dataset, changed: dict[int, list[dict[str, Any]]]) -> Dataset:
    """The split with other pictures in some rows."""
    if not changed:
        return split
    columns = {"image": split["image"][:], "views": split["views"][:]}
    for row, (first, *others) in changed.items():
        columns["image"][row], columns["views"][row] = first, others
    for column, values in columns.items():
        split = split.remove_columns(column).add_column(column, values, feature=FEATURES[column])
    return split.select_columns(list(COLUMNS))


def _fingerprint(splits: DatasetDict, digests: dict[str, list[str]], card: Card) -> str:
    whole = hashlib.sha256()
    # A card that is edited between two halves of a run would let the second draw other captions or views.
    drawn = card.model_dump(include={"captions", "views"}, exclude_defaults=True)
    whole.update(json.dumps(drawn, sort_keys=True).encode() if drawn else b"")
    said = [column for column in COLUMNS if column not in ("image", "views")]
    for name in SPLITS:
        for row in splits[name].select_columns(said).to_list():
            whole.update(json.dumps([name, digests[row["id"]], row], sort_keys=True).encode())
    return whole.hexdigest()


def _pseudonymous(splits: DatasetDict, secret: bytes) -> DatasetDict:
    hidden = DatasetDict()
    for name, rows in splits.items():
        for column in ("id", "group"):
            values = [pseudonyms.pseudonym(value, secret) for value in rows[column][:]]
            rows = rows.remove_columns(column).add_column(column, values, feature=FEATURES[column])
        hidden[name] = rows.select_columns(list(COLUMNS))
    return hidden


def _classes(splits: DatasetDict, card: Card, log: ReadLog) -> dict[str, Prompts]:
    """The card's own classes, or templates around the names that are frequent enough in training."""
    if card.classes or not card.templates:
        return dict(card.classes)
    # A set that is for evaluation only has no training split to count in.
    counted = [splits["train"]] if len(splits["train"]) else list(splits.values())
    tally = Counter(label for rows in counted for labels in rows["labels"][:] for label in labels)
    rare = sorted(name for name, n in tally.items() if n < card.min_items)
    if rare:
        log.add_note(
            f"classes: {len(rare)} with fewer than {card.min_items} items are left out of zero-shot "
            "evaluation (corpus.min_items)"
        )
    frequent = sorted(name for name, n in tally.items() if n >= card.min_items)
    return {
        name: Prompts(positive=[text.replace("{}", name) for text in card.templates]) for name in frequent
    }
