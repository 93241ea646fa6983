"""`finetune` with `train.seeds`: one run for each seed, and one report of their mean and range.

The runs are those of an ablation with a single variant: each is a process and a run folder of its own,
RUN/seed-0, and is exactly the run of `train.seed=0`. They are measured on the same items, together with the
base, so that the intervals hold the luck of the items and that of the seed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from domainclip.config.recipe import Recipe
from domainclip.distributed import launch
from domainclip.errors import Interrupted, RecipeError
from domainclip.pipelines.ablation.compare import Execution, report, run_and_compare
from domainclip.pipelines.ablation.plan import Ablation, Plan, Run
from domainclip.pipelines.run_folder import locked_run_folder, write_recipe
from domainclip.training.run_context import RunOptions

FILE = "report"  # name of the files of the report, which a single run has as well


def finetune_seeds(recipe: Recipe, options: RunOptions, processes: int | None = None) -> Path:
    """Train a run for each seed of the recipe, those that are not complete, and report them; the page's path.

    Raises: RecipeError before anything is trained; Interrupted after a signal; DomainclipError, after the
    report is written, when runs failed.
    """
    if launch.is_launched():
        raise RecipeError(
            "train.seeds: starts the processes of each run itself: start it without a launcher, with "
            "domainclip finetune --processes N"
        )
    execution = Execution(processes=processes, quiet=options.quiet, command=options.command)
    with locked_run_folder(recipe.name, options) as folder:
        ablation = _ablation(recipe, folder)
        try:
            table, ended = run_and_compare(
                ablation, folder, execution, begin=lambda: write_recipe(folder, recipe)
            )
        except Interrupted as stop:
            done, _, _ = str(stop).partition(";")
            raise Interrupted(f"{done}; continue them with --resume --run-dir {folder}", stop.code) from None
        return report(replace(table, choice=None), ended, folder, FILE, execution)


def _ablation(recipe: Recipe, folder: Path) -> Ablation:
    """The runs of the seeds as an ablation, measured as the recipe says."""
    strategy = next(iter(recipe.strategy)).replace("_", " ")
    seeds = recipe.train.all_seeds()
    return Ablation(
        name=recipe.name,
        plan=Plan(recipe=recipe.name, variants={strategy: []}, seeds=seeds),
        measured=_with_seed(recipe, seeds[0], recipe.name),
        runs=[
            Run(strategy, seed, _with_seed(recipe, seed, f"{recipe.name}-seed-{seed}"), place)
            for seed in seeds
            for place in [folder / f"seed-{seed}"]
        ],
    )


def _with_seed(recipe: Recipe, seed: int, name: str) -> Recipe:
    """The recipe of one run."""
    train = recipe.train.model_copy(update={"seed": seed, "seeds": None})
    return recipe.model_copy(update={"train": train, "name": name})
