"""The verbs that run: finetune and demo, hop by hop."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from domainclip import distributed, gallery, outcome, resuming, shipped, towers, trained_on
from domainclip import recipe as recipes
from domainclip.contracts import EvaluationSet
from domainclip.embedding_store import EmbeddingStore
from domainclip.encoders import TowersEncoder
from domainclip.errors import RecipeError
from domainclip.evaluate import Evaluation, evaluate
from domainclip.features import with_kept_features, with_kept_pixels
from domainclip.interpolate import Tried, choose, set_alpha
from domainclip.prepare import (
    Prepared,
    evaluation_sets,
    learning,
    make_job,
    precision,
    prepare,
    sentences,
)
from domainclip.recipe import Recipe
from domainclip.train import Job, train
from domainclip.trained_on import TrainedOn


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
    learnt = trained_on.of(ready.corpus, trained_on.read(recipe.base.path))
    seen_before, said = trained_on.check({"the adapted model": learnt}, sets)
    for warning in [*warnings, *seen_before]:
        _say(f"warning: {warning}", quiet)
    identity = resuming.identity(ready)
    saved = resuming.saved(folder, identity) if resume else None
    ready.base.to(accelerator.device)
    kept_rows: dict[Any, Any] = {}  # embeddings of equal weights and items, computed once
    store = EmbeddingStore() if recipe.evaluate.keep_embeddings else None
    encoder, first = _of_base(ready, sets, kept_rows, store)
    figures = [f"{row.dataset} {row.metric} {row.base.value:.3f}" for row in first.rows if row.primary]
    _say(f"the base reaches: {', '.join(figures)}", quiet)
    distributed.first(partial(_begin, folder, recipe, learnt))
    distributed.first(partial(outcome.read, sets, first, [encoder], folder))

    torch.manual_seed(recipe.train.seed)  # adapters start from it
    kept = sentences(ready)
    job = make_job(ready, ready.parts.strategy.apply(ready.base), kept, identity)
    _say(f"{learning(job)}; {len(job.pairs)} training pairs; run folder {folder}", quiet)
    job = _with_kept(job, partial(_say, quiet=quiet))
    start = {name: w.detach().clone() for name, w in ready.base.weights().items() if job.factors[name] > 0}
    trained = train(job, folder, saved, accelerator, quiet)
    warnings += [f"while training, {alarm.text}" for alarm in trained.alarms]
    alpha, tried = _interpolated(job, start, ready)

    distributed.first(partial(ready.base.save, folder / "model"))
    # The very commit that was trained: the Hub's newest may be another by now.
    base = towers.load(recipe.base.path, ready.base.revision).to(accelerator.device)
    before, after = (TowersEncoder(model, kept_rows, store) for model in (base, ready.base))
    settings = recipe.evaluate
    found = evaluate(
        before, after, sets, ready.parts.probes, resamples=settings.resamples, seed=settings.seed
    )
    shown = gallery.examples(recipe, sets[0], [before, after])
    if distributed.rank() > 0:
        return None
    about = outcome.context(
        replace(ready, base=base, invalid=[*ready.invalid, *seen_before]),
        sets,
        command=command,
        warnings=warnings,
        readings=outcome.read(sets, found, [after], folder),  # the base was noted before it was trained
        shown=shown,
        run=outcome.run_facts(job, trained, folder, tried, alpha),
        training=outcome.curve(folder),
        trained_on=said,
    )
    return outcome.write_run(folder, ready, found, about)


def _begin(folder: Path, recipe: Recipe, learnt: TrainedOn) -> None:
    """The run folder; a run that is cut short has left what it trained on as well."""
    outcome.open_folder(folder, recipe)
    trained_on.write(folder, learnt)


def _with_kept(job: Job, say: Callable[[str], None]) -> Job:
    """The same job, with what never changes computed once."""
    # What is kept of pictures by another run spares their decoding; what this run needs is made below.
    job = with_kept_features(with_kept_pixels(job, say, build=False))
    for note in job.notes:
        say(note)
    return with_kept_pixels(job, say)


def _of_base(
    ready: Prepared, sets: list[EvaluationSet], kept_rows: dict[Any, Any], store: EmbeddingStore | None
) -> tuple[TowersEncoder, Evaluation]:
    """What the base reaches, before training: what cannot be measured fails now and not after it."""
    encoder = TowersEncoder(ready.base, kept_rows, store)
    seed = ready.recipe.evaluate.seed
    return encoder, evaluate(encoder, None, sets, ready.parts.probes, resamples=100, seed=seed)


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
        first = next(row for row in found.rows if row.primary and row.judged)
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
    return finetune(recipe, _next_folder(folder / "runs", "quickstart"), command="domainclip demo (local)")
