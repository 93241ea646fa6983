"""Hop 7: interpolate between the weights of base and adapted model, (1 − α) θ₀ + α θ [arXiv:2109.01903].

The first steps away from the base bring most of the gain and cost least of what it knew. So the smallest α
wins whose score on the validation split is within one standard error of the best, the error of their paired
difference: the usual rule for taking the simpler of two models that the data cannot tell apart. With a floor,
only those α count that are shown to retain every headline metric on the retention set, by the bounds of the
paired differences and not by their estimates. The base (α = 0) stays where no α that counts improves it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite

from domainclip.config.recipe import WeightInterpolation
from domainclip.distributed import heartbeat
from domainclip.distributed.phases import phase
from domainclip.errors import RecipeError
from domainclip.evaluation import verdicts
from domainclip.evaluation.base import RETENTION, EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.probe_runs import run_probes
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.scorer_choice import ScorerChoice
from domainclip.evaluation.shares_choice import SharesChoice
from domainclip.evaluation.statistics.aggregates import point_estimate
from domainclip.evaluation.statistics.paired_error import paired_error
from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training.alpha_choice import AlphaScore, InterpolationResult, bound_of, choose_alpha, drop_of
from domainclip.training.stages import TrainedModel
from domainclip.training.weight_path import Alphas, WeightPath

_BOOTSTRAP_SAMPLES = 200  # for a standard error


@dataclass(frozen=True)
class RemovedSource:
    """What `source_removal` did to the embeddings of images."""

    directions: int
    sources: int
    items: int  # training items that it was fitted on
    weight_counts: tuple[int, int]  # of the model before its adapter was merged; see `TrainingSetup`

    def facts(self) -> dict[str, str]:
        """For the report."""
        line = (
            f"{self.directions} directions, fitted on {self.items} training items of {self.sources} sources"
        )
        return {"source_removal": line}


@dataclass(frozen=True)
class AdaptedModel:
    """The trained model with its final weights, ready to be measured."""

    trained: TrainedModel
    encoder: CachedEncoder
    interpolation: InterpolationResult | None  # None where the recipe asks for none
    scorer: ScorerChoice | None = None  # of a strategy that trains no weight
    removed_source: RemovedSource | None = None  # where the recipe removes the source
    shares: SharesChoice | None = None  # of the members of an ensemble

    @property
    def model(self) -> DualEncoder:
        """The model."""
        return self.trained.model

    @property
    def warnings(self) -> tuple[str, ...]:
        """For the report."""
        return () if self.interpolation is None else self.interpolation.warnings()


def selection_metric(base: DualEncoder, protocol: Protocol) -> ComparisonRow | None:
    """The metric that selects α, as the base reaches it; None where the recipe asks for no interpolation.

    Measured before anything is trained, so that a recipe that cannot select fails at once.

    Raises: RecipeError where no probe has such a metric, or, with a floor, none on the retention set.
    """
    settings = protocol.interpolation
    if settings is None or not len(protocol.selection[0].items):  # an empty split is refused with the setup
        return None
    results = _measure(base, protocol, protocol.selection[:1], protocol.probes)
    rows = [_row([result], metric.name, protocol) for result in results for metric in result.metrics]
    metric = next((r for r in rows if r.primary and r.comparable and isfinite(r.base.value)), None)
    if metric is None:
        raise RecipeError(
            "weight_interpolation: no probe has a primary metric on the validation split that can select α: "
            "add zero_shot or retrieval to probes, or leave weight_interpolation out"
        )
    if settings.max_retention_drop is not None:
        results = _measure_selection(base, protocol, metric)
        general = _score(0.0, _metric_of(results, metric), results, results, metric, protocol).general
        if general is None or not isfinite(general):
            raise RecipeError(
                f"weight_interpolation.max_retention_drop: {metric.probe} {metric.metric} cannot be measured "
                "on the retention set: leave it out"
            )
    return metric


@phase("measuring interpolated weights")
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
    path = WeightPath.between(trained.start_weights, model, settings.by_layer)
    search = _AlphaSearch(model, path, protocol, metric, settings)
    alpha, tried = search.choose(lambda value: Alphas(value, value))
    by_tower = search.choose_by_tower(alpha) if settings.by_tower and alpha else {}
    path.set_alphas(Alphas(*(each for each, _ in by_tower.values())) if by_tower else Alphas(alpha, alpha))
    general = _result_of(search.base_results, RETENTION, metric)
    result = InterpolationResult(
        alpha,
        tried,
        settings.max_retention_drop,
        f"{metric.probe} {metric.metric}",
        metric.unit,
        0 if general is None else _row([general], metric.metric, protocol).groups,
        by_tower,
    )
    return AdaptedModel(trained, CachedEncoder(model, protocol.embeddings), result)


class _AlphaSearch:
    """The results of all pairs of α that were measured, each once."""

    def __init__(
        self,
        model: DualEncoder,
        path: WeightPath,
        protocol: Protocol,
        metric: ComparisonRow,
        settings: WeightInterpolation,
    ) -> None:
        self.model, self.path = model, path
        self.protocol, self.metric, self.settings = protocol, metric, settings
        self._measured: dict[Alphas, list[ProbeResult]] = {}

    @property
    def base_results(self) -> list[ProbeResult]:
        """The results of the base."""
        return self._results(Alphas(0.0, 0.0))

    def choose(self, at: Callable[[float], Alphas]) -> tuple[float, list[AlphaScore]]:
        """The α that the rule chooses along a line of pairs, and the scores of the base and of that line."""
        base = self.base_results
        results = {0.0: base} | {value: self._results(at(value)) for value in self.settings.alphas}
        metrics = {value: _metric_of(each, self.metric) for value, each in results.items()}
        tried = [
            _score(value, metrics[value], each, base, self.metric, self.protocol)
            for value, each in results.items()
        ]
        error = partial(_paired_error, metrics, self.protocol.seed)
        return choose_alpha(tried, error, self.settings.max_retention_drop), tried

    def choose_by_tower(self, alpha: float) -> dict[str, tuple[float, list[AlphaScore]]]:
        """The α of the image tower beside `alpha` for the text tower, then that of the text tower beside it.

        It stays `alpha` where none is chosen: where a small α fails the limit that the larger one meets.
        """
        image, of_image = self.choose(lambda value: Alphas(value, alpha))
        image = image or alpha
        text, of_text = self.choose(lambda value: Alphas(image, value))
        return {"image": (image, of_image), "text": (text or alpha, of_text)}

    def _results(self, alphas: Alphas) -> list[ProbeResult]:
        if alphas not in self._measured:
            self.path.set_alphas(alphas)
            self._measured[alphas] = _measure_selection(self.model, self.protocol, self.metric)
        return self._measured[alphas]


def _measure_selection(model: DualEncoder, protocol: Protocol, metric: ComparisonRow) -> list[ProbeResult]:
    """The selection sets under the probe whose metric selects; with a floor, the retention set under all."""
    domain, *general = protocol.selection
    named = {name: probe for name, probe in protocol.probes.items() if name == metric.probe}
    has_floor = protocol.interpolation is not None and protocol.interpolation.max_retention_drop is not None
    of_general = protocol.probes if has_floor else named or protocol.probes
    return [
        *_measure(model, protocol, [domain], named or protocol.probes),
        *_measure(model, protocol, general, of_general),
    ]


def _measure(
    model: DualEncoder, protocol: Protocol, sets: Sequence[EvaluationSet], probes: Mapping[str, Probe]
) -> list[ProbeResult]:
    # On disk, embeddings of every α would take room for nothing.
    encoder = CachedEncoder(model, protocol.embeddings.memory_only)
    return [evaluation.results[0] for evaluation in run_probes([encoder], sets, probes)]


def _result_of(results: Sequence[ProbeResult], dataset: str, metric: ComparisonRow) -> ProbeResult | None:
    """The result that has the metric on a set; None where it is not measured."""
    of_probe = (r for r in results if (r.probe, r.dataset) == (metric.probe, dataset))
    return next((r for r in of_probe if any(m.name == metric.metric for m in r.metrics)), None)


def _metric_of(results: Sequence[ProbeResult], metric: ComparisonRow) -> Metric:
    """The metric that selects, on the validation split."""
    result = _result_of(results, metric.dataset, metric)
    assert result is not None  # the base was measured on the same items
    return next(m for m in result.metrics if m.name == metric.metric)


def _paired_error(measured: Mapping[float, Metric], seed: int, alpha: float, best: float) -> float:
    """The standard error of the difference between two α, which share items and resamples."""
    first, other = measured[alpha], measured[best]
    pair = [(first.scores, other.scores)]
    return paired_error(first.aggregate, pair, first.groups, _BOOTSTRAP_SAMPLES, seed)


def _row(
    results: Sequence[ProbeResult], name: str, protocol: Protocol, resamples: int = _BOOTSTRAP_SAMPLES
) -> ComparisonRow:
    return verdicts.compare_metric(results, name, resamples, protocol.seed)


def _score(
    alpha: float,
    measured: Metric,
    results: Sequence[ProbeResult],
    base: Sequence[ProbeResult],
    metric: ComparisonRow,
    protocol: Protocol,
) -> AlphaScore:
    """The score of one α, and its largest drop on the retention set from the results of the base."""
    sign = 1 if metric.higher_is_better else -1
    score = sign * point_estimate(measured.aggregate, measured.scores)
    general, before = (_result_of(side, RETENTION, metric) for side in (results, base))
    if general is None or before is None:
        return AlphaScore(alpha, score)
    row = _row([before, general], metric.metric, protocol, protocol.bootstrap_samples)
    assert row.adapted is not None
    rows = [row, *_other_headlines(results, base, metric, protocol)]
    return AlphaScore(
        alpha,
        score,
        sign * row.adapted.value,
        drop=max(drop_of(row) for row in rows),
        drop_at_most=max(bound_of(row) for row in rows),
    )


def _other_headlines(
    results: Sequence[ProbeResult], base: Sequence[ProbeResult], metric: ComparisonRow, protocol: Protocol
) -> list[ComparisonRow]:
    """The headline metrics of the other probes on the retention set: shares, as a limit is one."""
    before = {result.probe: result for result in base if result.dataset == RETENTION}
    rows = [
        _row([before[result.probe], result], result.primary, protocol, protocol.bootstrap_samples)
        for result in results
        if result.dataset == RETENTION and result.probe != metric.probe and result.probe in before
    ]
    return [row for row in rows if row.unit == "share" and row.comparable and isfinite(row.base.value)]
