"""The command `embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainclip.cli import output
from domainclip.cli.output import ImageColumn, JsonOption, ModelArgument, QuietOption


def embed(
    model: ModelArgument,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...", help="Images, folders, patterns, tables that name images, or tar shards."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new file: .parquet, .npy or .csv.")],
    image_column: ImageColumn = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write the embeddings of images to a file: ids, and float32 vectors of unit length.

    Parquet holds a fingerprint of the model in its metadata; beside .npy and .csv lies a .json with it, of an
    .npy also with the ids of the rows.

    Exit code 3: some images cannot be read; they are named, and the others are written.

    \b
    domainclip embed runs/pets-1 photos/ --out photos.parquet
    domainclip embed runs/astronomy-1 sky.csv --out sky.npy
    """
    from domainclip.inference import typed_files

    typed_files.check_model(model)
    typed_files.check_new_file(out, (".parquet", ".npy", ".csv"), "--out")
    found = typed_files.find_files(files)
    from domainclip.pipelines import embed as pipelines_embed

    result = pipelines_embed.embed(
        pipelines_embed.EmbedRequest(
            model=model, files=found, out=out, image_column=image_column, quiet=quiet
        )
    )
    output.print_notes(result.notes, quiet)
    if as_json:
        output.print_json(
            {
                "schema_version": 1,
                "model": model,
                "fingerprint": result.fingerprint,
                "out": str(out),
                "rows": result.rows,
                "width": result.width,
                "unreadable": [{"image": one.name, "reason": one.reason} for one in result.unreadable],
            }
        )
    else:
        typer.echo(str(out) if quiet else f"{out}: {result.rows} embeddings of width {result.width}")
    output.report_unreadable(result.unreadable, result.rows + len(result.unreadable))
