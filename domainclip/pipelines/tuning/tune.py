"""The command `tune`: search on the validation split, then measure the chosen recipe on the test split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from domainclip.components import build_components
from domainclip.config.recipe import Recipe
from domainclip.data import prepared_format
from domainclip.distributed.folder_lock import locked_folder
from domainclip.errors import DomainclipError, RecipeError
from domainclip.pipelines.ablation import runs
from domainclip.pipelines.finetune import finetune
from domainclip.pipelines.finetune_seeds import finetune_seeds
from domainclip.pipelines.inputs import Inputs, load_inputs
from domainclip.pipelines.tuning.options import TuneOptions
from domainclip.pipelines.tuning.search import FIRST_STAGE, Search, require_optuna
from domainclip.pipelines.tuning.search_space import SearchSpace, TuningData, search_space
from domainclip.pipelines.tuning.trials import Stage, TrialRunner, metric_that_decides, read_trial, with_base
from domainclip.report import tuning_page, writer
from domainclip.report.provenance import versions
from domainclip.report.tuning_results import TrialResult, Tuning
from domainclip.training.run_context import RunOptions

BEST = "best.yaml"
_ALPHAS = "[0.25, 0.5, 0.75, 1.0]"


def tune(recipe: str, changes: Sequence[str], folder: Path | None, options: TuneOptions) -> Path:
    """Search, train the chosen recipe with several seeds, and report; the page's path.

    Raises: RecipeError before anything is trained; Interrupted after a signal: the same command continues;
    DomainclipError when the recipe itself fails, or several trials in a row.
    """
    require_optuna()
    plain = TrialRunner(recipe, changes, Path()).load([])
    if not build_components(plain).strategy.trains_weights:
        raise RecipeError(
            f"strategy: {next(iter(plain.strategy))} trains no weight, and chooses on validation by itself: "
            "run domainclip finetune"
        )
    inputs = load_inputs(plain, "train")
    options.say(*inputs.guesses)
    folder = folder or Path("tuning") / plain.name
    shared = [*changes, *_interpolation(plain, inputs, options.margin)]
    data = TuningData(
        train_items=len(inputs.train_items.items),
        has_classes=_has_classes(inputs),
        has_retention=inputs.retention is not None,
    )
    runner = TrialRunner(recipe, shared, folder / "trials", data.train_items, options.processes)
    space = search_space(runner.load([]), options.strategies, data, runner.fits)
    blank = Tuning(
        name=plain.name,
        corpus=inputs.corpus.card.name,
        margin=None if inputs.retention is None else options.margin,
        command=options.command,
        versions=versions(),
    )
    del inputs  # the runs need the memory
    with locked_folder(folder, "name another --run-dir"):
        tuning = _search(runner, space, blank, plain.train.seed, options)
        options.say(*tuning_page.closing_lines(tuning))
        if (chosen := tuning.chosen) is None:
            return writer.write_tuning(folder, tuning)
        _write_best(folder, runner, chosen, options)
        tuning = replace(tuning, final_command=f"domainclip finetune --recipe {BEST}")
        page = writer.write_tuning(folder, tuning)
        if options.final:
            report = _measure(runner, chosen, folder, options)
            page = writer.write_tuning(folder, replace(tuning, final=report))
        return page


def _has_classes(inputs: Inputs) -> bool:
    classes = inputs.corpus.classes
    return any(name in classes for labels in inputs.train_items.items["labels"] for name in labels)


def _interpolation(recipe: Recipe, inputs: Inputs, margin: float) -> list[str]:
    """Every trial chooses α, so that it loses at most the margin, where a line leads back to the base.

    A recipe that interpolates keeps its values of α, and a limit of its own.
    """
    if inputs.model is not inputs.base:
        return []
    if (interpolation := recipe.weight_interpolation) is not None:
        chooses = inputs.retention is not None and len(interpolation.alphas) > 1
        has_limit = interpolation.max_retention_drop is not None
        return [f"weight_interpolation.max_retention_drop={margin:g}"] if chooses and not has_limit else []
    floor = "" if inputs.retention is None else f", max_retention_drop: {margin:g}"
    return [f"weight_interpolation={{alphas: {_ALPHAS}{floor}}}"]


def _search(
    runner: TrialRunner, space: SearchSpace, blank: Tuning, seed: int, options: TuneOptions
) -> Tuning:
    run = runner.prepare([], FIRST_STAGE)
    options.say(f"trial 0: {blank.name} as it is, a third of its epochs")
    ended, seconds = runner.finish(run)
    runs.check_any_complete([ended])
    metric = metric_that_decides(run.folder, options.metric)
    first = read_trial(0, [], ended, metric)
    if first.state == "failed":
        raise DomainclipError(f"trial 0, the recipe as it is: {first.error}")
    tuning = with_base(blank, run.folder, metric)
    run_stage = partial(runner.run_stage, metric)
    search = Search(space, seed, run_stage, runner.work_of, options.budget, blank.margin, options.say)
    for trial in search.trials(Stage(first, seconds, runner.whole_seconds(run))):
        options.say(tuning_page.trial_line(trial, tuning))
    return replace(tuning, trials=search.results)


def _seeds(options: TuneOptions) -> list[str]:
    return [f"train.seeds={options.seeds}"] if options.seeds > 1 else []


def _write_best(folder: Path, runner: TrialRunner, chosen: TrialResult, options: TuneOptions) -> None:
    """Write the chosen recipe, with every default."""
    recipe = runner.load(chosen.overrides, *_seeds(options))
    prepared_format.write_atomically(folder / BEST, recipe.resolved().encode())


def _measure(runner: TrialRunner, chosen: TrialResult, folder: Path, options: TuneOptions) -> str:
    """Train the chosen recipe and measure it on the test split; the path of its report, from the folder."""
    recipe, run = runner.load(chosen.overrides, *_seeds(options)), folder / "final"
    report = run / "report.html"
    if not report.is_file():
        resume = (run / "recipe.yaml").is_file()
        of_run = RunOptions(folder=run, resume=resume, quiet=options.quiet, command=options.command)
        if options.seeds > 1:
            finetune_seeds(recipe, of_run, options.processes)
        else:
            finetune(recipe, of_run)
    return os.path.relpath(report, folder)
