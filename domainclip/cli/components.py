"""The command group `components`."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from domainclip.cli import completion
from domainclip.cli.output import JsonOption

components = typer.Typer(
    no_args_is_help=True,
    help="List the components that a recipe or card can name, and show the options of one.",
    rich_markup_mode=None,
)


@components.command("list")
def list_components(
    kind: Annotated[
        str | None,
        typer.Argument(
            help="readers, curation, strategies, objectives or probes.", autocompletion=completion.kinds
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List all components, or those of a kind, with one line on each.

    \b
    domainclip components list
    domainclip components list objectives
    """
    from domainclip import registry
    from domainclip.cli import output
    from domainclip.config import option_types

    kinds = registry.KINDS if kind is None else (kind,)
    rows = [[one, name, option_types.purpose(one, name)] for one in kinds for name in registry.names(one)]
    if as_json:
        output.print_json([dict(zip(("kind", "name", "purpose"), row, strict=True)) for row in rows])
    else:
        output.print_table(["kind", "name", "purpose"], rows, wrap=["purpose"])


@components.command("show")
def show_component(
    name: Annotated[
        str, typer.Argument(help="A component, e.g. lora or zero_shot.", autocompletion=completion.components)
    ],
    as_json: JsonOption = False,
) -> None:
    """Print a component: its purpose, its source, and its options with types and defaults.

    \b
    domainclip components show lora
    domainclip components show zero_shot --json
    """
    from domainclip import registry
    from domainclip.cli import output
    from domainclip.errors import RecipeError, did_you_mean

    kinds = [kind for kind in registry.KINDS if name in registry.names(kind)]
    if not kinds:
        known = [one for kind in registry.KINDS for one in registry.names(kind)]
        raise RecipeError(f'components: no component "{name}": {did_you_mean(name, known)}')
    described = [_described(kind, name) for kind in kinds]
    if as_json:
        output.print_json(described)
        return
    for one in described:
        typer.echo(f"{one['name']} ({one['kind']}): {one['purpose']}\n\n{one['description']}\n")
        typer.echo(f"Source: {one['source']}\n")
        columns = ["name", "type", "default", "meaning"]
        rows = [[option[column] for column in columns] for option in one["options"]]
        if rows:
            output.print_table(["option", *columns[1:]], rows, wrap=["type", "meaning"])
        else:
            typer.echo("It has no options.")


def _described(kind: str, name: str) -> dict[str, Any]:
    from domainclip import registry
    from domainclip.config import option_types

    component = registry.find(kind, name)
    return {
        "kind": kind,
        "name": name,
        "purpose": option_types.purpose(kind, name),
        "description": inspect.getdoc(component) or "",
        "source": component.citation,
        "options": [vars(option) for option in option_types.describe_options(kind, name)],
    }
