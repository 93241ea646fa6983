"""Which pictures a model was trained on, so that `eval` never takes them for pictures it has not seen.

A run leaves a list of salted digests of their content; it names nobody, stays in the run folder and is never
pushed. It knows pictures, not patients: another picture of the same patient is another picture.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from datasets import Dataset

from domainclip.data.corpus import Corpus
from domainclip.data.images import digests
from domainclip.errors import ModelError
from domainclip.evaluation.base import EvaluationSet

FILE = "trained_on.json"
_VERSION = 1
_ABOVE = 2  # folders over the weights that may be the run's: RUN/model, RUN/checkpoints/step-8


@dataclass(frozen=True)
class TrainingRecord:
    """The pictures behind a model, by digest; `whole` is false where a stream showed more than was listed."""

    salt: str
    pictures: frozenset[str]
    whole: bool = True

    def items_of(self, measured: Sequence[Sequence[str]]) -> int:
        """How many items have a picture that was trained on."""
        return sum(any(_salted(one, self.salt) in self.pictures for one in own) for own in measured)


def record(corpus: Corpus, before: TrainingRecord | None = None) -> TrainingRecord:
    """What training on this corpus adds to what the base was trained on."""
    salt = before.salt if before else secrets.token_hex(16)
    seen = [
        digest
        for id in corpus.splits["train"]["id"][:]
        for digest in (corpus.digests[id], *corpus.view_digests.get(id, []))
    ]
    known = before.pictures if before else frozenset()
    whole = corpus.stream is None and (before is None or before.whole)
    return TrainingRecord(salt, known | {_salted(one, salt) for one in seen}, whole)


def save(folder: Path, known: TrainingRecord) -> None:
    """Leaves the list in a run folder, for its owner only; sorted, so that order says nothing."""
    data = {
        "version": _VERSION,
        "salt": known.salt,
        "whole": known.whole,
        "pictures": sorted(known.pictures),
    }
    file = folder / FILE
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(data, stream)
    except OSError as error:
        raise ModelError(f"{file}: cannot be written: {error.strerror}: name another folder") from None


def load(name: str) -> TrainingRecord | None:
    """The list of a run, of a folder inside one, or of merged weights; None for a model without one.

    Raises: ModelError for a list that is broken, since a model would pass for one that saw nothing.
    """
    if not Path(name).is_dir():
        return None
    folder = Path(name).resolve()
    file = next((one / FILE for one in (folder, *folder.parents[:_ABOVE]) if (one / FILE).is_file()), None)
    if file is None:
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["version"] != _VERSION:
            raise ValueError
        return TrainingRecord(str(data["salt"]), frozenset(data["pictures"]), bool(data["whole"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(
            f"{Path(name) / FILE}: not a list of training pictures that this version reads: restore it, or "
            "delete it to measure without knowing what was trained on"
        ) from None


def find_overlap(
    models: Mapping[str, TrainingRecord | None], sets: Sequence[EvaluationSet]
) -> tuple[list[str], list[str]]:
    """Why figures may not be believed, and what can be said of each model, by its label."""
    measured = {data.name: _digests(data.items) for data in sets} if any(models.values()) else {}
    invalid, said = [], []
    for label, known in models.items():
        if known is None:
            said.append(f"{label}: no list of the pictures it was trained on, so nothing can be said")
            continue
        found = {name: known.items_of(own) for name, own in measured.items()}
        invalid += [
            f"{name}: {label} was trained on {n} of its {len(measured[name])} items: its figures say nothing "
            "of pictures it has not seen; measure on others"
            for name, n in found.items()
            if n
        ]
        listed = f"{len(known.pictures):,} pictures that it was trained on"
        listed += "" if known.whole else ", and a stream held more"
        said.append(f"{label}: {sum(found.values()):,} measured items are among the {listed}")
    return invalid, said


def _digests(items: Dataset) -> list[list[str]]:
    """The digests of each item's pictures."""
    rows = items.select_columns(["image", "views"])  # one by one: they may hold their pictures whole
    found = digests.image_digests(picture for row in rows for picture in (row["image"], *row["views"]))
    return [list(islice(found, 1 + len(views))) for views in items["views"][:]]


def _salted(digest: str, salt: str) -> str:
    return hashlib.blake2b(digest.encode(), key=bytes.fromhex(salt), digest_size=16).hexdigest()
