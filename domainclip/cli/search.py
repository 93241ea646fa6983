"""The command `search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainclip.cli import output
from domainclip.cli.output import CsvOption, ImageColumn, JsonOption, ModelArgument, QuietOption

if TYPE_CHECKING:
    from domainclip.inference.search import SearchResult


Where = Annotated[
    list[str] | None,
    typer.Option("--in", help="Where to search: as the FILES of classify, or an index; repeatable."),
]
Index = Annotated[
    Path | None, typer.Option(help="A file for the index, to search in later; default: the cache.")
]
Approximate = Annotated[
    bool, typer.Option("--approximate", help="Compare a choice of the images of an index alone; an extra.")
]
TextWeight = Annotated[
    float, typer.Option(help="Weight of the words beside an image, from 0 to 1; the image has the rest.")
]


def search(
    model: ModelArgument,
    text: Annotated[str | None, typer.Argument(metavar="[WORDS]", help="The text to search for.")] = None,
    where: Where = None,
    index: Index = None,
    image: Annotated[str | None, typer.Option(help="An image to search for, alone or with words.")] = None,
    text_weight: TextWeight = 0.5,
    top: Annotated[int, typer.Option(min=1, help="Number of results.")] = 10,
    approximate: Approximate = False,
    image_column: ImageColumn = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search images by words, by an image, or by the weighted sum of both.

    The search is exact. Embeddings are cached by the content of the images: the first search encodes all of
    them, a later one only new and changed images. `domainclip data cache list` shows them. Above a million
    images, --approximate is faster over an index in a file, and may miss some.

    Exit code 3: some images cannot be read; they are named, and the others are searched.

    \b
    domainclip search runs/medical_xray-1 "pleural effusion" --in /data/films
    domainclip search runs/pets-1 --image cat.jpg --in photos/ --top 5
    domainclip search runs/pets-1 "at night" --image cat.jpg --text-weight 0.3 --in photos/ --json
    domainclip search runs/pets-1 "a cat" --in photos/ --index pets.index
    domainclip search runs/pets-1 "a dog" --in pets.index
    """
    chosen = output.output_format(as_json, as_csv)
    from domainclip.inference import saved_index, typed_files

    folders = _checked(text, image, text_weight, where)
    typed_files.check_model(model)
    found = typed_files.find_files(folders)
    if index is not None:
        saved_index.check_index_file(index)
    if approximate:
        saved_index.check_approximate(index, found)
    query_file = typed_files.find_files([image])[0].path if image is not None else None
    from domainclip.inference.search import Query
    from domainclip.pipelines import search as pipelines_search

    result, notes = pipelines_search.search(
        pipelines_search.SearchRequest(
            model=model,
            query=Query(text, query_file, text_weight),
            files=found,
            index=index,
            image_column=image_column,
            top=top,
            approximate=approximate,
            quiet=quiet,
        )
    )
    output.print_notes(notes, quiet)
    _print(result, model, chosen, approximate)
    output.report_unreadable(result.unreadable, result.searched + len(result.unreadable))


def _checked(text: str | None, image: str | None, text_weight: float, where: list[str] | None) -> list[str]:
    """Where to search, if there is a query."""
    from domainclip.errors import RecipeError

    if text is None and image is None:
        raise RecipeError("search: name words, or an image with --image, or both")
    if not where:
        raise RecipeError("--in: name the images to search, as --in photos/")
    if not 0 <= text_weight <= 1:
        raise RecipeError(f"--text-weight: must lie between 0 and 1, got {text_weight:g}")
    return where


def _print(result: SearchResult, model: str, chosen: output.Format, approximate: bool) -> None:
    ranked = list(enumerate(result.matches, start=1))
    if chosen == "json":
        output.print_json(
            {
                "schema_version": 1,
                "model": model,
                "searched": result.searched,
                "exact": not approximate,
                "results": [
                    {"rank": rank, "image": match.name, "cosine": match.cosine} for rank, match in ranked
                ],
                "unreadable": [{"image": one.name, "reason": one.reason} for one in result.unreadable],
            }
        )
        return
    rows = [[str(rank), match.name, f"{match.cosine:.6f}"] for rank, match in ranked]
    if chosen == "csv":
        output.print_csv(["rank", "image", "cosine"], rows)
    else:
        cut = [[rank, f"{float(cosine):.3f}", name] for rank, name, cosine in rows]
        output.print_table(["rank", "cosine", "image"], cut, right=("rank", "cosine"))
