"""Commands that check a recipe without training: plan, validate and schema."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from domainclip.cli.arguments import Overrides, RecipeOption


def plan(
    recipe: RecipeOption,
    overrides: Overrides = None,
    probe: Annotated[bool, typer.Option(help="Time a few real steps to estimate pairs a second.")] = True,
    devices: Annotated[
        int | None, typer.Option(min=1, help="What so many devices like this one would take.")
    ] = None,
    bandwidth: Annotated[float, typer.Option(min=0.001, help="What a device sends, in GB/s.")] = 10.0,
    latency: Annotated[float, typer.Option(min=0.0, help="Of a message between two devices, in µs.")] = 20.0,
) -> None:
    """Say what a run would do: weights that learn, steps, memory, truncated texts, repeated captions, speed.

    \b
    domainclip plan --recipe medical_xray corpus.path=/data/cxr
    domainclip plan --recipe medical_xray corpus.path=/data/cxr --devices 64 --bandwidth 25
    """
    from domainclip.config import loading
    from domainclip.pipelines.plan import make_plan
    from domainclip.pipelines.plan.cluster import Network

    network = Network(bandwidth * 1e9, latency / 1e6)
    cluster = None if devices is None else make_plan.Cluster(devices, network)
    chosen = loading.load_recipe(recipe, overrides or [])
    typer.echo(make_plan.plan(chosen, probe=probe, cluster=cluster).text())


def validate(recipe: RecipeOption, overrides: Overrides = None) -> None:
    """Check every key, type, part and card of a recipe; nothing is downloaded or read.

    \b
    domainclip validate --recipe mine.yaml
    """
    from domainclip import components
    from domainclip.config import loading
    from domainclip.data.cards import load_card
    from domainclip.registry import build

    read = loading.load_recipe(recipe, overrides or [])
    components.build_components(read)
    card = load_card(read.corpus.card, read.corpus.overrides())
    build("readers", card.reader, card.options, "corpus.options")
    typer.echo(f"{recipe}: valid")


def schema() -> None:
    """Print the JSON schema of a recipe, with the options of every part, for editors.

    \b
    domainclip schema > recipe.schema.json
    """

    from domainclip.config import loading

    typer.echo(json.dumps(loading.schema(), indent=1))
