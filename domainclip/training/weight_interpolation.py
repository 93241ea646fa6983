"""How far to go from the base to the adapted weights: (1 − α) θ₀ + α θ, α chosen on the validation split.

The first steps away from the base bring most of the gain and cost least of what it knew [arXiv:2109.01903].
So the smallest α wins whose score is within one standard error of the best one: the usual rule for taking
the simpler of two models that the data cannot tell apart. With a floor, the best score wins among those α
that keep what the base knows, the base itself among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from domainclip.config.recipe import Recipe
from domainclip.errors import RecipeError
from domainclip.evaluation.base import RETENTION, EvaluationSet, Probe
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import evaluate_pair
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.models.dual_encoder import DualEncoder


@dataclass(frozen=True)
class AlphaScore:
    """One α and what it reached; α = 0 is the base."""

    alpha: float
    score: float  # on the validation split; higher is better
    error: float  # its standard error
    general: float | None = None  # the same figure on the general set, where there is one


@torch.no_grad()
def set_alpha(
    weights: Mapping[str, Tensor],
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    alpha: float,
    model: nn.Module | None = None,
) -> None:
    """Puts the weights at (1 − α) start + α end; `model`, which holds them, is needed for DoRA only.

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
    """Moves DoRA's layers from α = 1 to α: (1 − α) W + α m (W + U) / ‖W + U‖, with U = s B A, row by row.

    A row is a mixture of W and U again, so a factor on B's row and a new length say it exactly.
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
    """The α to take.

    Without a floor, the smallest above 0 whose score is within one standard error of the best. With one, the
    best score of those whose general figure lies at most `floor` below the base's; of equals, the smallest.
    """
    order = sorted(tried, key=lambda one: one.alpha)
    if floor is not None:
        base = next(one for one in order if one.alpha == 0)
        assert base.general is not None
        least = base.general - floor - 1e-12  # 0.50 - 0.49 is a hair more than 0.01
        kept = [one for one in order if one.general is not None and one.general >= least]
        return max(kept, key=lambda one: one.score).alpha
    moved = [one for one in order if one.alpha > 0]
    best = max(moved, key=lambda one: one.score)
    error = best.error if isfinite(best.error) else 0.0  # too few groups for an interval: the best itself
    return next(one.alpha for one in moved if one.score >= best.score - error)


_RESAMPLES = 200  # for a standard error


_UNCHANGED = (
    "weight_interpolation.max_retention_drop: no α gains and keeps the general figure within it: "
    "the model is as before training"
)


@dataclass(frozen=True)
class InterpolationResult:
    """All α that were tried, and the one that was taken."""

    alpha: float
    tried: Sequence[AlphaScore]
    floor: float | None
    figure: str  # by which was chosen
    unit: str
    warnings: Sequence[str] = ()

    def facts(self) -> dict[str, Any]:
        """For the report: scores by α, 0 being the base."""
        general = {str(one.alpha): one.general for one in self.tried if one.general is not None}
        used = "not used for choosing" if self.floor is None else "half of the set, which is not reported"
        return {
            "alpha": self.alpha,
            "figure": self.figure,
            "unit": self.unit,
            "validation": {str(one.alpha): one.score for one in self.tried},
            **({"general": general, "general_is": used} if general else {}),
            **({} if self.floor is None else {"floor": self.floor}),
        }


def selection_metric(
    recipe: Recipe,
    model: DualEncoder,
    sets: Sequence[EvaluationSet],
    probes: Mapping[str, Probe],
    cache: EmbeddingCache,
) -> ComparisonRow | None:
    """The figure that chooses α, as the base reaches it on `sets`; None where the recipe does not ask.

    Known before anything is trained, so that what cannot choose does not fail after it.

    Raises: RecipeError where no probe has such a figure, or a floor none on the general set.
    """
    settings = recipe.weight_interpolation
    if settings is None or not len(sets[0].items):  # an empty split is refused with the job
        return None
    measure = partial(_rows, model, cache=cache, seed=recipe.evaluate.seed)
    rows = measure(sets[:1], probes)
    head = next((r for r in rows if r.primary and r.judged and isfinite(r.base.value)), None)
    if head is None:
        raise RecipeError(
            "weight_interpolation: no probe has a headline on the validation split that can choose: add "
            "zero_shot or retrieval to probes, or leave weight_interpolation out"
        )
    if settings.max_retention_drop is not None:
        general = _tried(0.0, measure(sets, _deciding(probes, head)), head).general
        if general is None or not isfinite(general):
            raise RecipeError(
                f"weight_interpolation.max_retention_drop: {head.probe} {head.metric} cannot be measured "
                "on the general set: leave it out"
            )
    return head


def _deciding(probes: Mapping[str, Probe], head: ComparisonRow) -> Mapping[str, Probe]:
    """The probe whose headline chooses; all of them where it goes by another name here."""
    return {name: probe for name, probe in probes.items() if name == head.probe} or probes


def interpolate_weights(
    recipe: Recipe,
    model: DualEncoder,
    start: Mapping[str, Tensor],
    sets: Sequence[EvaluationSet],
    probes: Mapping[str, Probe],
    cache: EmbeddingCache,
    head: ComparisonRow | None,
) -> InterpolationResult | None:
    """Moves the weights to the chosen α; None where the recipe does not ask.

    `start` are the learning weights before training, `sets` what is chosen on, and `head` the figure: see
    `choosing` and `headline`. The heads of an objective are no part of what is saved, and stay as they are.
    Embeddings are held in `cache`: those of the base and of the chosen α serve again.
    """
    settings = recipe.weight_interpolation
    if settings is None or head is None:
        return None
    weights = {
        name: weight
        for name, weight in model.weights().items()
        if name in start and not name.startswith("extra/third.")
    }
    end = {name: weight.detach().clone() for name, weight in weights.items()}
    measure = partial(_rows, model, cache=cache, seed=recipe.evaluate.seed)
    tried = []
    for alpha in (0.0, *settings.alphas):
        set_alpha(weights, start, end, alpha, model)
        tried.append(_tried(alpha, measure(sets, _deciding(probes, head)), head))
    chosen = choose_alpha(tried, settings.max_retention_drop)
    set_alpha(weights, start, end, chosen, model)
    said = [_UNCHANGED] if chosen == 0 else []
    figure = f"{head.probe} {head.metric}"
    return InterpolationResult(chosen, tried, settings.max_retention_drop, figure, head.unit, said)


def _rows(
    model: DualEncoder,
    sets: Sequence[EvaluationSet],
    probes: Mapping[str, Probe],
    cache: EmbeddingCache,
    seed: int,
) -> list[ComparisonRow]:
    return evaluate_pair(
        CachedEncoder(model, cache), None, sets, probes, resamples=_RESAMPLES, seed=seed
    ).rows


def _tried(alpha: float, rows: Sequence[ComparisonRow], head: ComparisonRow) -> AlphaScore:
    found = {row.dataset: row for row in rows if (row.probe, row.metric) == (head.probe, head.metric)}
    sign = 1 if head.higher_is_better else -1
    here, general = found[head.dataset], found.get(RETENTION)
    error = (here.base.high - here.base.low) / (2 * 1.96)
    return AlphaScore(
        alpha, sign * here.base.value, error, None if general is None else sign * general.base.value
    )
