"""The models of an ablation on the same items: what every probe finds of the base, and then of each run."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from domainclip.errors import RecipeError, did_you_mean
from domainclip.evaluation.base import EvaluationSet, ProbeResult
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import run_probes
from domainclip.models import dual_encoder, loading
from domainclip.pipelines import inputs, protocol
from domainclip.pipelines.ablation.plan import Ablation, Run
from domainclip.pipelines.inputs import Inputs

Place = tuple[str, str]  # probe, set
Found = dict[Place, ProbeResult]


@dataclass(frozen=True)
class Measuring:
    """The items and what the base reaches on them, known before anything is trained."""

    ablation: Ablation
    ready: Inputs
    sets: list[EvaluationSet]
    base: Found  # only the figures that stand in the table
    cache: EmbeddingCache  # the base's embeddings: those of a tower that stays locked serve the variants
    warnings: list[str]


def begin(ablation: Ablation) -> Measuring:
    """Loads corpus and base, and measures the base: what cannot be measured fails now and not after the runs.

    Raises: RecipeError for a figure that is not measured; whatever reading corpus and base raises.
    """
    recipe = ablation.measured
    ready = inputs.load_inputs(recipe, measuring=True)
    ready = replace(ready, base=ready.original or ready.base)  # as it was before a strategy built on it
    warnings = list(ready.warnings)
    # One variant that chooses on half of the general set takes that half from all.
    strict = [
        run.recipe
        for run in ablation.runs
        if run.recipe.weight_interpolation and run.recipe.weight_interpolation.max_retention_drop
    ]
    sets = protocol.reported_sets(
        protocol.evaluation_sets(recipe, ready.corpus, warnings), strict[0] if strict else recipe
    )
    cache = EmbeddingCache.make(on_disk=recipe.evaluate.cache_embeddings)
    ready.base.to(Accelerator().device)
    found = dict(_found(ready.base, ready, sets, cache))
    base = {place: _only(one, _wanted(ablation, place, one)) for place, one in found.items()}
    _refuse_unknown(ablation, found)
    ready.base.to("cpu")  # the runs need the room
    _free()
    if recipe.evaluate.split == "test" and len(ablation.plan.variants) > 1:
        warnings.append(
            f"{len(ablation.plan.variants)} variants are compared on the test split: the best of them "
            "flatters; choose on evaluate.split=validation, and measure the chosen one on the test split"
        )
    swept = {run.variant: None for run in ablation.runs if run.recipe.weight_interpolation}
    if recipe.evaluate.split == "validation" and swept:
        warnings.append(f"{', '.join(swept)}: α was chosen on the validation split, so figures on it flatter")
    if strict:
        warnings.append(
            "weight_interpolation.max_retention_drop chooses on half of the general set: the other half "
            "is measured"
        )
    if len(ablation.plan.seeds) == 1:
        warnings.append("one seed: the intervals hold the luck of the items, and not that of the seed")
    return Measuring(ablation, ready, sets, base, cache, warnings)


def of_run(measuring: Measuring, run: Run) -> tuple[Found, bool]:
    """What the base was measured in, of the model of a complete run; and whether it prepares images alike."""
    ready = measuring.ready
    model = loading.load_model(run.folder / "model").to(Accelerator().device)
    alike = model.image_preprocessor.fingerprint() == ready.base.image_preprocessor.fingerprint()
    if model.frames != ready.base.frames:
        measuring.warnings.append(
            f"{run.variant} looks at {model.frames} pictures of an item, and the base at "
            f"{ready.base.frames}: its gain is of the further pictures too"
        )
    found = {
        place: _only(one, [metric.name for metric in measuring.base[place].metrics])
        for place, one in _found(model, ready, measuring.sets, measuring.cache.branch())
    }
    del model
    _free()
    return found, alike


def _found(
    model: dual_encoder.DualEncoder, ready: Inputs, sets: Sequence[EvaluationSet], cache: EmbeddingCache
) -> Iterator[tuple[Place, ProbeResult]]:
    """What every probe finds of one model."""
    for one in run_probes([CachedEncoder(model, cache)], sets, ready.parts.probes):
        yield (one.results[0].probe, one.results[0].dataset), one.results[0]


def _free() -> None:
    """Gives back what the last model held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _wanted(ablation: Ablation, place: Place, found: ProbeResult) -> list[str]:
    said = [tuple(figure.split("/", 2)) for figure in ablation.plan.metrics]
    return [metric for probe, dataset, metric in said if (probe, dataset) == place] or (
        [] if said else [found.primary]
    )


def _only(found: ProbeResult, names: Sequence[str]) -> ProbeResult:
    return replace(found, metrics=[one for one in found.metrics if one.name in names])


def _refuse_unknown(ablation: Ablation, found: Found) -> None:
    known = [f"{probe}/{dataset}/{one.name}" for (probe, dataset), r in found.items() for one in r.metrics]
    for figure in ablation.plan.metrics:
        if figure not in known:
            raise RecipeError(
                f'{ablation.name}.yaml: metrics "{figure}": nothing of that name is measured: '
                f"{did_you_mean(figure, known)}"
            )
