"""The table of an ablation as CSV."""

from __future__ import annotations

from typing import Any

from domainclip.report import csv_links
from domainclip.report.ablation_results import AblationTable, Compared, from_base, from_reference

_DIFFERENCE = ("", "_low", "_high", "_p", "_adjusted_p", "_comparisons")


def csv(table: AblationTable) -> str:
    """A line for each metric and variant; the bounds of a difference are corrected as its verdict is."""
    header = ["probe", "set", "metric", "n", "groups", "base", "base_low", "base_high"]
    header += ["variant", "mean", "seeds"]
    for other in ("base", "reference"):
        header += [f"from_{other}{what}" for what in _DIFFERENCE] + [f"verdict_{other}"]
    body: list[list[Any]] = []
    for row in table.rows:
        start = [row.probe, row.dataset, row.metric, row.n, row.groups]
        start += [row.base.value, row.base.low, row.base.high]
        for name, trials in row.trials.items():
            seeds = " ".join(f"{seed}:{value!r}" for seed, value in trials.values.items())
            line = [*start, name, trials.mean, seeds]
            for compared, verdicts in (
                (from_base(trials), row.verdicts),
                (from_reference(trials), row.reference_verdicts),
            ):
                verdict = verdicts.get(name, "") if not table.invalid else "not valid"
                line += [*_cells(compared), verdict]
            body.append(line)
    return csv_links.table(header, body)


def _cells(compared: Compared | None) -> list[Any]:
    if compared is None:
        return [None] * len(_DIFFERENCE)
    shown = compared.shown
    cells = [shown.value, shown.low, shown.high, compared.alone.p, compared.adjusted_p]
    return [*cells, compared.comparisons]
