"""Hop 7: interpolate between the weights of base and adapted model, (1 − α) θ₀ + α θ [arXiv:2109.01903].

The first steps away from the base bring most of the gain and cost least of what it knew. So the smallest α
wins whose score on the validation split is within one standard error of the best: the usual rule for taking
the simpler of two models that the data cannot tell apart. With a floor, the best score wins among those α
that retain the metric on the retention set, the base itself (α = 0) among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from domainclip.distributed import heartbeat
from domainclip.errors import RecipeError
from domainclip.evaluation.base import RETENTION, EvaluationSet, Probe
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import compare_models
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training.stages import TrainedModel


@dataclass(frozen=True)
class AlphaScore:
    """The score of one α; α = 0 is the base."""

    alpha: float
    score: float  # on the validation split; higher is better
    error: float  # its standard error
    general: float | None = None  # the same metric on the retention set, where there is one


@torch.no_grad()
def set_alpha(
    weights: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    alpha: float,
    model: nn.Module | None = None,
) -> None:
    """Set the weights to (1 − α) start + α end, in place; `model`, which holds them, is needed for DoRA only.

    An adapter's update is the product B A with B = 0 at the start: scaling B alone scales the update.
    """
    rescaled = {name.split(".lora_")[0] for name in weights if ".lora_magnitude_vector." in name}
    for name, weight in weights.items():
        if alpha == 0.0:
            weight.copy_(start[name])
        elif ".lora_A." in name or alpha == 1.0 or name.split(".lora_")[0] in rescaled:
            weight.copy_(end[name])
        else:
            weight.copy_(torch.lerp(start[name], end[name], alpha))
    if rescaled and 0.0 < alpha < 1.0:
        assert model is not None
        _rescale(model, alpha)


def _rescale(model: nn.Module, alpha: float) -> None:
    """Move DoRA's layers from α = 1 to α: (1 − α) W + α m (W + U) / ‖W + U‖, with U = s B A, row by row.

    A row is a mixture of W and U again, so a factor on B's row and a new length express it exactly.
    """
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, "lora_magnitude_vector")]
    for layer in layers:
        for name, dora in layer.lora_magnitude_vector.items():
            a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
            base, update = layer.base_layer.weight, layer.scaling[name] * (b @ a)
            of_update = alpha * dora.weight / (base + update).norm(dim=1)
            of_base = 1 - alpha + of_update
            share = (of_update / of_base)[:, None]
            b.mul_(share)
            dora.weight.copy_(of_base * (base + share * update).norm(dim=1))


def choose_alpha(tried: Sequence[AlphaScore], floor: float | None = None) -> float:
    """The selected α.

    Without a floor, the smallest above 0 whose score is within one standard error of the best. With one, the
    best score of those whose metric on the retention set lies at most `floor` below the base's; of equals,
    the smallest.
    """
    by_alpha = sorted(tried, key=lambda score: score.alpha)
    if floor is not None:
        base = next(score for score in by_alpha if score.alpha == 0)
        assert base.general is not None
        least = base.general - floor - 1e-12  # 0.50 - 0.49 is a hair more than 0.01
        allowed = [score for score in by_alpha if score.general is not None and score.general >= least]
        return max(allowed, key=lambda score: score.score).alpha
    moved = [score for score in by_alpha if score.alpha > 0]
    best = max(moved, key=lambda score: score.score)
    error = best.error if isfinite(best.error) else 0.0  # too few groups for an interval: the best itself
    return next(score.alpha for score in moved if score.score >= best.score - error)


_BOOTSTRAP_SAMPLES = 200  # for a standard error
_UNCHANGED = (
    "weight_interpolation.max_retention_drop: no α improves the metric within this drop: "
    "the model has the weights of the base"
)


@dataclass(frozen=True)
class InterpolationResult:
    """All α that were tried, and the selected one."""

    alpha: float
    tried: Sequence[AlphaScore]
    floor: float | None
    metric: str  # that selected
    unit: str

    def facts(self) -> dict[str, Any]:
        """For the report: scores by α, 0 being the base."""
        general = {str(score.alpha): score.general for score in self.tried if score.general is not None}
        used = "not used for choosing" if self.floor is None else "half of the set, which is not reported"
        return {
            "alpha": self.alpha,
            "figure": self.metric,
            "unit": self.unit,
            "validation": {str(score.alpha): score.score for score in self.tried},
            **({"general": general, "general_is": used} if general else {}),
            **({} if self.floor is None else {"floor": self.floor}),
        }


@dataclass(frozen=True)
class AdaptedModel:
    """The trained model with its final weights, ready to be measured."""

    trained: TrainedModel
    encoder: CachedEncoder
    interpolation: InterpolationResult | None  # None where the recipe asks for none

    @property
    def model(self) -> DualEncoder:
        """The model."""
        return self.trained.model

    @property
    def warnings(self) -> tuple[str, ...]:
        """For the report."""
        return (_UNCHANGED,) if self.interpolation is not None and self.interpolation.alpha == 0 else ()


def selection_metric(base: DualEncoder, protocol: Protocol) -> ComparisonRow | None:
    """The metric that selects α, as the base reaches it; None where the recipe asks for no interpolation.

    Measured before anything is trained, so that a recipe that cannot select fails at once.

    Raises: RecipeError where no probe has such a metric, or, with a floor, none on the retention set.
    """
    settings = protocol.interpolation
    if settings is None or not len(protocol.selection[0].items):  # an empty split is refused with the setup
        return None
    rows = _measure(base, protocol, protocol.selection[:1], protocol.probes)
    metric = next((r for r in rows if r.primary and r.comparable and isfinite(r.base.value)), None)
    if metric is None:
        raise RecipeError(
            "weight_interpolation: no probe has a primary metric on the validation split that can select α: "
            "add zero_shot or retrieval to probes, or leave weight_interpolation out"
        )
    if settings.max_retention_drop is not None:
        general = _score(0.0, _measure_selection(base, protocol, metric), metric).general
        if general is None or not isfinite(general):
            raise RecipeError(
                f"weight_interpolation.max_retention_drop: {metric.probe} {metric.metric} cannot be measured "
                "on the retention set: leave it out"
            )
    return metric


def interpolate_weights(
    trained: TrainedModel, protocol: Protocol, metric: ComparisonRow | None
) -> AdaptedModel:
    """Set the weights to the selected α, in place; they stay as trained where `metric` is None.

    `metric` is that of `selection_metric`. The heads of an objective are not saved, and stay as trained. The
    embeddings of base and selected α are measured again later: they are cached in memory.
    """
    heartbeat.update("measuring", 0)
    model, settings = trained.model, protocol.interpolation
    if settings is None or metric is None:
        return AdaptedModel(trained, CachedEncoder(model, protocol.embeddings), None)
    start = trained.start_weights
    weights = {
        name: weight
        for name, weight in model.weights().items()
        if name in start and not name.startswith("extra/third.")
    }
    end = {name: weight.detach().clone() for name, weight in weights.items()}
    tried = []
    for alpha in (0.0, *settings.alphas):
        set_alpha(weights, start, end, alpha, model)
        tried.append(_score(alpha, _measure_selection(model, protocol, metric), metric))
    alpha = choose_alpha(tried, settings.max_retention_drop)
    set_alpha(weights, start, end, alpha, model)
    result = InterpolationResult(
        alpha, tried, settings.max_retention_drop, f"{metric.probe} {metric.metric}", metric.unit
    )
    return AdaptedModel(trained, CachedEncoder(model, protocol.embeddings), result)


def _measure_selection(model: DualEncoder, protocol: Protocol, metric: ComparisonRow) -> list[ComparisonRow]:
    """The selection sets under the probe whose metric selects; under all where it has another name here."""
    probes = {name: probe for name, probe in protocol.probes.items() if name == metric.probe}
    return _measure(model, protocol, protocol.selection, probes or protocol.probes)


def _measure(
    model: DualEncoder, protocol: Protocol, sets: Sequence[EvaluationSet], probes: Mapping[str, Probe]
) -> list[ComparisonRow]:
    # On disk, embeddings of every α would take room for nothing.
    encoder = CachedEncoder(model, protocol.embeddings.memory_only)
    return compare_models([encoder], sets, probes, resamples=_BOOTSTRAP_SAMPLES, seed=protocol.seed)[0].rows


def _score(alpha: float, rows: Sequence[ComparisonRow], metric: ComparisonRow) -> AlphaScore:
    by_set = {row.dataset: row for row in rows if (row.probe, row.metric) == (metric.probe, metric.metric)}
    sign = 1 if metric.higher_is_better else -1
    value, general = by_set[metric.dataset].base, by_set.get(RETENTION)
    error = (value.high - value.low) / (2 * 1.96)
    return AlphaScore(
        alpha, sign * value.value, error, None if general is None else sign * general.base.value
    )
