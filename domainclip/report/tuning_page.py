"""The trials of `tune` as text and numbers, shared by HTML, Markdown and the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.report import phrasing, tradeoff_plot
from domainclip.report.tuning_results import TrialResult, Tuning

_DRAWN = 12  # trials of the plot, the best ones


@dataclass(frozen=True)
class Line:
    """One trial in the table."""

    name: str
    overrides: str
    value: str
    gain: str
    span: str
    retention: str
    retention_half: tuple[str, ...]
    alpha: str
    state: str
    chosen: bool


def build(tuning: Tuning) -> dict[str, Any]:
    """The variables of the templates."""
    chosen = tuning.chosen
    order = sorted(tuning.trials, key=lambda trial: (trial.state != "complete", -_gain(trial)))
    return {
        "title": f"{tuning.name.replace('_', ' ')}: {len(tuning.trials)} trials on {tuning.corpus}",
        "base": tuning.base,
        "lead": list(_choice(tuning)),
        "final": tuning.final,
        "final_command": tuning.final_command,
        "metric": metric_in_words(tuning.metric),
        "base_value": phrasing.number(tuning.base_value, tuning.unit),
        "lines": [_line(trial, tuning, chosen) for trial in order],
        "failures": [f"Trial {trial.number}: {trial.error}" for trial in tuning.trials if trial.error],
        "plane": _plane(tuning),
        "frontier": ", ".join(f"trial {trial.number}" for trial in frontier(tuning.complete)),
        "margin": tuning.margin,
        "command": tuning.command,
        "versions": ", ".join(f"{name} {version}" for name, version in tuning.versions.items()),
    }


def frontier(trials: Sequence[TrialResult]) -> list[TrialResult]:
    """The trials that no other one surpasses in gain without losing more, by falling gain."""
    best: list[TrialResult] = []
    for trial in sorted(trials, key=lambda trial: (-_gain(trial), -_kept(trial))):
        if trial.retention is not None and all(_kept(trial) > _kept(other) for other in best):
            best.append(trial)
    return best


def trial_line(trial: TrialResult, tuning: Tuning) -> str:
    """The line of a trial on the terminal."""
    start = f"trial {trial.number}: {_overrides(trial)}"
    if trial.error:
        return f"{start}: failed: {trial.error}"
    change = trial.change_in_general
    retention = "" if change is None else f", retention set {phrasing.signed(change)}"
    stopped = "; stopped after a third of its epochs" if trial.state == "stopped early" else ""
    value = phrasing.number(trial.value, tuning.unit)
    return f"{start}: {value} ({_signed(trial.gain)}{retention}){stopped}"


def closing_lines(tuning: Tuning) -> list[str]:
    """What was chosen, for the terminal."""
    return [*_choice(tuning)]


def metric_in_words(metric: str) -> str:
    """The usual name of probe/set/metric."""
    probe, dataset, name = metric.split("/", 2)
    return f"{phrasing.probe_name(probe)} {phrasing.metric_name(name)} on {dataset}"


def _choice(tuning: Tuning) -> Iterator[str]:
    chosen, metric = tuning.chosen, metric_in_words(tuning.metric)
    base = phrasing.number(tuning.base_value, tuning.unit)
    if chosen is None:
        kept = "" if tuning.margin is None else f" and has lost at most {tuning.margin:g} in general"
        yield f"No trial is better than the base in {metric} ({base}){kept}: the base stays."
        return
    value = phrasing.number(chosen.value, tuning.unit)
    yield f"Chosen: trial {chosen.number}: {metric} {base} → {value}, with {_overrides(chosen)}."
    recipe = next((trial for trial in tuning.complete if trial.number == 0), None)
    if recipe is not None and chosen.number:
        ahead = _gain(chosen) - _gain(recipe)
        yield f"The recipe as it is: {phrasing.number(recipe.value, tuning.unit)}, {ahead:.3f} less."
    if chosen.change_in_general is not None:
        half = ", ".join(_half(chosen))
        change = f"{phrasing.signed(chosen.change_in_general)}{half and f' ({half})'}"
        yield f"The same metric on the retention set: {change}."
    yield (
        f"The best of {len(tuning.trials)} trials looks better on the split that chose it than it is: the "
        "test split has the result."
    )


def _line(trial: TrialResult, tuning: Tuning, chosen: TrialResult | None) -> Line:
    return Line(
        name=f"{trial.number}",
        overrides=_overrides(trial),
        value=phrasing.number(trial.value, tuning.unit),
        gain="–" if trial.gain is None else _signed(trial.gain),
        span="" if trial.gain is None else _span(trial.gain),
        retention="–" if trial.change_in_general is None else phrasing.signed(trial.change_in_general),
        retention_half=tuple(_half(trial)),
        alpha="–" if trial.alpha is None else f"{trial.alpha:g}",
        state=trial.state,
        chosen=trial is chosen,
    )


def _overrides(trial: TrialResult) -> str:
    return "; ".join(trial.overrides) or "the recipe as it is"


def _plane(tuning: Tuning) -> tradeoff_plot.Plane | None:
    """Gain on the validation split against the change on the retention set, of the best trials."""
    drawable = [
        trial
        for trial in sorted(tuning.complete, key=_gain, reverse=True)
        if trial.gain is not None and trial.retention is not None and not math.isnan(trial.gain.low)
        if not math.isnan(trial.retention.low)
    ][:_DRAWN]
    points = [(f"trial {trial.number}", trial.gain, trial.retention) for trial in drawable]
    if tuning.unit != "share" or not points:
        return None
    return tradeoff_plot.plane_of([(name, gain, kept) for name, gain, kept in points if gain and kept])


def _gain(trial: TrialResult) -> float:
    return trial.gain.value if trial.gain is not None else -math.inf


def _kept(trial: TrialResult) -> float:
    change = trial.change_in_general
    return -math.inf if change is None else change


def _half(trial: TrialResult) -> Iterator[str]:
    """The change on the half of the retention set that did not select α, if there are two; its interval."""
    if trial.retention is None:
        return
    if trial.selecting is not None:
        yield f"other half {_signed(trial.retention)}"
    if not math.isnan(trial.retention.low):
        yield _span(trial.retention)


def _signed(change: Estimate | None) -> str:
    return "–" if change is None else phrasing.signed(change.value)


def _span(change: Estimate) -> str:
    return phrasing.span(change, sign=True)
