"""A corpus: three splits of standard columns, its classes, and the items that were left out and why."""

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
from domainclip.data.schema import COLUMNS, SPLITS, features
from domainclip.data.streaming import SAMPLE_SIZE, Stream
from domainclip.distributed.phases import phase
from domainclip.errors import DataError, RecipeError, did_you_mean

_CHUNK = 64  # rows: a row may hold its images as bytes


@dataclass(frozen=True)
class Corpus:
    """A corpus in the standard columns, with what was noted when it was read."""

    splits: DatasetDict
    classes: dict[str, Prompts]
    card: Card
    fingerprint: str  # sha256 over the content of all rows: a run resumes only when it is unchanged
    unusable: list[UnusableItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    locations: dict[str, str] = field(default_factory=dict)  # by id: the location of the row in the source
    digests: dict[str, str] = field(default_factory=dict)  # by id: of the image
    view_digests: dict[str, list[str]] = field(default_factory=dict)  # by id, where an item has views
    # The training data when it is not in memory: the training split is then a sample of it.
    stream: Stream | None = None
    guesses: str = ""  # one line with the columns that were guessed, which is the first note as well
    divided: bool = False  # whether the source names no split, so that the shares of the card decided it

    def with_train_items(self, items: Dataset) -> Corpus:
        """The corpus with other training items."""
        return replace(self, splits=DatasetDict({**self.splits, "train": items}))


def build_reader(card: Card) -> CorpusReader:
    """The reader that a card names.

    Raises: RecipeError for a wrong option.
    """
    reader: CorpusReader = registry.build("readers", card.reader, card.options, where="corpus.options")
    return reader


@phase("reading the corpus")
def load_corpus(
    card: Card,
    path: str,
    secret: bytes | None = None,
    *,
    reader: CorpusReader | None = None,
    training: bool = True,
) -> Corpus:
    """Reads the corpus that a card describes, with its `reader` where that is built already.

    Where nothing is trained on it (`training`), items of its training split need no caption.

    Ids, groups and truth keys are replaced by pseudonyms under `secret` (the local one when None), unless
    the card says that there is nothing identifying. Splits and fingerprint are made before, so that they are
    the same on every machine.

    Raises: RecipeError for a wrong option of the reader; DataError for a corpus that cannot be used.
    """
    log = ReadLog(training=training)
    if (prepared := _as_prepared(card, path)) is not card:
        card, reader = prepared, None
    reader = reader or build_reader(card)
    splits = reader.read(card, path, log)
    stream = _stream(reader, card, path, log)
    _refuse_other_columns(splits, card.reader)
    splits, digests = _with_readable_images(splits, log)
    usable = sum(map(len, digests.values()))  # images: each missing view counts as one
    if not usable and not log.unusable:
        raise DataError(f"corpus {card.name}: {path} holds no items")
    check_max_unusable(log.unusable, usable + len(log.unusable), card)
    fingerprint = _fingerprint(splits, digests, card) + (f"-{stream.fingerprint()}" if stream else "")
    locations = {id: log.locations[id] for id in digests}
    if not card.names_may_show:
        key = secret or pseudonyms.pseudonym_key()
        splits = _pseudonymous(splits, key)
        stream = replace(stream, secret=key) if stream else None
        locations = {pseudonyms.pseudonym(id, key): location for id, location in locations.items()}
        digests = {pseudonyms.pseudonym(id, key): of_item for id, of_item in digests.items()}
    return Corpus(
        splits=splits,
        classes=_classes(splits, card, log),
        card=card,
        fingerprint=fingerprint,
        unusable=log.unusable,
        notes=[*filter(None, [log.guesses]), *log.notes],
        guesses=log.guesses,
        locations=locations,
        digests={id: of_item[0] for id, of_item in digests.items()},
        view_digests={id: of_item[1:] for id, of_item in digests.items() if len(of_item) > 1},
        stream=stream,
        divided=log.divided,
    )


def _as_prepared(card: Card, path: str) -> Card:
    """The card with the reader `prepared` for a folder that `data prepare` wrote, whatever its reader."""
    if card.reader == "prepared" or prepared_format.read_manifest(path) is None:
        return card
    return card.model_copy(update={"reader": "prepared", "options": {}})


def _stream(reader: CorpusReader, card: Card, path: str, log: ReadLog) -> Stream | None:
    """The training split of a streaming reader; a note states which checks see only its sample."""
    if not reader.streaming:
        return None
    if card.splits.by == "source":
        raise RecipeError(
            "corpus.splits.by: source needs all rows at once, and a stream shows a few: store the corpus "
            "with domainclip data prepare, or use splits.by=group"
        )
    from domainclip.distributed import collectives  # torch, which nothing else here needs

    stream: Stream | None = collectives.on_first_process(lambda: reader.open_stream(card, path, log))
    if stream is not None:
        log.add_note(
            f"{len(stream)} training pairs in {len(stream.shard_sizes)} shards are streamed; duplicates, "
            f"captions and images are checked in the first {min(SAMPLE_SIZE, len(stream))} of them"
        )
    return stream


def _refuse_other_columns(splits: DatasetDict, reader: str) -> None:
    for name in SPLITS:
        if name not in splits or set(splits[name].column_names) != set(COLUMNS):
            raise DataError(f'reader "{reader}": split {name} must have the columns {", ".join(COLUMNS)}')
    ids = [id for name in SPLITS for id in splits[name]["id"][:]]
    if len(set(ids)) < len(ids):
        raise DataError(f'reader "{reader}": {len(ids) - len(set(ids))} ids are not unique')


def _with_readable_images(splits: DatasetDict, log: ReadLog) -> tuple[DatasetDict, dict[str, list[str]]]:
    """The items whose images exist, and by id the digests of an item's image and views.

    A missing image is replaced by the next view; an item without any image is left out.
    """
    complete, digests = DatasetDict(), dict[str, list[str]]()
    for name in SPLITS:
        ids, rows, changed = splits[name]["id"][:], [], {}
        # The same rows twice: the digests read ahead of the loop, by one chunk of rows.
        ahead, behind = tee(_images_of_rows(splits[name]))
        digest_stream = image_digests(chain.from_iterable(ahead))
        for row, (id, images) in enumerate(zip(ids, behind, strict=True)):
            results = list(islice(digest_stream, len(images)))
            location = log.locations.setdefault(id, f"{name} item {row + 1}")
            existing = [i for i, digest in enumerate(results) if digest not in (MISSING_FILE, EMPTY_FILE)]
            for i in sorted({*range(len(images))} - {*existing}) if existing else [0]:
                place = f"{location} view {i}" if i else location
                log.unusable.append(UnusableItem(place, results[i], images[i]["path"] or ""))
            if existing:
                rows.append(row)
                digests[id] = [results[i] for i in existing]
            if 0 < len(existing) < len(images):
                changed[row] = [images[i] for i in existing]
        split = _with_images(splits[name], changed)
        complete[name] = split if len(rows) == len(ids) else split.select(rows).flatten_indices()
    return complete, digests


def _images_of_rows(split: Dataset) -> Iterator[list[dict[str, Any]]]:
    """The image and the views of each row."""
    for chunk in split.select_columns(["image", "views"]).iter(_CHUNK):
        yield from ([image, *views] for image, views in zip(chunk["image"], chunk["views"], strict=True))


def _with_images(split: Dataset, changed: dict[int, list[dict[str, Any]]]) -> Dataset:
    """The split with other images in some rows."""
    if not changed:
        return split
    columns = {"image": split["image"][:], "views": split["views"][:]}
    for row, (first, *others) in changed.items():
        columns["image"][row], columns["views"][row] = first, others
    for column, values in columns.items():
        split = split.remove_columns(column).add_column(column, values, feature=features()[column])
    return split.select_columns(list(COLUMNS))


def _fingerprint(splits: DatasetDict, digests: dict[str, list[str]], card: Card) -> str:
    digest = hashlib.sha256()
    # With a card that was edited, a resumed run would draw other captions or views.
    sampling = card.model_dump(include={"captions", "views"}, exclude_defaults=True)
    digest.update(json.dumps(sampling, sort_keys=True).encode() if sampling else b"")
    # Without a column for it, the truth key is the name of the image, whose content is hashed instead.
    unhashed = ("image", "views") if card.columns.truth else ("image", "views", "truth")
    columns = [column for column in COLUMNS if column not in unhashed]
    for name in SPLITS:
        for row in splits[name].select_columns(columns).to_list():
            digest.update(json.dumps([name, digests[row["id"]], row], sort_keys=True).encode())
    return digest.hexdigest()


def _pseudonymous(splits: DatasetDict, secret: bytes) -> DatasetDict:
    pseudonymous = DatasetDict()
    for name, rows in splits.items():
        for column in ("id", "group", "truth"):
            values = [pseudonyms.pseudonym(value, secret) for value in rows[column][:]]
            rows = rows.remove_columns(column).add_column(column, values, feature=features()[column])
        pseudonymous[name] = rows.select_columns(list(COLUMNS))
    return pseudonymous


def _classes(splits: DatasetDict, card: Card, log: ReadLog) -> dict[str, Prompts]:
    """The classes of the card, or its templates filled with the class names that are frequent in training.

    Raises: RecipeError for the prevalence of a class that is not among them.
    """
    classes = _class_prompts(splits, card, log)
    for name in card.prevalence:
        if classes and name not in classes:  # without any, those of a run may follow
            raise RecipeError(f'corpus.prevalence: class "{name}": {did_you_mean(name, classes)}')
    return classes


def _class_prompts(splits: DatasetDict, card: Card, log: ReadLog) -> dict[str, Prompts]:
    if card.classes or not card.templates:
        return dict(card.classes)
    # A set for evaluation only has no training split to count in.
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
