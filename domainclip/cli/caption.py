"""The command `caption`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from domainclip.cli import output
from domainclip.cli.output import CsvOption, ImageColumn, JsonOption, ModelArgument, QuietOption

if TYPE_CHECKING:
    from domainclip.pipelines.caption import CaptionedImages

_CAUTION = (
    "these captions are written by a model: they may be wrong, and may repeat captions of the training items"
)


def caption(
    model: ModelArgument,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...", help="Images, folders, patterns, tables that name images, or tar shards."
        ),
    ],
    beams: Annotated[
        int, typer.Option(min=1, max=64, help="Captions that are tried at once for each image.")
    ] = 3,
    image_column: ImageColumn = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a caption for each image, by the captioner of a run with the objective `captioning`.

    A caption may be wrong, and may repeat a training caption. The probe `written_captions` compares them with
    those of the items, and with captions that are taken over from the nearest training image.

    Exit code 3: some images cannot be read; they are named, and the others have captions.

    \b
    domainclip caption runs/captioning-1 photos/
    domainclip caption runs/captioning-1 "photos/*.jpg" --csv > captions.csv
    """
    chosen = output.output_format(as_json, as_csv)
    from domainclip.inference import typed_files

    typed_files.check_model(model)
    found = typed_files.find_files(files)
    from domainclip.pipelines import caption as pipelines_caption

    result = pipelines_caption.caption(
        pipelines_caption.CaptionRequest(
            model=model, files=found, beams=beams, image_column=image_column, quiet=quiet
        )
    )
    output.print_notes([*result.notes, _CAUTION], quiet)
    _print(result, model, chosen)
    output.report_unreadable(result.unreadable, len(result.names) + len(result.unreadable))


def _print(result: CaptionedImages, model: str, chosen: output.Format) -> None:
    pairs = list(zip(result.names, result.captions, strict=True))
    if chosen == "json":
        output.print_json(
            {
                "schema_version": 1,
                "model": model,
                "images": [{"image": name, "caption": text} for name, text in pairs],
                "unreadable": [{"image": one.name, "reason": one.reason} for one in result.unreadable],
            }
        )
    elif chosen == "csv":
        lost = [[one.name, "", one.reason] for one in result.unreadable]
        output.print_csv(
            ["image", "caption", "unreadable"], [*([name, text, ""] for name, text in pairs), *lost]
        )
    elif pairs:
        output.print_table(["image", "caption"], [list(pair) for pair in pairs], wrap=["caption"])
