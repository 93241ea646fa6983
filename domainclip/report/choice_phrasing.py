"""The choice among the variants of an ablation, in words."""

from __future__ import annotations

from domainclip.evaluation.verdicts import BETTER
from domainclip.report import phrasing
from domainclip.report.ablation_results import AblationTable, Candidate, Choice

FINAL = "--final"  # as typed at the end of the command


def choice_in_words(table: AblationTable) -> list[str]:
    """Which variant the validation split chooses, why, and how to measure it; one sentence each."""
    choice = table.choice
    if table.invalid:
        return ["No variant is chosen, since the table is not valid."]
    if choice is None:
        return []
    by_name = {candidate.variant: candidate for candidate in choice.candidates}
    if choice.variant is None:
        return [_base_stays(choice)]
    chosen = by_name[choice.variant]
    sentences = [f"Chosen on the {table.split} split: {choice.variant}, {_result(choice, chosen)}."]
    if not _is_shown(table, choice):
        sentences.append("That it is better than the base is not shown: the difference may be chance.")
    if choice.best is not None and choice.best != choice.variant:
        ahead = by_name[choice.best].gain - chosen.gain
        sentences.append(
            f"{choice.best} is better by {ahead:.3f}, within one standard error of their difference: of "
            "equally good variants, the first in the plan is taken."
        )
    refused = [c.variant for c in choice.candidates if not c.allowed]
    if refused:
        sentences.append(f"Not eligible, since they lose more on the retention set: {', '.join(refused)}.")
    sentences.append(
        f"The best of several looks better on the split that chose it than it is: add {FINAL} to the command "
        f"to measure {choice.variant} on the test split, once."
    )
    return sentences


def _result(choice: Choice, chosen: Candidate) -> str:
    text = (
        f"{_metric(choice.metric)} {phrasing.number(chosen.mean)}, better than the base by {chosen.gain:.3f}"
    )
    if chosen.retention_drop is None:
        return f"{text}; what it forgets is not measured"
    metric = "" if choice.retention_metric.split("/")[-1] == choice.metric.split("/")[-1] else "of "
    metric += _metric(choice.retention_metric) + " " if metric else ""
    lost = f"{max(0.0, chosen.retention_drop):.3f} {metric}is lost on the retention set"
    limit = choice.max_retention_drop
    return f"{text}; {lost}" if limit is None else f"{text}; {lost}, where {limit:g} is allowed"


def _base_stays(choice: Choice) -> str:
    limit = choice.max_retention_drop
    kept = "" if limit is None else f" and loses at most {limit:g} on the retention set"
    none = f"none is better than the base in {_metric(choice.metric)}{kept}"
    return f"No variant is chosen: {none}. The base stays."


def _is_shown(table: AblationTable, choice: Choice) -> bool:
    """Whether the verdict on the metric that decides is "better"."""
    named = (row for row in table.rows if f"{row.probe}/{row.dataset}/{row.metric}" == choice.metric)
    return any(row.verdicts.get(str(choice.variant)) == BETTER for row in named)


def _metric(name: str) -> str:
    probe, _, metric = name.split("/", 2)
    return f"{phrasing.probe_name(probe)} {phrasing.metric_name(metric)}"
