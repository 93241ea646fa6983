"""The command `search`: the images that are nearest to words, to an image, or to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from domainclip.inference.adapted_model import AdaptedModel
from domainclip.inference.image_sources import ImageSource, list_sources
from domainclip.inference.saved_index import (
    IndexContents,
    check_approximate,
    check_index_file,
    contents_of,
    is_index,
    read_contents,
    write_contents,
)
from domainclip.inference.search import Query, SearchResult, image_fingerprint
from domainclip.inference.search import search as search_sources
from domainclip.inference.typed_files import TypedFile
from domainclip.pipelines.open_model import open_model


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """The options of the command."""

    model: str  # a run folder, a model or checkpoint folder, or a Hub id
    query: Query
    files: Sequence[TypedFile]  # to search in; or one index
    index: Path | None = None  # a file to write the index to; None: the cache
    image_column: str | None = None
    top: int = 10
    approximate: bool = False  # over a graph beside the index file
    quiet: bool = False


def search(request: SearchRequest) -> tuple[SearchResult, list[str]]:
    """The nearest images, and remarks on the files.

    Raises: RecipeError for no query, or for an index file that is something else; DataError for a file
    without images, or when none can be read; ModelError for a model that cannot be loaded, or an index of
    another one.
    """
    if request.index is not None:
        check_index_file(request.index)
    if request.approximate:
        check_approximate(request.index, request.files)
    model = open_model(request.model)
    if request.index is not None and is_index(
        request.index
    ):  # one of another model must not be mixed with it
        read_contents(request.index, f"--index {request.index}", image_fingerprint(model))
    first = request.files[0]
    if len(request.files) > 1 or not is_index(first.file):
        return _search_files(model, request, request.files, request.image_column, request.index)
    contents = read_contents(first.file, first.name, image_fingerprint(model))
    if contents.is_here:
        return _search_files(model, request, contents.files, contents.column, first.file)
    return _search_index(model, request, contents, first.file)


def _search_files(
    model: AdaptedModel,
    request: SearchRequest,
    files: Sequence[TypedFile],
    column: str | None,
    index: Path | None,
) -> tuple[SearchResult, list[str]]:
    """Search files and folders as they are now; an index in a file is brought up to date."""
    listed = list_sources(files, column, model.rendering)
    result = search_sources(
        model,
        request.query,
        listed.sources,
        request.top,
        request.quiet,
        file=index,
        approximate=request.approximate,
    )
    if index is not None:
        write_contents(index, contents_of(image_fingerprint(model), files, column, result.items))
    return result, listed.notes


def _search_index(
    model: AdaptedModel, request: SearchRequest, contents: IndexContents, file: Path
) -> tuple[SearchResult, list[str]]:
    """Search an index whose images are elsewhere."""
    sources = [ImageSource(name, {"path": None, "bytes": None}) for name, _ in contents.items]
    digests = [digest for _, digest in contents.items]
    result = search_sources(
        model,
        request.query,
        sources,
        request.top,
        request.quiet,
        file=file,
        digests=digests,
        approximate=request.approximate,
    )
    return result, ["the images of the index are not here: it is searched as it was last updated"]
