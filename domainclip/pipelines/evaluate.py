"""The command `eval`: measure any model alone, against another, or several in one table.

The corpus is read, its classes are chosen and the folder of the report is made before any model is loaded.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from domainclip.config.recipe import Recipe
from domainclip.distributed import collectives, phases
from domainclip.distributed.collectives import first_process
from domainclip.distributed.folder_lock import locked_folder, refuse_if_in_use
from domainclip.errors import RecipeError
from domainclip.evaluation import suites
from domainclip.evaluation.contamination import find_overlap
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import Evaluation, compare_models
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.run_folders import RECIPE, find_run
from domainclip.evaluation.split_usage import Measured, new_evaluation, record_split_usage
from domainclip.pipelines import evaluated_parts, external_evaluation
from domainclip.pipelines.closing import close
from domainclip.pipelines.eval_request import EvalRequest, TrainedRun, names_base, recipe_of, run_of
from domainclip.pipelines.evaluated_models import EvaluatedModels, load_models
from domainclip.pipelines.evaluated_sets import chosen_classes, evaluated_sets
from domainclip.pipelines.evaluation_inputs import MeasuredInputs, load_evaluation_inputs, with_model_checks
from domainclip.pipelines.inputs import EvaluationInputs
from domainclip.pipelines.parts import Part
from domainclip.pipelines.protocol import make_protocol
from domainclip.pipelines.reporting import precision_line, report_context
from domainclip.pipelines.run_decisions import record_evaluated_run
from domainclip.report import model_facts, writer
from domainclip.report.citations import probe_sources
from domainclip.report.context import ReportContext
from domainclip.report.external_evaluations import EXTERNAL
from domainclip.report.gallery import gallery_examples
from domainclip.report.source_cautions import source_cautions

log = logging.getLogger("domainclip")
_OTHER_FOLDER = "name another with --out"


def evaluate_models(request: EvalRequest) -> Path | None:
    """Measure the models on the same items; the report's path, on the first process.

    One model is reported alone, two as before and after, more as a table against the first.

    Raises: RecipeError when nothing states what to measure on; whatever loading models and corpus raises.
    """
    phases.set_quiet(request.quiet)
    run = run_of(request)
    recipe = recipe_of(request, run)
    folder = _report_folder(request)
    # A report inside a run is written to the run, which must not train then; the others are only read.
    around = (folder, *folder.parents[:2])
    locked = next((place for place in around if (place / RECIPE).is_file()), folder)
    _refuse_runs_in_use([Path(name) for name in request.names if Path(name) != locked])
    Accelerator()  # connects the processes, of which one holds the lock for all
    with locked_folder(locked, _OTHER_FOLDER):
        return _evaluate(request, run, recipe, folder)


def encode_part(request: EvalRequest, part: Part) -> str:
    """Encode a part of the images of the measured sets into the disk cache; a line about it.

    Raises: RecipeError for a recipe without an embedding cache; whatever loading models and corpus raises.
    """
    phases.set_quiet(request.quiet)
    run = run_of(request)
    recipe = recipe_of(request, run)
    _refuse_runs_in_use([Path(name) for name in request.names])
    Accelerator()
    prepared = _prepare(request, run, recipe, None)
    if prepared.protocol.embeddings.disk is None:
        raise RecipeError("--part: evaluate.cache_embeddings is false: set it to true, or leave --part out")
    return evaluated_parts.encode_part(prepared.encoders, prepared.protocol.reported, part)


@dataclass(frozen=True)
class _Prepared:
    """All that is loaded before a model encodes anything."""

    loaded: MeasuredInputs
    inputs: EvaluationInputs  # with the checks of the first model
    protocol: Protocol
    models: EvaluatedModels
    encoders: list[CachedEncoder]
    notes: list[str]
    folder: Path | None  # of the report


def _prepare(request: EvalRequest, run: TrainedRun | None, recipe: Recipe, folder: Path | None) -> _Prepared:
    """Load the corpus and the models; `folder` is that of the report, None for none."""
    suite = suites.load(request.suite) if request.suite else None
    chosen = chosen_classes(request.classes, request.templates, suite, request.models)
    loaded = load_evaluation_inputs(
        recipe,
        run,
        request.changes,
        own_recipe=request.recipe is None,
        probes=suite.assemble() if suite else None,
    )
    measured, recipe = loaded.measured, loaded.inputs.recipe
    _say(*(() if request.quiet else loaded.inputs.guesses))
    protocol = make_protocol(loaded.inputs)
    reported, notes = evaluated_sets(protocol.reported, chosen, suite, measured)
    if folder is not None:
        if measured.external and request.out is None:
            folder = external_evaluation.folder_of(folder, measured)
        _make_folder(folder)
    base = recipe.base if run is None or names_base(request.changes) else run.recipe.base
    models = load_models(request.names, base)
    inputs = with_model_checks(loaded, models.models[0])
    train = inputs.corpus.splits["train"]
    reported[0] = replace(reported[0], train=train if len(train) else None)
    protocol = replace(protocol, reported=reported, overlap=find_overlap(models.training_records(), reported))
    encoders = [CachedEncoder(model, protocol.embeddings) for model in models.models]
    return _Prepared(loaded, inputs, protocol, models, encoders, notes, folder)


def _evaluate(request: EvalRequest, run: TrainedRun | None, recipe: Recipe, folder: Path) -> Path | None:
    prepared = _prepare(request, run, recipe, folder)
    inputs, protocol, models, encoders = (
        prepared.inputs,
        prepared.protocol,
        prepared.models,
        prepared.encoders,
    )
    measured, recipe, reported = prepared.loaded.measured, inputs.recipe, protocol.reported
    folder = prepared.folder or folder
    evaluations = compare_models(
        encoders,
        protocol.reported,
        protocol.probes,
        resamples=protocol.bootstrap_samples,
        seed=protocol.seed,
        margin=protocol.margin,
    )
    examples = gallery_examples(recipe, reported[0], encoders[:2], protocol.probes, evaluations[0])
    precision = precision_line(models.models[0], protocol)
    _say(*(() if request.quiet else filter(None, [precision])))
    collectives.wait_for_all()
    if collectives.rank() > 0:
        return None
    context = report_context(
        inputs,
        protocol,
        models.models[0],
        command=request.command,
        warnings=[*inputs.warnings, *measured.notes, *prepared.notes],
        readings=record_split_usage(protocol.reported, evaluations[0], _usage(models)),
        examples=examples,
        precision=precision,
        citations=probe_sources(protocol.probes),
        adapted=_adapted_facts(models),
        one_run=len(models.names) == 2 and find_run(models.names[1]) is not None,
        external=external_evaluation.statement(measured, run, reported[0]) if run else "",
        cautions=source_cautions(evaluations[0]) if len(evaluations) == 1 else (),
    )
    _announce(context, evaluations)
    record_evaluated_run(folder.parent, request.names, protocol, evaluations)
    page = _write(folder, evaluations, context, models)
    if measured.external:
        external_evaluation.record_in_runs(request.names, evaluations, context, reported[0])
    if len(evaluations) == 1 and not request.quiet:
        last = Path(request.names[-1])
        evaluated_run = last if (last / RECIPE).is_file() else None
        close(evaluations[0], context, _say, evaluated_run, recipe, reported[0])
    return page


def _say(*lines: str) -> None:
    for line in () if collectives.rank() else lines:
        print(line, file=sys.stderr, flush=True)


def _adapted_facts(models: EvaluatedModels) -> dict[str, Any] | None:
    """The facts of the second of two models."""
    return model_facts.model_facts(models.models[1], models.labels[1]) if len(models.models) == 2 else None


def _usage(models: EvaluatedModels) -> Measured:
    """The models of this evaluation for the ledger: those with the weights of the base, and the others."""
    weights = [model.fingerprint("all") for model in models.models]
    of_base = {
        digest
        for name, digest in zip(models.names, weights, strict=True)
        if name in ("base", models.base.path)
    }
    return Measured(
        new_evaluation(),
        base=[digest for digest in weights if digest in of_base],
        adapted=[digest for digest in weights if digest not in of_base],
    )


def _write(
    folder: Path, evaluations: Sequence[Evaluation], context: ReportContext, models: EvaluatedModels
) -> Path:
    if len(evaluations) == 1:
        return writer.write(folder, evaluations[0], context)
    about = [model_facts.model_facts(model) for model in models.models]
    return writer.write_comparison(folder, evaluations, context, dict(zip(models.labels, about, strict=True)))


def _announce(context: ReportContext, evaluations: Sequence[Evaluation]) -> None:
    """Print what the report states about the validity of the metrics: exit code 0 alone would hide it."""
    for reason in context.invalid:
        log.warning("not valid: %s", reason)
    if context.external.startswith(EXTERNAL):
        log.warning("%s", context.external)
    measured = (warning for evaluation in evaluations for warning in evaluation.warnings)
    for warning in dict.fromkeys([*context.warnings, *measured]):
        log.warning("warning: %s", warning)
    if context.readings is not None and context.readings.warning:
        log.warning("warning: %s", context.readings.warning)


def _report_folder(request: EvalRequest) -> Path:
    """The folder of the report on the corpus of the recipe."""
    last = Path(request.models[-1])
    if request.out is not None:
        return request.out
    if len(request.names) > 2 or len(request.models) > 1:
        return Path("eval") / "compare"
    if (last / RECIPE).is_file():
        return last / "eval"
    run = find_run(str(last))  # of a checkpoint
    return Path("eval") / (last.name if run is None else f"{run.resolve().name}-{last.name}")


@first_process
def _refuse_runs_in_use(runs: Sequence[Path]) -> None:
    for run in runs:
        refuse_if_in_use(run)


@first_process
def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".draft.{os.getpid()}"
        draft.touch()
        draft.unlink()
    except OSError as error:
        raise RecipeError(f"{folder}: cannot be written: {error.strerror}: {_OTHER_FOLDER}") from None
