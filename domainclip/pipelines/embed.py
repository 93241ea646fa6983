"""The command `embed`: the embeddings of images in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domainclip.data.images.decode import DECODING_VERSION
from domainclip.errors import DataError, RecipeError
from domainclip.inference.embedding_files import open_writer
from domainclip.inference.image_sources import list_sources
from domainclip.inference.image_stream import UnreadableSource, encode_stream
from domainclip.inference.progress import CountProgress
from domainclip.inference.typed_files import TypedFile
from domainclip.pipelines.open_model import open_model
from domainclip.report import redaction

_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class EmbedRequest:
    """The options of the command."""

    model: str  # a run folder, a model or checkpoint folder, or a Hub id
    files: Sequence[TypedFile]
    out: Path
    image_column: str | None = None
    quiet: bool = False


@dataclass(frozen=True)
class EmbeddedImages:
    """What was written, and the images that cannot be read."""

    rows: int
    width: int
    fingerprint: str  # of the model
    unreadable: list[UnreadableSource] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def embed(request: EmbedRequest) -> EmbeddedImages:
    """Write the embeddings of all images that can be read, in the order of the files.

    The id of an image is its name; a name that occurs again gets a number.

    Raises: DataError for a file without images, or when none can be read; RecipeError when the file cannot be
    written; ModelError for a model that cannot be loaded.
    """
    model = open_model(request.model)
    listed = list_sources(request.files, request.image_column, model.rendering)
    facts = {
        "format": _FORMAT,
        "model": redaction.hub_id(request.model) or Path(request.model).name,
        "fingerprint": model.fingerprint,
        "decoding_version": DECODING_VERSION,
        "width": model.width,
        "unit_length": True,
    }
    ids, unreadable = _unique([source.name for source in listed.sources]), list[UnreadableSource]()
    try:
        with (
            open_writer(request.out, model.width, facts) as writer,
            CountProgress(len(ids), "images embedded", request.quiet) as progress,
        ):
            for chunk in encode_stream(model.encoder, listed.sources, progress):
                writer.write([ids[row] for row in chunk.rows], chunk.embeddings)
                unreadable += [UnreadableSource(ids[row], why) for row, why in sorted(chunk.faults.items())]
            if not writer.rows:
                raise DataError(f"none of {len(ids)} images can be read: {unreadable[0].reason}")
    except OSError as error:
        raise RecipeError(f"--out {request.out}: cannot be written: {error.strerror or error}") from None
    return EmbeddedImages(writer.rows, model.width, model.fingerprint, unreadable, listed.notes)


def _unique(names: Sequence[str]) -> list[str]:
    counts: Counter[str] = Counter()
    unique = []
    for name in names:
        counts[name] += 1
        unique.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return unique
