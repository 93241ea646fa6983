"""The verbs that run: finetune, eval and demo, hop by hop."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from domainclip import distributed, outcome, resuming, shipped, towers
from domainclip import recipe as recipes
from domainclip.contracts import EvaluationSet
from domainclip.encoders import TowersEncoder
from domainclip.errors import RecipeError
from domainclip.evaluate import evaluate
from domainclip.interpolate import Tried, choose, set_alpha
from domainclip.prepare import (
    Prepared,
    evaluation_sets,
    learning,
    make_job,
    precision,
    prepare,
    sentences,
    with_kept_features,
)
from domainclip.recipe import Recipe
from domainclip.towers import Towers
from domainclip.train import Job, train


def locate(
    name: str | None, overrides: Sequence[str], folder: Path | None, resume: bool
) -> tuple[Recipe, Path | None]:
    """The recipe and run folder that the options mean.

    Raises: RecipeError when they do not fit together.
    """
    if resume:
        if folder is None or not (folder / "recipe.yaml").is_file():
            raise RecipeError("--resume: name the run to continue with --run-dir RUN")
        return recipes.load(name or str(folder / "recipe.yaml"), overrides), folder
    if name is None:
        raise RecipeError(
            "finetune: name a recipe with --recipe; domainclip recipes ls shows those that ship"
        )
    return recipes.load(name, overrides), folder


def _run_folder(folder: Path | None, recipe: Recipe, resume: bool) -> Path:
    """The folder to write to; a new run never goes where one is already."""
    if folder is None:
        return _next_folder(Path("runs"), recipe.name)
    if not resume and (folder / "recipe.yaml").exists():
        raise RecipeError(
            f"{folder}: holds a run already; continue it with --resume or name another --run-dir"
        )
    return folder


def finetune(
    recipe: Recipe,
    folder: Path | None,
    *,
    resume: bool = False,
    quiet: bool = False,
    command: str = "",
) -> Path | None:
    """The whole run; the report's path, on the first process.

    Raises: any DomainclipError; what was saved before stays.
    """
    accelerator = Accelerator(mixed_precision=precision(recipe))
    folder = distributed.first(partial(_run_folder, folder, recipe, resume))
    ready = prepare(recipe)
    warnings = list(ready.warnings)
    sets = evaluation_sets(recipe, ready.corpus, warnings)
    for warning in warnings:
        _say(f"warning: {warning}", quiet)
    identity = resuming.identity(ready)
    saved = resuming.saved(folder, identity) if resume else None
    ready.base.to(accelerator.device)
    kept_rows: dict[Any, Any] = {}  # embeddings of equal weights and items, computed once
    _say(_base_figures(ready, sets, kept_rows), quiet)
    distributed.first(partial(outcome.open_folder, folder, recipe))

    torch.manual_seed(recipe.train.seed)  # adapters start from it
    kept = sentences(ready)
    job = make_job(ready, ready.parts.strategy.apply(ready.base), kept, identity)
    _say(f"{learning(job)}; {len(job.pairs)} training pairs; run folder {folder}", quiet)
    job = with_kept_features(job)
    start = {name: w.detach().clone() for name, w in ready.base.weights().items() if job.factors[name] > 0}
    trained = train(job, folder, saved, accelerator, quiet)
    alpha, tried = _interpolated(job, start, ready)

    distributed.first(partial(ready.base.save, folder / "model"))
    # The very commit that was trained: the Hub's newest may be another by now.
    base = towers.load(recipe.base.path, ready.base.revision).to(accelerator.device)
    before, after = TowersEncoder(base, kept_rows), TowersEncoder(ready.base, kept_rows)
    settings = recipe.evaluate
    found = evaluate(
        before, after, sets, ready.parts.probes, resamples=settings.resamples, seed=settings.seed
    )
    shown = outcome.examples(ready, sets[0], [before, after])
    if distributed.rank() > 0:
        return None
    facts = outcome.run_facts(job, trained, folder, tried, alpha)
    return outcome.write_report(
        folder,
        replace(ready, base=base),
        sets,
        found,
        command=command,
        run=facts,
        warnings=warnings,
        shown=shown,
    )


def _base_figures(ready: Prepared, sets: list[EvaluationSet], kept_rows: dict[Any, Any]) -> str:
    """What the base reaches, before training: what cannot be measured fails now and not after it."""
    encoder = TowersEncoder(ready.base, kept_rows)
    seed = ready.recipe.evaluate.seed
    found = evaluate(encoder, None, sets, ready.parts.probes, resamples=100, seed=seed)
    figures = [f"{row.dataset} {row.metric} {row.base.value:.3f}" for row in found.rows if row.primary]
    return f"the base reaches: {', '.join(figures)}"


def evaluate_model(
    model: str,
    recipe_name: str | None,
    overrides: Sequence[str],
    against: str | None,
    out: Path | None,
    command: str,
) -> Path:
    """Measures a run, a folder or a Hub id, alone or against another; the report's path.

    Raises: RecipeError when nothing says what to measure on; whatever reading model and corpus raises.
    """
    own_run = (Path(model) / "recipe.yaml").is_file()
    if recipe_name is None and not own_run:
        raise RecipeError(f"eval {model}: not a run folder: say what to measure on with --recipe")
    recipe = recipes.load(recipe_name or str(Path(model) / "recipe.yaml"), overrides)
    ready = prepare(recipe)
    warnings = list(ready.warnings)
    sets = evaluation_sets(recipe, ready.corpus, warnings)
    device = Accelerator().device
    adapted = _model(model, recipe).to(device)
    kept_rows: dict[Any, Any] = {}
    encoders = [TowersEncoder(adapted, kept_rows)]
    first = adapted
    if against is not None:
        first = (ready.base if against == "base" else _model(against, recipe)).to(device)
        encoders.insert(0, TowersEncoder(first, kept_rows))
    settings = recipe.evaluate
    found = evaluate(
        encoders[0],
        encoders[1] if against else None,
        sets,
        ready.parts.probes,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    folder = out or (Path(model) / "eval" if own_run else Path("eval") / Path(model).name)
    folder.mkdir(parents=True, exist_ok=True)
    return outcome.write_report(
        folder,
        replace(ready, base=first),
        sets,
        found,
        command=command,
        run=None,
        warnings=warnings,
        shown=outcome.examples(ready, sets[0], encoders),
    )


def _model(name: str, recipe: Recipe) -> Towers:
    """The towers that a name on the command line means: a run's model, base, a folder or a Hub id."""
    if name == "base":
        return towers.load(recipe.base.path, recipe.base.revision)
    inside = Path(name) / "model"
    return towers.load(inside if inside.is_dir() else name)


def _interpolated(
    job: Job, start: Mapping[str, torch.Tensor], ready: Prepared
) -> tuple[float | None, list[Tried]]:
    """Moves the weights to the chosen α; it, and what was tried, for the report."""
    recipe = job.recipe
    if recipe.interpolate is None:
        return None, []
    weights = {name: w for name, w in job.towers.weights().items() if name in start}
    end = {name: w.detach().clone() for name, w in weights.items()}
    corpus = ready.corpus
    validation = EvaluationSet("validation", corpus.splits["validation"], corpus.card, corpus.classes)
    kept_rows: dict[Any, Any] = {}  # a locked tower is run once for all of them

    def measure(alpha: float) -> tuple[float, float]:
        set_alpha(weights, start, end, alpha)
        found = evaluate(
            TowersEncoder(job.towers, kept_rows),
            None,
            [validation],
            ready.parts.probes,
            resamples=200,
            seed=recipe.evaluate.seed,
        )
        first = next(row for row in found.rows if row.primary)
        sign = 1 if first.higher_is_better else -1
        return sign * first.base.value, (first.base.high - first.base.low) / (2 * 1.96)

    chosen, tried = choose(recipe.interpolate.alphas, measure)
    set_alpha(weights, start, end, chosen)
    return chosen, tried


def _next_folder(parent: Path, name: str) -> Path:
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"


def _say(text: str, quiet: bool) -> None:
    if not quiet and distributed.rank() == 0:
        print(text, file=sys.stderr, flush=True)


def demo(folder: Path) -> Path | None:
    """The quickstart: generated chest phantoms as DICOM files, the embedded base, one run, its report.

    A corpus that is there already is used again; every demonstration is a run of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "make_phantoms.py": folder / "chest_phantom",
        "generated_pictures.py": folder / "generated_pictures",
    }
    for script, target in made.items():
        if not target.exists():
            _say(f"making {target}", quiet=False)
            draft = target.with_name(f".{target.name}")
            shutil.rmtree(draft, ignore_errors=True)
            subprocess.run([sys.executable, str(shipped.folder("examples") / script), str(draft)], check=True)
            draft.rename(target)
    corpus, general = made.values()
    recipe = recipes.load("quickstart", [f"corpus.path={corpus}", f"retention.path={general}"])
    return finetune(recipe, _next_folder(folder / "runs", "quickstart"), command=f"domainclip demo {folder}")
