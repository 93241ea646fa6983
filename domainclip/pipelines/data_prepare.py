"""`data prepare`: a corpus as resized, de-identified shards, in parallel, restartable, whole or absent.

A finished shard is noted beside it; a run that was stopped, at whatever moment, keeps the shards whose note
verifies and makes the rest. What is written does not depend on the number of workers or of interruptions.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, get_args

from PIL import Image

from domainclip import __version__
from domainclip.config import loading, overrides
from domainclip.config import recipe as recipe_config
from domainclip.data import prepared_format, pseudonyms
from domainclip.data.cards import Card, load_card
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.images.reencode import ImageFormat, Reencoder, ShardChunk
from domainclip.data.process_pool import available_cores, map_in_order
from domainclip.data.quarantine import MAX_NAMED, ReadLog, UnusableItem, check_max_unusable
from domainclip.data.rows import Item
from domainclip.data.schema import SPLITS
from domainclip.errors import DataError, RecipeError, did_you_mean

_NOTES = ".progress"
_PIECE = 4  # items that a worker takes at once
Say = Callable[[str], None]
Row = dict[str, Any]  # of a corpus


@dataclass(frozen=True)
class PrepareRequest:
    """How a corpus is prepared."""

    shrink: Reencoder
    form: prepared_format.ShardFormat = "tar"
    items: int = 500  # a shard

    def told(self) -> Row:
        """For the manifest."""
        return {
            "short_side": self.shrink.size,
            "format": self.shrink.format,
            "resample": self.shrink.resample,
            "items_a_shard": self.items,
        }


def write_prepared_corpus(
    card: Card, path: str, out: Path, wanted: PrepareRequest, workers: int, say: Say
) -> Path:
    """Writes the corpus to `out`; its manifest.

    Raises: DataError for a corpus that cannot be used, or a folder that holds something else.
    """
    key = pseudonyms.pseudonym_key()
    corpus = load_corpus(card, path)
    whole = pseudonyms.pseudonym(corpus.fingerprint, key)
    with _locked(out):
        _same_work_or_refuse(out, {"corpus": whole, "form": wanted.form, **wanted.told()})
        for draft in out.glob(".*.[0-9]*"):  # of a process that was killed while it wrote
            draft.unlink()
        there = prepared_format.read_manifest(out)
        if there is not None and _whole_or_begun(out, there, say):
            return out / prepared_format.MANIFEST
        notes = _shards(corpus, out, wanted, workers, key, say)
        bad = [UnusableItem(place, reason) for note in notes for place, reason in note["bad"]]
        made = Counter(dict.fromkeys(SPLITS, 0))
        for note in notes:
            made[note["split"]] += note["items"]
        check_max_unusable(bad, made.total() + len(bad), corpus.card)
        told: Row = {
            "format": prepared_format.FORMAT,
            "version": prepared_format.VERSION,
            "domainclip": __version__,
            "form": wanted.form,
            "settings": wanted.told(),
            "corpus": {"card": card.name, "license": card.license, "sha256": whole},
            "counts": dict(made),
            "left_out": dict(sorted(Counter(item.reason for item in [*corpus.unusable, *bad]).items())),
            "shards": [_told(note) for note in notes if note["items"]],
        }
        prepared_format.write_atomically(
            out / prepared_format.MANIFEST, json.dumps(told, indent=1, ensure_ascii=False).encode()
        )
        shutil.rmtree(out / _NOTES)
    say(", ".join(f"{count} {split}" for split, count in made.items()) + f" in {len(told['shards'])} shards")
    return out / prepared_format.MANIFEST


def run(
    out: Path,
    recipe_name: str | None,
    changes: Sequence[str],
    card_name: str | None,
    *,
    size: int | None,
    format: str,
    to: str,
    workers: int | None,
    items: int,
) -> Path:
    """What the command line asks for; the manifest.

    Raises: RecipeError for options that do not fit together; what `prepare` raises.
    """
    for option, said, known in (
        ("format", format, get_args(ImageFormat)),
        ("to", to, get_args(prepared_format.ShardFormat)),
    ):
        if said not in known:
            raise RecipeError(f'--{option}: "{said}": {did_you_mean(said, known)}')
    if (recipe_name is None) == (card_name is None):
        raise RecipeError("data prepare: name a recipe with --recipe or a card with --card: one of the two")
    resample = int(Image.Resampling.BICUBIC)
    if recipe_name is not None:
        recipe = loading.load_recipe(recipe_name, changes)
        source = recipe.corpus
        if size is None:
            size, resample = _taken_by(recipe)
    else:
        given: Row = {"corpus": {"card": card_name}}
        for said in changes:
            overrides.apply_override(given, said)
        source = _source(given)
    card = load_card(source.card, source.overrides())
    wanted = PrepareRequest(Reencoder(size or 256, format, resample), to, items)  # type: ignore[arg-type]  # both looked at
    return write_prepared_corpus(card, source.path, out, wanted, workers or available_cores(), _say)


def _source(given: Row) -> recipe_config.CorpusSource:
    if set(given) != {"corpus"} or "path" not in given["corpus"]:
        raise RecipeError(
            "data prepare --card: say where the corpus is with corpus.path=PATH; other keys are corpus.…"
        )
    return recipe_config.CorpusSource.model_validate(given["corpus"])


def _taken_by(recipe: recipe_config.Recipe) -> tuple[int, int]:
    """The short side that the base takes, and its filter, so that what it sees stays the same."""
    from domainclip.models import loading as models_loading  # torch, only when it is asked

    taken = models_loading.load_model(recipe.base.path, recipe.base.revision).image_preprocessor
    return taken.resize if isinstance(taken.resize, int) else max(taken.size), taken.resample


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """The folder, for this process alone; the lock ends with the process, however that ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{out}: {error.strerror}: name another folder") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(f"{out}: another domainclip data prepare writes there: wait for it") from None
    finally:
        os.close(handle)


def _same_work_or_refuse(out: Path, work: Row) -> None:
    """Only what this very work began, or nothing, may be in the folder."""
    there = prepared_format.read_manifest(out)
    if there is not None:
        before = {"corpus": there["corpus"]["sha256"], "form": there["form"], **there["settings"]}
    elif (out / _NOTES / "work.json").is_file():
        before = json.loads((out / _NOTES / "work.json").read_text(encoding="utf-8"))
    elif any(file.name != _NOTES for file in out.iterdir()):
        raise DataError(f"{out}: holds other files: name a new folder")
    else:
        (out / _NOTES).mkdir(exist_ok=True)
        prepared_format.write_atomically(out / _NOTES / "work.json", json.dumps(work).encode())
        return
    changed = [key for key in work if before.get(key) != work[key]]
    if changed:
        raise DataError(
            f"{out}: was prepared from another {' and '.join(changed)}: remove it, or name a new folder"
        )


def _told(note: Row) -> Row:
    """The note of a shard for the manifest, which names no places."""
    bad = Counter(reason for _, reason in note["bad"])
    return {**{key: note[key] for key in note if key != "bad"}, "left_out": dict(sorted(bad.items()))}


def _whole_or_begun(out: Path, there: Row, say: Say) -> bool:
    """Whether every shard is as it was written; a folder in which one is not becomes one that was stopped."""
    lost = [shard["file"] for shard in there["shards"] if not prepared_format.is_intact(out, shard)]
    if not lost:
        shutil.rmtree(out / _NOTES, ignore_errors=True)
        say(f"{out} is prepared already")
        return True
    # The notes first: ended in between, this finds the manifest again.
    (out / _NOTES).mkdir(exist_ok=True)
    work = {"corpus": there["corpus"]["sha256"], "form": there["form"], **there["settings"]}
    prepared_format.write_atomically(out / _NOTES / "work.json", json.dumps(work).encode())
    for shard in there["shards"]:
        bad = [(shard["file"], reason) for reason, n in shard.get("left_out", {}).items() for _ in range(n)]
        note = {**{key: shard[key] for key in shard if key != "left_out"}, "bad": bad}
        prepared_format.write_atomically(out / _NOTES / f"{shard['file']}.json", json.dumps(note).encode())
    (out / prepared_format.MANIFEST).unlink()
    named = ", ".join(lost[:MAX_NAMED]) + (" …" if len(lost) > MAX_NAMED else "")
    say(f"{out}: {len(lost)} of {len(there['shards'])} shards are lost or changed, and made again: {named}")
    return False


def _shards(
    corpus: Corpus, out: Path, wanted: PrepareRequest, workers: int, key: bytes, say: Say
) -> list[Row]:
    """The notes of all shards, in order; those that are there and verify are kept."""
    notes: dict[str, Row] = {}

    def pieces() -> Iterator[ShardChunk]:
        for name, rows in _named(corpus, wanted):
            kept = _verified(out, name)
            if kept is not None:
                notes[name] = kept
                continue
            for at in range(0, len(rows), _PIECE):
                yield ShardChunk(name, rows[at : at + _PIECE])

    done = map_in_order(wanted.shrink.encode_chunk, pieces(), workers)
    for name, of_shard in groupby(done, key=lambda one: one[0].name):
        made = [row for piece, files in of_shard for row in zip(piece.rows, files, strict=True)]
        notes[name] = _written(out, name, made, wanted, corpus, key)
        say(f"{name}: {notes[name]['items']} items")
    return [notes[name] for name in sorted(notes, key=lambda name: (SPLITS.index(name.split("-")[0]), name))]


def _named(corpus: Corpus, wanted: PrepareRequest) -> Iterator[tuple[str, list[Row]]]:
    """The rows of each shard, under its name."""
    log = ReadLog()
    for split in SPLITS:
        rows, number = iter(corpus.splits[split]), 0
        if split == "train" and corpus.stream is not None:  # the split is but a sample
            rows = corpus.stream.rows(log)
        while part := list(islice(rows, wanted.items)):
            yield f"{split}-{number:05d}.{wanted.form}", part
            number += 1
    met = {(item.location, item.reason) for item in corpus.unusable}  # the sample was looked at before
    corpus.unusable.extend(item for item in log.unusable if (item.location, item.reason) not in met)


def _verified(out: Path, name: str) -> Row | None:
    """The note of a shard that is as it was written."""
    try:
        note: Row = json.loads((out / _NOTES / f"{name}.json").read_text(encoding="utf-8"))
        same = note["items"] == 0 or prepared_format.is_intact(out, note)
    except (OSError, ValueError, KeyError):
        return None
    return note if same else None


def _written(
    out: Path, name: str, made: list[tuple[Row, Any]], wanted: PrepareRequest, corpus: Corpus, key: bytes
) -> Row:
    """Writes a shard and its note."""
    bad = [
        (corpus.locations.get(row["id"], "item"), reason) for row, (_, reasons) in made for reason in reasons
    ]
    rows = [(_item(row, pictures, key), wanted.shrink.suffix) for row, (pictures, _) in made if pictures]
    data = prepared_format.encode_shard(rows, wanted.form) if rows else b""
    note = {
        "file": name,
        "split": name.split("-")[0],
        "items": len(rows),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bad": bad,
    }
    if rows:
        prepared_format.write_atomically(out / name, data)
    prepared_format.write_atomically(out / _NOTES / f"{name}.json", json.dumps(note).encode())
    return note


def _item(row: Row, pictures: list[bytes], key: bytes) -> Item:
    """A row as it may be passed on: pseudonyms, and no name of a file."""
    images = [{"path": None, "bytes": data} for data in pictures]
    return Item(
        id=pseudonyms.pseudonym(row["id"], key),
        image=images[0],
        views=images[1:],
        texts=row["texts"],
        language=row["language"],
        labels=row["labels"],
        group=pseudonyms.pseudonym(row["group"], key),
        meta=json.loads(row["meta"]),
        split="",
        location="",
    )
