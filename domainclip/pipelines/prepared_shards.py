"""The shards of a prepared corpus, and the progress notes by which a run that was stopped goes on.

A note is written beside each finished shard; a later run keeps the shards whose note verifies.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from domainclip.data import prepared_format, pseudonyms
from domainclip.data.corpus import Corpus
from domainclip.data.images.reencode import Reencoder, ShardChunk
from domainclip.data.process_pool import map_in_order
from domainclip.data.quarantine import MAX_NAMED, ReadLog, UnusableItem
from domainclip.data.rows import Item
from domainclip.data.schema import PREPARED_MANIFEST, SPLITS
from domainclip.errors import DataError
from domainclip.pipelines import prepare_parts
from domainclip.pipelines.caption_screen import CaptionScreen, IdentifierPolicy
from domainclip.pipelines.parts import Part

PROGRESS = ".progress"  # folder of the notes
_WORK = "work.json"
_CHUNK = 4  # items that a worker takes at once
Report = Callable[[str], None]
Row = dict[str, Any]  # of a corpus
Note = dict[str, Any]  # of a shard


@dataclass(frozen=True)
class PrepareRequest:
    """How a corpus is prepared."""

    reencoder: Reencoder
    shard_format: prepared_format.ShardFormat = "tar"
    items: int = 500  # of a shard
    identifiers: IdentifierPolicy = "refuse"  # captions that may identify a person
    part: Part | None = None  # only every n-th shard is written; None: all
    join: bool = False  # every shard must have been written by its part

    def settings(self) -> Row:
        """For the manifest."""
        return {
            "short_side": self.reencoder.size,
            "format": self.reencoder.format,
            "resample": self.reencoder.resample,
            "items_a_shard": self.items,
            "identifiers": self.identifiers,
        }


def begin_work(out: Path, work: Row) -> None:
    """Note what is prepared in a new folder; a folder that holds the same work already may go on.

    Raises: DataError for a folder that holds anything else.
    """
    manifest = prepared_format.read_manifest(out)
    if manifest is not None:
        before = _work_of(manifest)
    elif (out / PROGRESS / _WORK).is_file():
        before = json.loads((out / PROGRESS / _WORK).read_text(encoding="utf-8"))
    elif any(file.name != PROGRESS for file in out.iterdir()):
        raise DataError(f"{out}: holds other files: name a new folder")
    else:
        (out / PROGRESS).mkdir(exist_ok=True)
        prepared_format.write_atomically(out / PROGRESS / _WORK, json.dumps(work).encode())
        return
    changed = [key for key in work if before.get(key) != work[key]]
    if changed:
        hint = "; all machines need the same secret (DOMAINCLIP_SECRET)" if "corpus" in changed else ""
        raise DataError(
            f"{out}: was prepared from another {' and '.join(changed)}: remove it, or name a new folder{hint}"
        )


def is_complete(out: Path, report: Report) -> bool:
    """Whether the folder has a manifest and every shard is intact.

    Where a shard is not, the manifest is turned back into progress notes, so that it is made again.
    """
    manifest = prepared_format.read_manifest(out)
    if manifest is None:
        return False
    shards = manifest["shards"]
    damaged = [shard["file"] for shard in shards if not prepared_format.is_intact(out, shard)]
    if not damaged:
        remove_notes(out)
        report(f"{out} is prepared already")
        return True
    # The notes first: a run that ends in between still has the manifest.
    (out / PROGRESS).mkdir(exist_ok=True)
    prepared_format.write_atomically(out / PROGRESS / _WORK, json.dumps(_work_of(manifest)).encode())
    for shard in shards:
        _write_note(out, _note_of(shard))
    (out / PREPARED_MANIFEST).unlink()
    named = ", ".join(damaged[:MAX_NAMED]) + (" …" if len(damaged) > MAX_NAMED else "")
    report(f"{out}: {len(damaged)} of {len(shards)} shards are lost or changed, and made again: {named}")
    return False


def remove_notes(out: Path) -> None:
    """Remove the progress notes, once the manifest is written."""
    shutil.rmtree(out / PROGRESS, ignore_errors=True)


def _work_of(manifest: Mapping[str, Any]) -> Row:
    return {"corpus": manifest["corpus"]["sha256"], "form": manifest["form"], **manifest["settings"]}


def manifest_entry(note: Note) -> Row:
    """The entry of a shard in the manifest, which names no locations."""
    reasons = Counter(reason for _, reason in note["bad"])
    return {**{key: note[key] for key in note if key != "bad"}, "left_out": dict(sorted(reasons.items()))}


def _note_of(entry: Row) -> Note:
    """The inverse of `manifest_entry`, but for the locations."""
    unusable = [(entry["file"], reason) for reason, n in entry.get("left_out", {}).items() for _ in range(n)]
    return {**{key: entry[key] for key in entry if key != "left_out"}, "bad": unusable}


def write_shards(
    corpus: Corpus,
    out: Path,
    request: PrepareRequest,
    screen: CaptionScreen,
    workers: int,
    key: bytes,
    report: Report,
) -> tuple[list[Note], list[UnusableItem]]:
    """Write the shards without an intact note; all notes in order, and the unusable items of a stream.

    Of a part, only its shards and notes. Raises: DataError for a join of which parts are missing.
    """
    notes: dict[str, Note] = {}
    missing: list[int] = []  # numbers of shards, of a join
    if request.part is not None:
        prepare_parts.begin_part(out / PROGRESS, request.part)
    log = ReadLog()
    counts: dict[str, Counter[str]] = {}  # by shard: captions with identifiers

    def chunks() -> Iterator[ShardChunk]:
        for number, (name, rows) in enumerate(_rows_by_shard(corpus, request, log)):
            if request.part is not None and not request.part.has(number):
                continue
            note = _intact_note(out, name)
            if note is not None:
                notes[name] = note
                continue
            if request.join:
                missing.append(number)
                continue
            rows, counts[name] = screen.screened(rows)
            for at in range(0, len(rows), _CHUNK):
                yield ShardChunk(name, rows[at : at + _CHUNK])

    encoded = map_in_order(request.reencoder.encode_chunk, chunks(), workers)
    for name, of_shard in groupby(encoded, key=lambda pair: pair[0].name):
        rows = [row for chunk, files in of_shard for row in zip(chunk.rows, files, strict=True)]
        notes[name] = _write_shard(out, name, rows, request, corpus, key, counts[name])
        report(f"{name}: {notes[name]['items']} items")
    prepare_parts.refuse_missing(out / PROGRESS, missing)
    known = {(item.location, item.reason) for item in corpus.unusable}  # those of the sample
    unusable = [item for item in log.unusable if (item.location, item.reason) not in known]
    in_order = sorted(notes, key=lambda name: (SPLITS.index(name.split("-")[0]), name))
    return [notes[name] for name in in_order], unusable


def _rows_by_shard(corpus: Corpus, request: PrepareRequest, log: ReadLog) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each shard, by its name."""
    for split in SPLITS:
        rows, number = iter(corpus.splits[split]), 0
        if split == "train" and corpus.stream is not None:  # the split is only a sample
            rows = corpus.stream.rows(log)
        while part := list(islice(rows, request.items)):
            yield f"{split}-{number:05d}.{request.shard_format}", part
            number += 1


def _intact_note(out: Path, name: str) -> Note | None:
    """The note of a shard that is as it was written; None for any other."""
    try:
        note: Note = json.loads((out / PROGRESS / f"{name}.json").read_text(encoding="utf-8"))
        intact = note["items"] == 0 or prepared_format.is_intact(out, note)
    except (OSError, ValueError, KeyError):
        return None
    return note if intact else None


def _write_shard(
    out: Path,
    name: str,
    rows: list[tuple[Row, Any]],
    request: PrepareRequest,
    corpus: Corpus,
    key: bytes,
    identifiers: Mapping[str, int],
) -> Note:
    """Write a shard and its note; `rows` are rows with the files of their images and reasons for others."""
    unusable = [
        (corpus.locations.get(row["id"], "item"), reason) for row, (_, reasons) in rows for reason in reasons
    ]
    items = [(_item(row, files, key), request.reencoder.suffix) for row, (files, _) in rows if files]
    data = prepared_format.encode_shard(items, request.shard_format) if items else b""
    note = {
        "file": name,
        "split": name.split("-")[0],
        "items": len(items),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "identifiers": dict(sorted(identifiers.items())),  # captions that have one, by kind
        "bad": unusable,
    }
    if items:
        prepared_format.write_atomically(out / name, data)
    _write_note(out, note)
    return note


def _write_note(out: Path, note: Note) -> None:
    prepared_format.write_atomically(out / PROGRESS / f"{note['file']}.json", json.dumps(note).encode())


def _item(row: Row, files: list[bytes], key: bytes) -> Item:
    """A row as it may be passed on: under pseudonyms, without names of files."""
    images = [{"path": None, "bytes": data} for data in files]
    return Item(
        id=pseudonyms.pseudonym(row["id"], key),
        image=images[0],
        views=images[1:],
        texts=row["texts"],
        language=row["language"],
        labels=row["labels"],
        group=pseudonyms.pseudonym(row["group"], key),
        truth=pseudonyms.pseudonym(row["truth"], key),
        meta=json.loads(pseudonyms.meta_with_pseudonyms(row["meta"], key)),
        split="",
        location="",
    )
