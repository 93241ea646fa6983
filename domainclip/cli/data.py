"""`domainclip data`: a corpus before it is trained on. Heavy imports stand inside the verbs."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainclip.errors import ExitCode, RecipeError

if TYPE_CHECKING:
    from domainclip.pipelines.data_check.check import CheckTarget, CorpusCheck

data = typer.Typer(
    no_args_is_help=True,
    help="Corpora: check, preview, prepare, and what is kept of them.",
    rich_markup_mode=None,
)
cache = typer.Typer(no_args_is_help=True, help="What runs keep on disk to be faster.", rich_markup_mode=None)
data.add_typer(cache, name="cache")

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Recipe keys said differently, as in corpus.path=/cxr."),
]

RecipeOption = Annotated[
    str | None, typer.Option("--recipe", "-r", help="A recipe, by name or file: its corpus, with its base.")
]
CardOption = Annotated[
    str | None, typer.Option("--card", "-c", help="A data card, by name or file; then a path.")
]
Workers = Annotated[int | None, typer.Option(help="Processes that decode pictures; default: all cores.")]
WithoutModel = Annotated[
    bool, typer.Option("--without-model", help="Leave the base of the recipe alone: no tokens are counted.")
]


@data.command()
def check(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH] [KEY=VALUE]...", help="With --card, the corpus; keys."),
    ] = None,
    recipe: RecipeOption = None,
    card: CardOption = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the findings as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the findings as a page, without pictures.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Name the places of every finding.")] = False,
    workers: Workers = None,
    without_model: WithoutModel = False,
) -> None:
    """Check a corpus before any training: leaks, duplicates, captions, pictures. Exit code 3 on errors.

    \b
    domainclip data check --recipe medical_xray corpus.path=/data/cxr
    domainclip data check --card class_folders /data/pets --json pets.json
    """
    from domainclip.pipelines.data_check import check as data_check_check
    from domainclip.pipelines.data_check import page

    target, rest = _target(recipe, card, words or [], without_model)
    if rest:
        raise RecipeError(f'data check: "{rest[0]}" is no key=value')
    found = data_check_check.check_corpus(target, workers=os.cpu_count() or 1 if workers is None else workers)
    if json_file is not None:
        text = json.dumps(found.as_json(), indent=1, ensure_ascii=False)
        json_file.write_text(text + "\n", encoding="utf-8")
    if html is not None:
        page.write_page(found, html)
    _print(found, all_)
    if found.errors:
        raise typer.Exit(int(ExitCode.DATA))


@data.command()
def preview(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[PATH] [KEY=VALUE]... OUT.html", help="With --card, the corpus; the page."),
    ],
    recipe: RecipeOption = None,
    card: CardOption = None,
    items: Annotated[int, typer.Option(min=1, max=1000, help="Items on the sheet.")] = 48,
    workers: Workers = None,
    without_model: WithoutModel = False,
) -> None:
    """Write a contact sheet of what the model will really see. It holds pictures: it is yours alone.

    \b
    domainclip data preview --recipe medical_xray corpus.path=/data/cxr preview.html
    domainclip data preview --card class_folders /data/pets preview.html
    """
    from domainclip.pipelines.data_check import check as data_check_check
    from domainclip.pipelines.data_check import page

    out = Path(words[-1])
    if out.suffix.lower() not in (".html", ".htm"):
        raise RecipeError(f'data preview: "{words[-1]}": name the page last, as in preview.html')
    target, rest = _target(recipe, card, words[:-1], without_model)
    if rest:
        raise RecipeError(f'data preview: "{rest[0]}" is no key=value')
    found = data_check_check.check_corpus(
        target, whole=False, workers=os.cpu_count() or 1 if workers is None else workers
    )
    typer.echo(page.write_preview(found, out, items))


@data.command()
def prepare(
    out: Annotated[Path, typer.Argument(help="The folder to write; one that was begun is gone on with.")],
    overrides: Overrides = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="A recipe by name, or a file of yours.")
    ] = None,
    card: Annotated[str | None, typer.Option(help="Instead of a recipe: a card by name, or a file.")] = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Short side in pixels; default: what the base takes, or 256.")
    ] = None,
    format: Annotated[str, typer.Option(help="png or webp, both exact, or jpeg, quality 95.")] = "png",
    to: Annotated[str, typer.Option(help="tar (WebDataset) or arrow.")] = "tar",
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")] = None,
    shard_items: Annotated[
        int, typer.Option(min=1, help="Items a shard: what is lost at most when it is stopped.")
    ] = 500,
) -> None:
    """Write a corpus as resized, de-identified shards with a manifest; restartable, and whole or absent.

    \b
    domainclip data prepare /fast/cxr --recipe medical_xray corpus.path=/data/cxr
    domainclip data prepare /fast/sky --card astronomy --format jpeg --size 224 corpus.path=sky.csv
    domainclip finetune --recipe medical_xray corpus.path=/fast/cxr
    """
    from domainclip.pipelines import data_prepare

    typer.echo(
        data_prepare.run(
            out,
            recipe,
            overrides or [],
            card,
            size=size,
            format=format,
            to=to,
            workers=workers,
            items=shard_items,
        )
    )


@cache.command("list")
def list_entries() -> None:
    """List what is kept: prepared pictures, features, embeddings, indexes of tar files.

    \b
    domainclip data cache list
    """
    from domainclip.pipelines import cache as pipelines_cache

    typer.echo(pipelines_cache.list_cache())


@cache.command("clear")
def clear_entries(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="As list shows them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of it.")] = False,
    older_than: Annotated[
        str | None, typer.Option(metavar="30d", help="What was not used for so many days (d) or hours (h).")
    ] = None,
) -> None:
    """Remove what is kept; runs make it again when they need it.

    \b
    domainclip data cache clear 3f9c2b71
    domainclip data cache clear --older-than 30d
    """
    from domainclip.pipelines import cache as pipelines_cache

    typer.echo(pipelines_cache.clear_cache(names or [], everything=everything, older_than=older_than))


def _target(
    recipe: str | None, card: str | None, words: list[str], without_model: bool
) -> tuple[CheckTarget, list[str]]:
    """The corpus that is meant, and the words that say nothing of it."""
    from domainclip.pipelines.data_check import check as data_check_check

    changes = [word for word in words if "=" in word and not Path(word).exists()]
    rest = [word for word in words if word not in changes]
    if recipe is not None and card is not None:
        raise RecipeError("data: name --recipe or --card, not both; a recipe's card is corpus.card=CARD")
    if recipe is not None:
        return data_check_check.from_recipe(recipe, changes, not without_model), rest
    target = data_check_check.from_card(card, rest[0] if rest else None, changes)
    return target, rest[1:]


def _print(found: CorpusCheck, everything: bool) -> None:
    """A table on a terminal; into a pipe one line a finding, that can be searched."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    styles = {"error": "red", "warning": "yellow", "info": "dim"}
    for finding in found.findings:
        where = "; ".join(finding.where) if everything else ""
        if not console.is_terminal:
            typer.echo(f"{finding.level:8} {finding.text}" + (f" [{where}]" if where else ""))
        # Text and not markup: a caption or a class may hold brackets.
        table.add_row(Text(finding.level, style=styles[finding.level]), Text(finding.text))
        if where:
            table.add_row("", Text(where, style="dim"))
    if console.is_terminal:
        console.print(table)
    tally = Counter(finding.level for finding in found.findings)
    said = (f"{tally[level]} {level}{'' if tally[level] == 1 else 's'}" for level in ("error", "warning"))
    typer.echo(", ".join(said))
