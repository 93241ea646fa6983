"""The command `caption`: a caption for each image, by the captioner of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from domainclip.errors import ModelError
from domainclip.inference.image_sources import list_sources
from domainclip.inference.image_stream import UnreadableSource, load_stream
from domainclip.inference.progress import CountProgress
from domainclip.inference.typed_files import TypedFile
from domainclip.pipelines.open_model import open_model


@dataclass(frozen=True, kw_only=True)
class CaptionRequest:
    """The options of the command."""

    model: str  # a run folder, a model or checkpoint folder, or a Hub id
    files: Sequence[TypedFile]
    beams: int = 3  # captions that are tried at once for each image
    image_column: str | None = None
    quiet: bool = False


@dataclass(frozen=True)
class CaptionedImages:
    """The captions of all readable images, in the order of the files."""

    names: list[str] = field(default_factory=list)  # of the readable images
    captions: list[str] = field(default_factory=list)
    unreadable: list[UnreadableSource] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def caption(request: CaptionRequest) -> CaptionedImages:
    """A caption for each image that can be read, and the others with their reasons.

    Raises: ModelError for a model that cannot be loaded or has no captioner; DataError for a file without
    images.
    """
    model = open_model(request.model)
    if not model.encoder.has_captioner:
        raise ModelError(
            f"{request.model}: has no captioner: name a run that was trained with the objective captioning "
            "(the recipe captioning has it)"
        )
    listed = list_sources(request.files, request.image_column, model.rendering)
    result = CaptionedImages(notes=listed.notes)
    with CountProgress(len(listed.sources), "images captioned", request.quiet) as progress:
        for chunk in load_stream(model.encoder, listed.sources):
            result.names.extend(listed.sources[row].name for row in chunk.rows)
            if chunk.inputs:
                result.captions.extend(model.encoder.caption_chunk(chunk.inputs, request.beams))
            faults = sorted(chunk.faults.items())
            result.unreadable.extend(UnreadableSource(listed.sources[row].name, why) for row, why in faults)
            progress.advance(len(chunk.rows) + len(chunk.faults))
    return result
