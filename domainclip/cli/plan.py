"""Commands that check a recipe without training: `plan`, `validate` and `schema`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from domainclip.cli import output
from domainclip.cli.arguments import Overrides, RecipeOption
from domainclip.cli.output import JsonOption

if TYPE_CHECKING:
    from domainclip.pipelines.plan.make_plan import Plan


def plan(
    recipe: RecipeOption,
    overrides: Overrides = None,
    benchmark: Annotated[
        bool, typer.Option(help="Run three training steps to estimate the throughput (pairs/s).")
    ] = True,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Estimate the cost on this number of devices like the one here.")
    ] = None,
    bandwidth: Annotated[
        float, typer.Option(min=0.001, help="Network bandwidth of a device, in GB/s.")
    ] = 10.0,
    latency: Annotated[
        float, typer.Option(min=0.0, help="Latency of a message between two devices, in µs.")
    ] = 20.0,
    as_json: JsonOption = False,
) -> None:
    """Show what a run would do: trainable weights, steps, memory, caption lengths and throughput.

    \b
    domainclip plan --recipe medical_xray corpus.path=/data/cxr
    domainclip plan --recipe medical_xray corpus.path=/data/cxr --devices 64 --bandwidth 25
    """
    from domainclip.config import loading
    from domainclip.pipelines import early_checks

    chosen = loading.load_recipe(recipe, overrides or [])
    early_checks.check_recipe(chosen)
    from domainclip.pipelines.plan import make_plan
    from domainclip.pipelines.plan.cluster import Network

    network = Network(bandwidth * 1e9, latency / 1e6)
    cluster = None if devices is None else make_plan.Cluster(devices, network)
    planned = make_plan.plan(chosen, benchmark=benchmark, cluster=cluster)
    if as_json:
        lines = [{"name": name, "value": value} for name, value in planned.lines]
        output.print_json({"schema_version": 1, "lines": lines, "warnings": list(planned.warnings)})
    else:
        print_plan(planned)


def print_plan(planned: Plan) -> None:
    """Print the lines of a plan as a table, then its warnings."""
    output.print_table(["plan", "value"], planned.lines, wrap=["value"])
    for warning in planned.warnings:
        typer.echo(f"warning: {warning}")


def validate(recipe: RecipeOption, overrides: Overrides = None, as_json: JsonOption = False) -> None:
    """Check every key, type, component and card of a recipe; nothing is downloaded or read.

    \b
    domainclip validate --recipe mine.yaml
    """
    from domainclip.config import component_source, loading
    from domainclip.data.cards import load_card

    loaded = loading.load_recipe(recipe, overrides or [])
    card = load_card(loaded.corpus.card, loaded.corpus.overrides())
    component_source.check_options("readers", card.reader, card.options, "corpus.options")
    from domainclip import components
    from domainclip.registry import build

    components.build_components(loaded)
    build("readers", card.reader, card.options, "corpus.options")
    if as_json:
        output.print_json({"schema_version": 1, "recipe": recipe, "valid": True})
    else:
        typer.echo(f"{recipe}: valid")


def schema() -> None:
    """Print the JSON schema of a recipe, with the options of every component, for editors.

    \b
    domainclip schema > recipe.schema.json
    """
    from domainclip.config import loading

    typer.echo(json.dumps(loading.schema(), indent=1))
