"""The verbs that run: finetune and demo, hop by hop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from domainclip.config import durations
from domainclip.config.recipe import Recipe
from domainclip.distributed import collectives, heartbeat
from domainclip.evaluation import contamination, split_usage
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.contamination import TrainingRecord
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import Evaluation, evaluate_pair
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.models import loading
from domainclip.models.saving import save_model
from domainclip.pipelines import inputs, protocol, reporting
from domainclip.pipelines.console import say
from domainclip.pipelines.inputs import Inputs, load_inputs
from domainclip.pipelines.protocol import evaluation_sets
from domainclip.pipelines.run_folder import begin_run, choose_run_folder, record_baseline
from domainclip.pipelines.training_setup import learning, make_job, sentences
from domainclip.report import gallery
from domainclip.training import teachers, validation, weight_interpolation
from domainclip.training.checkpointing import resume as checkpointing_resume
from domainclip.training.monitoring import metrics_log
from domainclip.training.precompute import with_kept_features, with_kept_pixels
from domainclip.training.setup import TrainingSetup, precision
from domainclip.training.stages import train_in_stages


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
    began, accelerator = time.monotonic(), _accelerator(recipe)
    folder = collectives.on_first_process(partial(choose_run_folder, folder, recipe, resume))
    ready = load_inputs(recipe)
    warnings = list(ready.warnings)
    every = evaluation_sets(recipe, ready.corpus, warnings)
    sets = protocol.reported_sets(every, recipe)
    learnt = contamination.record(ready.corpus, contamination.load(recipe.base.path))
    seen_before, said = contamination.find_overlap({"the adapted model": learnt}, sets)
    for warning in [*warnings, *seen_before]:
        say(f"warning: {warning}", quiet)
    identity = inputs.identity(ready)
    saved = (
        collectives.on_first_process(partial(checkpointing_resume.find_checkpoint, folder, identity))
        if resume
        else None
    )  # one for all
    for model in filter(None, (ready.base, ready.original)):
        model.to(accelerator.device)
    cache = EmbeddingCache.make(on_disk=recipe.evaluate.cache_embeddings)
    encoder, first = _of_base(ready, sets, cache, quiet)
    collectives.on_first_process(partial(record_baseline, folder, sets, first, encoder))

    choosing, head = _choosing(ready, every, cache.memory_only)
    setup = _begun(_job(ready, identity, _seen(ready, choosing, warnings), began), folder, learnt)
    say(f"{learning(setup)}; {len(setup.pairs)} training pairs; run folder {folder}", quiet)
    start = {name: w.detach().clone() for name, w in ready.base.weights().items() if setup.factors[name] > 0}
    tell = partial(say, quiet=quiet)
    keep = partial(_with_kept, say=tell)
    trained = train_in_stages(setup, keep, folder, saved, accelerator, say=tell, quiet=quiet)
    heartbeat.update("measuring", 0)
    warnings += [f"while training, {alarm.text}" for alarm in trained.alarms]
    swept = weight_interpolation.interpolate_weights(
        recipe, ready.base, start, choosing, ready.parts.probes, cache.memory_only, head
    )
    warnings += swept.warnings if swept else []

    collectives.on_first_process(partial(save_model, ready.base, folder / "model"))
    # The very commit that was trained: the Hub's newest may be another by now.
    base = loading.load_model(recipe.base.path, ready.base.revision).to(accelerator.device)
    base.frames = ready.base.frames  # the same pictures of a study, pooled as the base does: by their mean
    before, after = (CachedEncoder(model, cache) for model in (base, ready.base))
    settings = recipe.evaluate
    found = evaluate_pair(
        before, after, sets, ready.parts.probes, resamples=settings.bootstrap_samples, seed=settings.seed
    )
    shown = gallery.gallery_examples(recipe, sets[0], [before, after])
    collectives.wait_for_all()
    if collectives.rank() > 0:
        return None
    about = reporting.report_context(
        replace(ready, base=base, invalid=[*ready.invalid, *seen_before]),
        sets,
        command=command,
        warnings=warnings,
        readings=split_usage.record_split_usage(
            sets, found, [after], folder
        ),  # the base was noted before it was trained
        shown=shown,
        run=reporting.run_facts(setup, trained, folder, swept),
        training=metrics_log.read_metrics(folder),
        trained_on=said,
    )
    return reporting.write_run(folder, ready, found, about)


def _accelerator(recipe: Recipe) -> Accelerator:
    """One for the run; a process that waits longer than it was told ends, and says for what it waited."""
    limit = recipe.train.timeout
    heartbeat.set_timeout(limit)
    waiting = InitProcessGroupKwargs(timeout=timedelta(seconds=durations.seconds(limit)))
    return Accelerator(mixed_precision=precision(recipe), kwargs_handlers=[waiting])


def _job(
    ready: Inputs, identity: dict[str, Any], seen: validation.ValidationSet | None, began: float
) -> TrainingSetup:
    """What the loop works on; adapters, and whatever else a strategy adds, start from the seed."""
    torch.manual_seed(ready.recipe.train.seed)
    kept = sentences(ready)
    setup = make_job(ready, ready.parts.strategy.stages(ready.base), kept, identity)
    return replace(setup, validation=seen, started=began)


def _seen(ready: Inputs, sets: list[EvaluationSet], warnings: list[str]) -> validation.ValidationSet | None:
    """What is looked at while the model trains, if anything."""
    recipe = ready.recipe
    halved = (
        recipe.weight_interpolation is not None and recipe.weight_interpolation.max_retention_drop is not None
    )
    warnings += validation.validation_warnings(recipe.train, recipe.evaluate.split, halved)
    base = ready.original or ready.base
    return validation.make_validation_set(recipe, ready.corpus, sets, ready.terms, ready.parts.probes, base)


def _begun(setup: TrainingSetup, folder: Path, learnt: TrainingRecord) -> TrainingSetup:
    """A run that can be resumed, for no part of it has refused; then what other models say of its pairs."""
    collectives.on_first_process(partial(begin_run, folder, setup.recipe, learnt))
    return teachers.precompute_teachers(setup)


def _with_kept(setup: TrainingSetup, say: Callable[[str], None]) -> TrainingSetup:
    """The same job, with what never changes computed once."""
    # What is kept of pictures by another run spares their decoding; what this run needs is made below.
    setup = with_kept_features(with_kept_pixels(setup, say, build=False))
    for note in setup.notes:
        say(note)
    return with_kept_pixels(setup, say)


def _of_base(
    ready: Inputs,
    sets: list[EvaluationSet],
    cache: EmbeddingCache,
    quiet: bool,
) -> tuple[CachedEncoder, Evaluation]:
    """What the base reaches, before training: what cannot be measured fails now and not after it."""
    encoder = CachedEncoder(ready.original or ready.base, cache)
    seed = ready.recipe.evaluate.seed
    found = evaluate_pair(encoder, None, sets, ready.parts.probes, resamples=100, seed=seed)
    figures = [f"{row.dataset} {row.metric} {row.base.value:.3f}" for row in found.rows if row.primary]
    say(f"the base reaches: {', '.join(figures)}", quiet)
    return encoder, found


def _choosing(
    ready: Inputs, every: list[EvaluationSet], cache: EmbeddingCache
) -> tuple[list[EvaluationSet], ComparisonRow | None]:
    """What has a say in how far to go, and the figure that chooses where the recipe asks."""
    sets = protocol.selection_sets(every, ready.recipe, ready.corpus)
    return sets, weight_interpolation.selection_metric(
        ready.recipe, ready.base, sets, ready.parts.probes, cache
    )
