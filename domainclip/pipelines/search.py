"""The command `search`: the images that are nearest to words, to an image, or to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domainclip.inference.adapted_model import load_model
from domainclip.inference.image_sources import list_sources
from domainclip.inference.search import Query, SearchResult
from domainclip.inference.search import search as search_sources
from domainclip.inference.typed_files import TypedFile


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """The options of the command."""

    model: str  # a run folder, a model folder or a Hub id
    query: Query
    files: Sequence[TypedFile]  # to search in
    image_column: str | None = None
    top: int = 10
    quiet: bool = False


def search(request: SearchRequest) -> tuple[SearchResult, list[str]]:
    """The nearest images, and remarks on the files.

    Raises: RecipeError for no query; DataError for a file without images, or when none can be read;
    ModelError for a model that cannot be loaded.
    """
    model = load_model(request.model)
    listed = list_sources(request.files, request.image_column, model.rendering)
    return search_sources(model, request.query, listed.sources, request.top, request.quiet), listed.notes
