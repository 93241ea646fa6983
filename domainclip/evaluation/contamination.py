"""Record of the training images of a model, so that `eval` can detect them among the measured images.

A run writes a list of salted digests of their content; the list identifies no one, stays in the run folder
and is never pushed. It covers images, not patients: another image of the same patient is another image.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from datasets import Dataset

from domainclip.data.batching import item_columns
from domainclip.data.corpus import Corpus
from domainclip.data.files import mapped_tables
from domainclip.data.images import digests
from domainclip.errors import ModelError
from domainclip.evaluation.base import EvaluationSet

FILE = "trained_on.json"
_VERSION = 1
_PARENTS = 2  # levels between the weights and the run folder at most: RUN/model, RUN/checkpoints/step-8


@dataclass(frozen=True)
class TrainingRecord:
    """The training images of a model, by digest; `whole` is False if a stream had more than are listed."""

    salt: str
    images: frozenset[str]
    whole: bool = True
    others: tuple[TrainingRecord, ...] = ()  # of the further runs of a merged model, each with its salt

    def items_of(self, measured: Sequence[Sequence[str]]) -> int:
        """The number of items, given by the digests of their images, with an image that was trained on."""
        return sum(any(map(self._has, item)) for item in measured)

    def __len__(self) -> int:
        return len(self.images) + sum(map(len, self.others))

    def _has(self, digest: str) -> bool:
        return _salted(digest, self.salt) in self.images or any(other._has(digest) for other in self.others)


def join(records: Sequence[TrainingRecord]) -> TrainingRecord | None:
    """The record of a model that is made of several; None without any."""
    if not records:
        return None
    flat = [part for one in records for part in (replace(one, others=()), *one.others)]
    return replace(flat[0], whole=all(part.whole for part in flat), others=tuple(flat[1:]))


@dataclass(frozen=True)
class Overlap:
    """Measured items that a model was trained on."""

    invalid: tuple[str, ...] = ()  # reasons why metrics are invalid
    statements: tuple[str, ...] = ()  # for each model, the number of such items, or that it is unknown


def record(corpus: Corpus, before: TrainingRecord | None = None) -> TrainingRecord:
    """The training images of the base, `before`, and of this corpus."""
    salt = before.salt if before else secrets.token_hex(16)
    ids = item_columns.DerivedColumn(corpus.splits["train"], ("id",), str)
    images = mapped_tables.look_up(corpus.digests, ids)
    views = (
        (digest for id in ids for digest in corpus.view_digests.get(id, [])) if corpus.view_digests else ()
    )
    known = before.images if before else frozenset()
    whole = corpus.stream is None and (before is None or before.whole)
    others = before.others if before else ()
    trained_on = frozenset(_salted(digest, salt) for digest in chain(images, views))
    return TrainingRecord(salt, known | trained_on if known else trained_on, whole, others)


def record_corpora(
    base: str, corpora: Sequence[Corpus], unlabelled: Sequence[str] = ()
) -> TrainingRecord | None:
    """The training images of a model that is trained on the corpora, starting from a base.

    `unlabelled` are digests of further images, which it is trained on without texts.

    Raises: ModelError when the record of the base is broken.
    """
    known = load(base)
    for corpus in corpora:
        known = record(corpus, known)
    if known is not None and unlabelled:
        more = frozenset(_salted(digest, known.salt) for digest in unlabelled)
        known = replace(known, images=known.images | more)
    return known


def save(folder: Path, known: TrainingRecord) -> None:
    """Write the record into a run folder, readable by its owner only; sorted, so that order reveals nothing.

    Raises: ModelError when it cannot be written.
    """
    data = {"version": _VERSION, **_as_json(known)}
    if known.others:
        data["others"] = [_as_json(other) for other in known.others]
    file = folder / FILE
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(data, stream)
    except OSError as error:
        raise ModelError(f"{file}: cannot be written: {error.strerror}: name another folder") from None


def load(name: str) -> TrainingRecord | None:
    """The record of a run, of a folder inside one, or of merged weights; None for a model without one.

    Raises: ModelError for a broken record: ignored, it would let a model count as never trained.
    """
    if not Path(name).is_dir():
        return None
    folder = Path(name).resolve()
    candidates = [parent / FILE for parent in (folder, *folder.parents[:_PARENTS])]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["version"] != _VERSION:
            raise ValueError
        return replace(_from_json(data), others=tuple(map(_from_json, data.get("others", []))))
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{Path(name) / FILE}: not a record of training images that this version reads: restore it, or "
            "delete it to measure without knowing what was trained on"
        ) from None


def _as_json(known: TrainingRecord) -> dict[str, Any]:
    return {"salt": known.salt, "whole": known.whole, "images": sorted(known.images)}


def _from_json(data: dict[str, Any]) -> TrainingRecord:
    return TrainingRecord(str(data["salt"]), frozenset(data["images"]), bool(data["whole"]))


def find_overlap(models: Mapping[str, TrainingRecord | None], sets: Sequence[EvaluationSet]) -> Overlap:
    """Compare the training records of models, by label, with the items of evaluation sets."""
    measured = {data.name: _digests(data.items) for data in sets} if any(models.values()) else {}
    invalid: list[str] = []
    statements: list[str] = []
    for label, known in models.items():
        if known is None:
            statements.append(f"{label}: no record of its training images, so the overlap is unknown")
            continue
        counts = {name: known.items_of(items) for name, items in measured.items()}
        invalid += [
            f"{name}: {label} was trained on {n} of its {len(measured[name])} items: their metrics "
            "say nothing about new images; measure on other items"
            for name, n in counts.items()
            if n
        ]
        listed = f"{len(known):,} images that it was trained on"
        listed += "" if known.whole else ", and a stream held more"
        statements.append(f"{label}: {sum(counts.values()):,} measured items are among the {listed}")
    return Overlap(tuple(invalid), tuple(statements))


def _digests(items: Dataset) -> list[list[str]]:
    """The digests of each item's images."""
    rows = items.select_columns(["image", "views"])  # row by row: images may be held as bytes
    all_digests = digests.image_digests(image for row in rows for image in (row["image"], *row["views"]))
    return [list(islice(all_digests, 1 + len(views))) for views in items["views"][:]]


def _salted(digest: str, salt: str) -> str:
    return hashlib.blake2b(digest.encode(), key=bytes.fromhex(salt), digest_size=16).hexdigest()
