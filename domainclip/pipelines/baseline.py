"""Hop 4: the base, measured before anything is trained, so that what cannot be measured fails first."""

from __future__ import annotations

from dataclasses import dataclass, replace

from domainclip.distributed.phases import phase
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import Evaluation, evaluate_pair
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.statistics.drops import cannot_be_shown
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.models.dual_encoder import DualEncoder
from domainclip.pipelines.base_model import load_base
from domainclip.pipelines.inputs import Inputs
from domainclip.pipelines.run_folder import record_baseline
from domainclip.training.run_context import RunContext
from domainclip.training.weight_interpolation import selection_metric

_BOOTSTRAP_SAMPLES = 100  # only the values themselves are shown


@dataclass(frozen=True)
class Baseline:
    """The base, measured."""

    evaluation: Evaluation
    selection_metric: ComparisonRow | None  # that selects α; None where none is selected


@phase("measuring the base")
def measure_baseline(base: DualEncoder, protocol: Protocol, run: RunContext) -> Baseline:
    """Measure the base, make the run folder and record there which splits have been measured.

    Raises: RecipeError when nothing can be measured, or nothing can select α; DataError when no image of a
    set can be read.
    """
    encoder = CachedEncoder(base.to(run.accelerator.device), protocol.embeddings)
    evaluation = evaluate_pair(encoder, None, replace(protocol, bootstrap_samples=_BOOTSTRAP_SAMPLES))
    primary = [f"{row.dataset} {row.metric} {row.base.value:.3f}" for row in evaluation.rows if row.primary]
    run.say(f"the base reaches: {', '.join(primary)}")
    record_baseline(run.folder, protocol.reported, evaluation, encoder)
    metric = selection_metric(base, protocol)
    run.warn(*_floor_warnings(protocol, metric))
    return Baseline(evaluation, metric)


def _floor_warnings(protocol: Protocol, metric: ComparisonRow | None) -> list[str]:
    """A warning, before anything is trained, when the retention set is too small to show its floor."""
    limit = None if protocol.interpolation is None else protocol.interpolation.max_retention_drop
    if limit is None or metric is None:
        return []
    groups = {group for data in protocol.selection[1:] for group in data.items["group"][:]}
    reason = cannot_be_shown(limit, len(groups), metric.unit)
    return [f"weight_interpolation.max_retention_drop: {reason}"] if reason else []


@phase("loading the base again")
def reload_base(inputs: Inputs, protocol: Protocol, run: RunContext) -> CachedEncoder:
    """The base as published, once more: training may have changed it in place.

    The very commit that was trained: the newest on the Hub may be another by now.
    """
    base = load_base(inputs.recipe, inputs.components.strategy, inputs.base.revision)
    return CachedEncoder(base.to(run.accelerator.device), protocol.embeddings)
