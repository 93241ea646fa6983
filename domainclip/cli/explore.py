"""The command `explore`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from domainclip.cli import output
from domainclip.cli.arguments import models_and_overrides
from domainclip.cli.output import JsonOption

if TYPE_CHECKING:
    from domainclip.pipelines.explore import OpenedPage

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN [MODEL]... [KEY=VALUE]...",
        help="A run folder, further models to compare, and overrides of recipe keys.",
    ),
]


def explore(
    words: Words,
    split: Annotated[
        str, typer.Option(help="validation, train or test; a look at test counts as a reading of it.")
    ] = "validation",
    projection: Annotated[
        Literal["pca", "umap"], typer.Option("--map", help="Map of the embeddings; umap needs an extra.")
    ] = "pca",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0: a free one.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: JsonOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the address alone.")] = False,
) -> None:
    """Search and classify the corpus of a run in the browser, base and adapted model side by side.

    The page shows which answers changed, filters by class, group, attribute and outcome, draws a map of the
    embeddings, tries classes and prompts, and saves a selection as CSV. Only this machine can open it, by the
    address that is printed. Images and captions are shown where the data card states that they identify no
    person (privacy). Ctrl-C ends it.

    \b
    domainclip explore runs/pets-1
    domainclip explore runs/pets-1 runs/pets-2 openai/clip-vit-base-patch32
    domainclip explore runs/pets-1 --map umap --open
    domainclip explore runs/medical_xray-1 corpus.path=/data/other_hospital
    """
    from domainclip.errors import RecipeError
    from domainclip.inference import typed_files

    models, overrides = models_and_overrides(words, "explore")
    for model in models:
        if model != "base":
            typed_files.check_model(model)
    from domainclip.pipelines import explore as pipelines_explore

    request = pipelines_explore.ExploreRequest(
        run=models[0],
        models=models[1:],
        overrides=overrides,
        split=split,
        method=projection,
        port=port,
    )
    try:
        opened = pipelines_explore.open_page(request)
    except OSError as error:
        if not port:
            raise
        raise RecipeError(f"--port {port}: {error.strerror}: name another one, or leave it out") from None
    _announce(opened, as_json, quiet)
    if open_browser:
        typer.launch(opened.server.address)
    try:
        opened.server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        opened.server.server_close()


def _announce(opened: OpenedPage, as_json: bool, quiet: bool) -> None:
    explored, address = opened.explored, opened.server.address
    output.print_notes([*filter(None, (explored.caution,)), *opened.notes], quiet)
    if as_json:
        output.print_json(
            {
                "schema_version": 1,
                "address": address,
                "split": explored.data.split,
                "items": explored.size,
                "unreadable": explored.unreadable,
                "models": [model.label for model in explored.models],
                "shows_images": explored.shows_content,
            }
        )
    else:
        typer.echo(address)
        if not quiet:
            typer.echo(
                f"{explored.size} items of the {explored.data.split} split; Ctrl-C ends the page", err=True
            )
    sys.stdout.flush()
