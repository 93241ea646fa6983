"""The command `tune`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainclip.cli.arguments import (
    Json,
    Overrides,
    Processes,
    Quiet,
    RecipeOption,
    print_report,
    typed_command,
)
from domainclip.config import durations
from domainclip.errors import RecipeError

if TYPE_CHECKING:
    from domainclip.pipelines.tuning.options import TuneOptions


def tune(
    recipe: RecipeOption,
    overrides: Overrides = None,
    budget: Annotated[
        str | None, typer.Option(help="Time for everything, as 2h or 40m; then --trials has no default.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Number of trials, the recipe itself included; default: 20.")
    ] = None,
    strategies: Annotated[
        list[str] | None, typer.Option("--strategy", help="A strategy to try; may be repeated.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="probe/validation/metric that decides; default: the first headline metric.")
    ] = "",
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="Loss on the retention set that may not be exceeded.")
    ] = 0.01,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the chosen recipe.")] = 3,
    final: Annotated[
        bool, typer.Option(help="Train the chosen recipe and measure it on the test split, once.")
    ] = True,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the trials and the page; default: tuning/NAME.")
    ] = None,
    processes: Processes = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Choose strategy, learning rate, epochs and interpolation on the validation split, within a budget.

    Each trial is a run of the recipe with other settings. Every one chooses α so that it loses at most
    --margin on the retention set, where there is one. Complete trials are not repeated: run the same command
    again to continue. The chosen recipe is written to best.yaml.

    \b
    domainclip tune --recipe art_paintings corpus.path=paintings --budget 2h
    domainclip tune --recipe medical_xray corpus.path=/data/cxr --trials 12 --strategy lora --no-final
    """
    from domainclip.pipelines.tuning.options import TuneOptions

    options = TuneOptions(
        trials=trials,
        seconds=None if budget is None else _seconds(budget),
        strategies=strategies or [],
        metric=metric,
        margin=margin,
        seeds=seeds,
        final=final,
        processes=processes,
        quiet=quiet,
        command=typed_command(),
    )
    _check(recipe, overrides or [], options)
    from domainclip.pipelines.tuning import tune as pipelines_tune

    print_report(pipelines_tune.tune(recipe, overrides or [], run_dir, options), as_json)


def _check(name: str, overrides: Sequence[str], options: TuneOptions) -> None:
    """Check what names, paths and headers show, before torch is imported."""
    from domainclip.config import loading
    from domainclip.pipelines import early_checks
    from domainclip.pipelines.tuning.search_space import check_metric, check_strategies

    recipe = loading.load_recipe(name, overrides)
    check_strategies(recipe, options.strategies)
    check_metric(recipe, options.metric)
    early_checks.check_recipe(recipe)


def _seconds(budget: str) -> int:
    try:
        return durations.seconds(budget)
    except ValueError as error:
        raise RecipeError(f"--budget: {error}") from None
