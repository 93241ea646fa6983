"""The command group `data`: check, preview and prepare a corpus; list and clear the disk cache."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainclip.cli import output
from domainclip.cli.arguments import CardOption, OptionalRecipe, Overrides, paths_and_overrides
from domainclip.cli.output import JsonOption
from domainclip.errors import ExitCode, RecipeError

if TYPE_CHECKING:  # not at run time: it imports torch
    from domainclip.pipelines.data_check.check import CorpusCheck
    from domainclip.pipelines.data_check.target import CheckTarget

data = typer.Typer(
    no_args_is_help=True,
    help="Check, preview and prepare a corpus; manage the disk cache.",
    rich_markup_mode=None,
)
cache = typer.Typer(
    no_args_is_help=True, help="List and clear what earlier runs cached on disk.", rich_markup_mode=None
)
data.add_typer(cache, name="cache")

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PATH] [KEY=VALUE]...", help="With --card, the corpus; then overrides of keys."),
]
Workers = Annotated[int | None, typer.Option(help="Processes that decode images; default: one per core.")]
Part = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Write only part I of N, as one job of an array; then --join."),
]
Join = Annotated[bool, typer.Option("--join", help="Complete the folder that all parts were written to.")]
WithoutModel = Annotated[
    bool, typer.Option("--without-model", help="Do not load the base model; caption tokens are not counted.")
]


@data.command()
def check(
    words: Words = None,
    recipe: OptionalRecipe = None,
    card: CardOption = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the findings as JSON; - prints them alone.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the findings as a page, without images.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="List the rows of every finding.")] = False,
    workers: Workers = None,
    without_model: WithoutModel = False,
) -> None:
    """Check a corpus before training: leakage, duplicates, captions, images. Exit code 3 on errors.

    \b
    domainclip data check --recipe medical_xray corpus.path=/data/cxr
    domainclip data check --card class_folders /data/pets --json pets.json
    """
    target, rest = _target(recipe, card, words or [], without_model)
    if rest:
        raise RecipeError(f'data check: "{rest[0]}": write overrides as key=value')
    _check_early(target)
    from domainclip.pipelines.data_check import check as corpus_check
    from domainclip.pipelines.data_check import page

    checked = corpus_check.check_corpus(target, workers=_workers(workers))
    alone = json_file == Path("-")
    if json_file is not None and not alone:
        text = json.dumps(checked.as_json(), indent=1, ensure_ascii=False)
        json_file.write_text(text + "\n", encoding="utf-8")
    if html is not None:
        page.write_page(checked, html)
    if alone:
        output.print_json(checked.as_json())
    else:
        _print_findings(checked, with_places=all_)
    if checked.errors:
        raise typer.Exit(int(ExitCode.DATA))


@data.command()
def preview(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[PATH] [KEY=VALUE]... OUT.html",
            help="With --card, the corpus; overrides of keys; the page to write.",
        ),
    ],
    recipe: OptionalRecipe = None,
    card: CardOption = None,
    items: Annotated[int, typer.Option(min=1, max=1000, help="Number of items on the page.")] = 48,
    workers: Workers = None,
    without_model: WithoutModel = False,
) -> None:
    """Write a page of images and captions as the model will see them. It shows the corpus: keep it private.

    \b
    domainclip data preview --recipe medical_xray corpus.path=/data/cxr preview.html
    domainclip data preview --card class_folders /data/pets preview.html
    """
    out = Path(words[-1])
    if out.suffix.lower() not in (".html", ".htm"):
        raise RecipeError(f'data preview: "{words[-1]}": name the page last, e.g. preview.html')
    target, rest = _target(recipe, card, words[:-1], without_model)
    if rest:
        raise RecipeError(f'data preview: "{rest[0]}": write overrides as key=value')
    _check_early(target)
    from domainclip.pipelines.data_check import check as corpus_check
    from domainclip.pipelines.data_check import page

    checked = corpus_check.check_corpus(target, whole=False, workers=_workers(workers))
    output.print_notes([checked.corpus.guesses] if checked.corpus.guesses else [], quiet=False)
    typer.echo(page.write_preview(checked, out, items))


@data.command()
def prepare(
    out: Annotated[Path, typer.Argument(help="Folder to write; an unfinished one is continued.")],
    overrides: Overrides = None,
    recipe: OptionalRecipe = None,
    card: CardOption = None,
    size: Annotated[
        int | None,
        typer.Option(min=16, help="Short side in pixels; default: the base model's input, or 256."),
    ] = None,
    format: Annotated[str, typer.Option(help="png or webp (lossless), or jpeg (quality 95).")] = "png",
    to: Annotated[str, typer.Option(help="tar (WebDataset) or arrow.")] = "tar",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per core.")] = None,
    shard_items: Annotated[
        int, typer.Option(min=1, help="Items per shard; an interruption loses at most one shard of work.")
    ] = 500,
    identifiers: Annotated[
        str, typer.Option(help="Captions that may identify a person: refuse, redact or keep.")
    ] = "refuse",
    part: Part = None,
    join: Join = False,
) -> None:
    """Write a corpus as resized shards with a manifest. Can be interrupted and continued.

    Ids and groups become pseudonyms. Captions are searched for names, dates, numbers of records and the like,
    unless the card has no persons (privacy.identifiers: none); a search by form does not find everything.

    \b
    domainclip data prepare /fast/cxr --recipe medical_xray corpus.path=/data/cxr
    domainclip data prepare /fast/sky --card astronomy --format jpeg --size 224 corpus.path=sky.csv
    domainclip data prepare /fast/cxr --recipe medical_xray corpus.path=/data/cxr --part 3/8
    domainclip data prepare /fast/cxr --recipe medical_xray corpus.path=/data/cxr --join
    domainclip finetune --recipe medical_xray corpus.path=/fast/cxr
    """
    _check_part(part, join)
    if card is not None and not any(word.startswith("corpus.path=") for word in overrides or []):
        raise RecipeError(
            "data prepare --card: name the corpus with corpus.path=PATH; other keys are corpus.…"
        )
    if (recipe is None) != (card is None):
        _check_early(_target(recipe, card, overrides or [], size is not None)[0])
    from domainclip.pipelines import data_prepare

    message = data_prepare.run(
        out,
        recipe,
        overrides or [],
        card,
        size=size,
        format=format,
        to=to,
        workers=workers,
        items=shard_items,
        identifiers=identifiers,
        part=part,
        join=join,
    )
    typer.echo(message)


@cache.command("list")
def list_entries(as_json: JsonOption = False) -> None:
    """List the cache entries: decoded images, features, embeddings, indexes of search and of tar files.

    \b
    domainclip data cache list
    """
    from domainclip.pipelines import cache as pipelines_cache

    if as_json:
        output.print_json({"schema_version": 1, "entries": [vars(one) for one in pipelines_cache.cached()]})
    else:
        if rows := pipelines_cache.cache_rows():
            output.print_table(pipelines_cache.COLUMNS, rows, right=("size", "used"), wrap=("content",))
        typer.echo(pipelines_cache.cache_total())


@cache.command("clear")
def clear_entries(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Entries, as `data cache list` shows them."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all entries.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="30d", help="Remove entries not used for this number of days (d) or hours (h)."),
    ] = None,
) -> None:
    """Remove cache entries; a later run computes them again when it needs them.

    \b
    domainclip data cache clear 3f9c2b71
    domainclip data cache clear --older-than 30d
    """
    from domainclip.pipelines import cache as pipelines_cache

    typer.echo(pipelines_cache.clear_cache(names or [], everything=everything, older_than=older_than))


def _workers(workers: int | None) -> int:
    return os.cpu_count() or 1 if workers is None else workers


def _check_part(part: str | None, join: bool) -> None:
    """Raises: RecipeError for a part that is none, and for both options."""
    from domainclip.pipelines.parts import parse_part

    if part is not None and join:
        raise RecipeError("--part and --join: use --part for each part, then --join alone")
    parse_part(part)


def _target(
    recipe: str | None, card: str | None, words: list[str], without_model: bool
) -> tuple[CheckTarget, list[str]]:
    """The corpus to check, and the words that are neither its path nor an override."""
    from domainclip.pipelines.data_check import target

    paths, overrides = paths_and_overrides(words)
    if recipe is not None and card is not None:
        raise RecipeError(
            "data: use --recipe or --card, not both; corpus.card=CARD overrides a recipe's card"
        )
    if recipe is not None:
        return target.from_recipe(recipe, overrides, not without_model), paths
    return target.from_card(card, paths[0] if paths else None, overrides), paths[1:]


def _check_early(target: CheckTarget) -> None:
    """Check what shows before the corpus is read.

    Raises: RecipeError, DataError or ModelError.
    """
    from domainclip.pipelines import early_checks

    if target.recipe is not None and target.with_base:
        early_checks.check_recipe(target.recipe)
    else:
        early_checks.check_corpus(target.card, target.path)


def _print_findings(checked: CorpusCheck, with_places: bool) -> None:
    """Print a table on a terminal; in a pipe one line per finding, which can be searched."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    styles = {"error": "red", "warning": "yellow", "info": "dim"}
    for finding in checked.findings:
        places = "; ".join(finding.where) if with_places else ""
        if not console.is_terminal:
            typer.echo(f"{finding.level:8} {finding.text}" + (f" [{places}]" if places else ""))
        # Text and not markup: a caption or a class may hold brackets.
        table.add_row(Text(finding.level, style=styles[finding.level]), Text(finding.text))
        if places:
            table.add_row("", Text(places, style="dim"))
    for note in checked.corpus.notes:
        if not console.is_terminal:
            typer.echo(f"{'note':8} {note}")
        table.add_row(Text("note", style="dim"), Text(note))
    if console.is_terminal:
        console.print(table)
    counts = Counter(finding.level for finding in checked.findings)
    summary = (
        f"{counts[level]} {level}{'' if counts[level] == 1 else 's'}" for level in ("error", "warning")
    )
    typer.echo(", ".join(summary))
