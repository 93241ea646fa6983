"""The models of an ablation on the same items: every probe on every set, for the base and for each run."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from domainclip.errors import RecipeError, did_you_mean
from domainclip.evaluation.base import ProbeResult
from domainclip.evaluation.controls import control_fault
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.probe_runs import run_probes
from domainclip.evaluation.protocol import Protocol
from domainclip.models import loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines.ablation.plan import Ablation, Run
from domainclip.pipelines.inputs import Inputs, load_inputs
from domainclip.pipelines.protocol import evaluation_sets, make_protocol, reported_sets

ResultKey = tuple[str, str]  # probe, set
Results = dict[ResultKey, ProbeResult]


@dataclass(frozen=True)
class AblationBaseline:
    """Inputs and protocol of an ablation, and the metrics of the base, known before anything is trained."""

    ablation: Ablation
    inputs: Inputs
    protocol: Protocol  # its cache holds the base's embeddings: a frozen tower of a variant is not run again
    results: Results  # only the metrics of the table
    warnings: tuple[str, ...]
    control_faults: Mapping[ResultKey, str]  # why a probe is not judged on a set, where a control failed
    weights: str  # sha256 of the base's


@dataclass(frozen=True)
class RunResults:
    """The metrics of one complete run."""

    results: Results
    warnings: tuple[str, ...]
    invalid: tuple[str, ...]  # why they must not be compared with the base's
    control_faults: Mapping[ResultKey, str]
    weights: str  # sha256 of the model's


def measure_ablation_baseline(ablation: Ablation) -> AblationBaseline:
    """Load corpus and base, and measure the base: what cannot be measured fails now, not after the runs.

    Raises: RecipeError for a metric that is not measured; whatever loading corpus and base raises.
    """
    recipe = ablation.measured
    inputs = load_inputs(recipe, "evaluate")
    protocol = make_protocol(inputs)
    # If one variant selects on half of the retention set, the other half is reported for all.
    floors = [
        run.recipe.weight_interpolation
        for run in ablation.runs
        if run.recipe.weight_interpolation and run.recipe.weight_interpolation.max_retention_drop
    ]
    if floors:
        sets = evaluation_sets(recipe, inputs.corpus, inputs.retention)
        protocol = replace(protocol, reported=reported_sets(sets, floors[0]))
    results = dict(_measure(inputs.base.to(Accelerator().device), protocol))
    _check_metrics(ablation, results)
    inputs.base.to("cpu")  # the runs need the memory
    _free_memory()
    return AblationBaseline(
        ablation,
        inputs,
        protocol,
        {key: _select(result, _metrics_of(ablation, key, result)) for key, result in results.items()},
        (*inputs.warnings, *_warnings(ablation, has_floor=bool(floors))),
        _control_faults(results, "the base", protocol),
        inputs.base.fingerprint("all"),
    )


def _warnings(ablation: Ablation, has_floor: bool) -> Iterator[str]:
    recipe = ablation.measured
    interpolated = {run.variant: None for run in ablation.runs if run.recipe.weight_interpolation}
    if recipe.evaluate.split == "validation" and interpolated:
        names = ", ".join(interpolated)
        yield f"{names}: α was selected on the validation split, so metrics on it are too high"
    if has_floor:
        yield (
            "weight_interpolation.max_retention_drop chooses on half of the general set: the other half "
            "is measured"
        )


def measure_run(baseline: AblationBaseline, run: Run) -> RunResults:
    """The metrics of the table, for the model of a complete run."""
    base = baseline.inputs.base
    model = loading.load_model(run.folder / "model").to(Accelerator().device)
    warnings: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    if model.image_preprocessor.fingerprint() != base.image_preprocessor.fingerprint():
        invalid = (f"{run.variant} prepares images differently from the base: not comparable",)
    if model.frames != base.frames:
        warnings = (
            f"{run.variant} uses {model.frames} images of an item, and the base {base.frames}: part of its "
            "gain may come from the additional images",
        )
    protocol = replace(baseline.protocol, embeddings=baseline.protocol.embeddings.branch())
    measured = dict(_measure(model, protocol))
    results = {
        key: _select(result, [metric.name for metric in baseline.results[key].metrics])
        for key, result in measured.items()
    }
    weights = model.fingerprint("all")
    del model
    _free_memory()
    return RunResults(results, warnings, invalid, _control_faults(measured, run.variant, protocol), weights)


def _control_faults(results: Results, model: str, protocol: Protocol) -> dict[ResultKey, str]:
    """The reasons of the probes and sets whose controls fail for a model."""
    faults = {
        key: control_fault({model: result}, protocol.bootstrap_samples, protocol.seed)
        for key, result in results.items()
    }
    return {key: fault for key, fault in faults.items() if fault}


def _measure(model: DualEncoder, protocol: Protocol) -> Iterator[tuple[ResultKey, ProbeResult]]:
    """The result of every probe on every set, for one model."""
    encoder = CachedEncoder(model, protocol.embeddings)
    for evaluation in run_probes([encoder], protocol.reported, protocol.probes):
        (result,) = evaluation.results
        yield (result.probe, result.dataset), result


def _free_memory() -> None:
    """Release what the last model held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _metrics_of(ablation: Ablation, key: ResultKey, result: ProbeResult) -> list[str]:
    """The metrics of a result that the plan names; its primary metric where the plan names none at all."""
    named = [tuple(name.split("/", 2)) for name in ablation.plan.metrics]
    return [metric for probe, dataset, metric in named if (probe, dataset) == key] or (
        [] if named else [result.primary]
    )


def _select(result: ProbeResult, names: Sequence[str]) -> ProbeResult:
    return replace(result, metrics=[metric for metric in result.metrics if metric.name in names])


def _check_metrics(ablation: Ablation, results: Results) -> None:
    """Raises: RecipeError for a metric of the plan that is not among the results."""
    known = [
        f"{probe}/{dataset}/{metric.name}" for (probe, dataset), r in results.items() for metric in r.metrics
    ]
    for name in ablation.plan.metrics:
        if name not in known:
            raise RecipeError(
                f'{ablation.name}.yaml: metrics "{name}": nothing of that name is measured: '
                f"{did_you_mean(name, known)}"
            )
