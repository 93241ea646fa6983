"""The command group `cards`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainclip.cli import completion
from domainclip.cli.output import JsonOption

cards = typer.Typer(
    no_args_is_help=True, help="List, show and copy the built-in data cards.", rich_markup_mode=None
)
_LANGUAGES = 5  # in a line of the list
Name = Annotated[
    str, typer.Argument(help="A built-in data card, e.g. medical_xray.", autocompletion=completion.cards)
]


@cards.command("list")
def list_cards(as_json: JsonOption = False) -> None:
    """List the built-in data cards, with the name, reader, languages and licence of each corpus.

    \b
    domainclip cards list
    """
    from domainclip.cli import output
    from domainclip.config import builtin
    from domainclip.data.cards import load_card

    known = [(name, load_card(name)) for name in builtin.builtin_names("data_cards", ".md")]
    if as_json:
        output.print_json(
            [
                {
                    "card": name,
                    "name": card.pretty_name,
                    "reader": card.reader,
                    "language": card.language,
                    "license": card.license,
                }
                for name, card in known
            ]
        )
        return
    rows = [[name, card.reader, _few(card.language), card.license, card.pretty_name] for name, card in known]
    output.print_table(["card", "reader", "languages", "licence", "corpus"], rows)


@cards.command("show")
def show_card(name: Name) -> None:
    """Print a data card.

    \b
    domainclip cards show medical_xray
    """
    from domainclip.config import builtin

    typer.echo(builtin.find_file("data_cards", name, ".md").read_text(encoding="utf-8"), nl=False)


@cards.command("copy")
def copy_card(name: Name, to: Annotated[Path, typer.Argument(help="A new file, or a folder.")]) -> None:
    """Copy a data card, to edit it; an existing file is not overwritten.

    \b
    domainclip cards copy medical_xray my_card.md
    """
    from domainclip.config import builtin

    typer.echo(builtin.copy_file(builtin.find_file("data_cards", name, ".md"), to))


def _few(languages: list[str]) -> str:
    more = len(languages) - _LANGUAGES
    return ",".join(languages[:_LANGUAGES]) + (f" and {more} more" if more > 0 else "")
