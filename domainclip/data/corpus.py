"""A corpus: three splits of standard columns, its classes, and the items that were left out and why."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from datasets import Dataset, DatasetDict

from domainclip import disk_cache, registry
from domainclip.data import prepared_format, pseudonyms
from domainclip.data.cards import Card, Prompts
from domainclip.data.files import stored_corpus
from domainclip.data.files.freed_memory import return_freed_memory, without_full_collections
from domainclip.data.files.stored_corpus import CorpusParts
from domainclip.data.images.digests import EMPTY_FILE, MISSING_FILE
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import ReadLog, UnusableItem, check_max_unusable
from domainclip.data.readers.sources.corpus_classes import corpus_classes
from domainclip.data.readers.sources.readable_items import image_files, with_readable_images
from domainclip.data.readers.sources.separate_splits import without_copies
from domainclip.data.schema import COLUMNS, SPLITS
from domainclip.data.streaming import SAMPLE_SIZE, Stream
from domainclip.distributed.phases import phase
from domainclip.errors import DataError, RecipeError

_ROWS = 1000  # read at once


@dataclass(frozen=True)
class Corpus:
    """A corpus in the standard columns, with what was noted when it was read."""

    splits: DatasetDict
    classes: dict[str, Prompts]
    card: Card
    fingerprint: str  # sha256 over the content of all rows: a run resumes only when it is unchanged
    unusable: list[UnusableItem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    locations: Mapping[str, str] = field(default_factory=dict)  # by id: of the row in the source
    digests: Mapping[str, str] = field(default_factory=dict)  # by id: of the image
    view_digests: Mapping[str, list[str]] = field(default_factory=dict)  # by id, where an item has views
    # The training data when it is not in memory: the training split is then a sample of it.
    stream: Stream | None = None
    guesses: str = ""  # one line with the columns that were guessed, which is the first note as well
    entry: str = ""  # in the disk cache, which its card and the state of all its files name; "": none
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

    Where nothing is trained on it (`training`), items of its training split need no caption. Of the processes
    on a machine the first one reads, and all map its rows into memory; a large corpus stays in the disk cache
    until one of its files changes.

    Ids, groups and truth keys are replaced by pseudonyms under `secret` (the local one when None), unless
    the card says that there is nothing identifying. Splits and fingerprint are made before, so that they are
    the same on every machine.

    Raises: RecipeError for a wrong option of the reader; DataError for a corpus that cannot be used.
    """
    if (prepared := _as_prepared(card, path)) is not card:
        card, reader = prepared, None
    reader = reader or build_reader(card)
    secret = None if card.names_may_show else secret or pseudonyms.pseudonym_key()
    read = partial(_read_corpus, card, path, secret, reader, training)
    if reader.streaming:  # its sample is small, and its processes open the stream together
        return read()
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    store = partial(_read_or_find, card, path, secret, reader, training, distributed=distributed)
    if not distributed:
        stored = store()
    else:
        from domainclip.distributed import collectives  # torch, which nothing else here needs

        stored = collectives.on_first_of_machine(store)
    if stored is None:
        return read()
    return _map_corpus(card, stored) if isinstance(stored, Path) else stored


def _read_or_find(
    card: Card,
    path: str,
    secret: bytes | None,
    reader: CorpusReader,
    training: bool,
    *,
    distributed: bool,
) -> Corpus | Path | None:
    """The folder in the cache that holds the corpus, which is read where none does.

    The corpus itself where one process reads a small one; None where several do and the disk is full.
    """
    began, name, sources = stored_corpus.now(), "", reader.source_files(card, path)
    if sources is not None:
        hashed = hashlib.sha256(secret or b"").hexdigest()
        settings = (card.model_dump(mode="json"), str(Path(path).absolute()), training, hashed)
        name = stored_corpus.entry_name(sources, *settings)
        if (folder := stored_corpus.find(name)) is not None:
            return folder
    corpus = _read_corpus(card, path, secret, reader, training)
    files = image_files(corpus.splits, corpus.unusable) if name and _is_large(corpus) else []
    absent = any(item.reason in (MISSING_FILE, EMPTY_FILE) for item in corpus.unusable)  # may appear later
    lasting = bool(files or name) and _is_large(corpus) and not absent
    lasting = lasting and stored_corpus.is_settled([*map(str, sources or ()), *files], began)
    if not lasting and not distributed:
        return corpus
    try:
        folder = _store_corpus(corpus, name if lasting else "", files)
    except OSError:  # a full disk
        return None if distributed else corpus
    del corpus, files
    return_freed_memory()
    return folder


def _is_large(corpus: Corpus) -> bool:
    return sum(map(len, corpus.splits.values())) >= stored_corpus.MIN_ITEMS


def _store_corpus(corpus: Corpus, name: str, files: list[str]) -> Path:
    """Write the corpus to the disk cache; without a name, for the processes of this run only."""
    facts = {
        "classes": {label: prompts.model_dump() for label, prompts in corpus.classes.items()},
        "fingerprint": corpus.fingerprint,
        "unusable": [[item.location, item.reason, item.source] for item in corpus.unusable],
        "notes": corpus.notes,
        "guesses": corpus.guesses,
        "divided": corpus.divided,
    }
    parts = CorpusParts(corpus.splits, corpus.locations, corpus.digests, corpus.view_digests, facts)
    if not name:
        folder = disk_cache.temporary("corpora")
        stored_corpus.write(folder, parts)
        return folder
    about = {"what": f"corpus {corpus.card.name}", "items": sum(map(len, corpus.splits.values()))}
    with disk_cache.writing_files("corpora", name, about) as draft:
        stored_corpus.write(draft, parts, files)
    return disk_cache.root() / "corpora" / name


def _map_corpus(card: Card, folder: Path) -> Corpus:
    parts = stored_corpus.read(folder)
    facts = parts.facts
    return Corpus(
        splits=DatasetDict(parts.splits),
        classes={label: Prompts.model_validate(prompts) for label, prompts in facts["classes"].items()},
        card=card,
        fingerprint=facts["fingerprint"],
        unusable=[UnusableItem(*item) for item in facts["unusable"]],
        notes=facts["notes"],
        guesses=facts["guesses"],
        locations=parts.locations,
        digests=parts.digests,
        view_digests=parts.view_digests,
        divided=facts["divided"],
        entry="" if folder.name.startswith(".") else folder.name,
    )


@without_full_collections()
def _read_corpus(card: Card, path: str, secret: bytes | None, reader: CorpusReader, training: bool) -> Corpus:
    log = ReadLog(training=training)
    splits = reader.read(card, path, log)
    stream = _stream(reader, card, path, log)
    _refuse_other_columns(splits, card.reader)
    splits, digests = with_readable_images(splits, log)
    usable = sum(map(len, digests.values()))  # images: each missing view counts as one
    if not usable and not log.unusable:
        raise DataError(f"corpus {card.name}: {path} holds no items")
    check_max_unusable(log.unusable, usable + len(log.unusable), card)
    if card.splits.near_duplicates == "leave_out":
        splits, digests = without_copies(splits, digests, log)
    fingerprint = _fingerprint(splits, digests, card) + (f"-{stream.fingerprint()}" if stream else "")
    locations = {id: log.locations[id] for id in digests}
    if secret is not None:
        splits = pseudonyms.with_pseudonyms(splits, secret)
        stream = replace(stream, secret=secret) if stream else None
        locations = {pseudonyms.pseudonym(id, secret): location for id, location in locations.items()}
        digests = {pseudonyms.pseudonym(id, secret): of_item for id, of_item in digests.items()}
    return Corpus(
        splits=splits,
        classes=corpus_classes(splits, card, log),
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
    for key, whole, other in (("by", "source", "group"), ("near_duplicates", "leave_out", "check")):
        if getattr(card.splits, key) == whole:
            raise RecipeError(
                f"corpus.splits.{key}: {whole} needs all rows at once, and a stream shows a few: store the "
                f"corpus with domainclip data prepare, or use splits.{key}={other}"
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


def _fingerprint(splits: DatasetDict, digests: dict[str, list[str]], card: Card) -> str:
    digest = hashlib.sha256()
    # With a card that was edited, a resumed run would draw other captions or views.
    sampling = card.model_dump(include={"captions", "views"}, exclude_defaults=True)
    digest.update(json.dumps(sampling, sort_keys=True).encode() if sampling else b"")
    # Without a column for it, the truth key is the name of the image, whose content is hashed instead.
    unhashed = ("image", "views") if card.columns.truth else ("image", "views", "truth")
    columns = [column for column in COLUMNS if column not in unhashed]
    encode = json.JSONEncoder(sort_keys=True).encode
    for name in SPLITS:
        for part in splits[name].select_columns(columns).with_format("arrow").iter(_ROWS):
            for row in part.to_pylist():
                digest.update(encode([name, digests[row["id"]], row]).encode())
    return digest.hexdigest()
