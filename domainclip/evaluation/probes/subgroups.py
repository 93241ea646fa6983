"""For whom a model works less well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from domainclip.data.interfaces import Encoder
from domainclip.errors import did_you_mean
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics import results
from domainclip.evaluation.metrics.subgroup_cells import (
    Column,
    Table,
    attributes,
    divide,
    hidden,
    parse,
    suitable,
)
from domainclip.evaluation.metrics.subset_metric import Measured, measured_on
from domainclip.evaluation.statistics import aggregates

_DRAWS = 100  # of groups that differ by luck alone
Part = tuple[np.ndarray, aggregates.Aggregate]  # places in the scores, and the figure of these


@dataclass(frozen=True, kw_only=True)
class Subgroups(Probe):
    """Accuracy (or AUROC, or R@1) by sex, age, scanner, language …: each cell, the worst one, and the gap.

    The gap is the best cell less the worst; of equal groups it is not 0 in a finite sample, so what luck
    alone makes of it stands in the details. Worst groups: [arXiv:1911.08731]. Where answers are yes or no,
    also the gap in the share of positives that are found: equal opportunity. Cells of fewer than `smallest`
    patients or objects are not shown, nor as many others as would let them be worked out.
    """

    citation: ClassVar[str] = "arXiv:1610.02413"
    version: ClassVar[int] = 1

    # Columns of the card's `columns.meta`, or `language`; numbers with limits, as `age=40,60`. None: all
    # with a few values each.
    by: list[str] | None = None
    intersections: bool = False  # of each two columns
    smallest: int = 10

    def __post_init__(self) -> None:
        names = [parse(one).name for one in self.by or ()]
        if twice := [name for name in names if names.count(name) > 1]:
            # Two divisions of one column give small cells by subtraction.
            raise ValueError(f'by: column "{twice[0]}" stands twice')
        if self.smallest < 2:
            raise ValueError("smallest: at least 2, for a cell of one is a person")

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Parts by cell; worst cell and gap by column and over all columns."""
        known = attributes(data.items)
        columns, absent = self._columns(known)
        warnings = [
            f'subgroups on {data.name}: no item has "{name}": {did_you_mean(name, known)}'
            for name in absent
            if data.card.columns.meta
        ]
        measured = measured_on(encoder, data) if columns else None
        if measured is None:
            missing = "classes or captions to measure" if columns else "metadata columns to divide by"
            lacking = {"columns_not_there": absent} if absent else {}
            found = results.not_measured("subgroups", data, self.version, missing, **lacking)
            found.warnings.extend(warnings)
            return found
        owner = np.asarray(list(data.items["group"]), dtype=str)[measured.rows]
        tables: dict[tuple[Column, ...], Table] = {
            (column,): divide([column], known, measured.rows) for column in columns
        }
        if self.intersections:
            tables |= {pair: divide(pair, known, measured.rows) for pair in combinations(columns, 2)}
        shown = self._shown(tables, owner)
        metrics = _metrics(data, measured, shown)
        details: dict[str, Any] = {
            "figure": measured.name,
            "smallest": self.smallest,
            "columns": [column.name for column in columns],
            "columns_not_there": absent,
            "cells_not_shown": {_title(key): len(tables[key]) - len(shown[key]) for key in tables},
            "gap_by_luck": {
                _title(key): _by_luck(measured, list(shown[key].values()), owner)
                for key in tables
                if len(shown[key]) > 1
            },
        }
        if not metrics:
            details["not_measured"] = (
                f"there are no two cells of at least {self.smallest} patients or objects"
            )
        primary = f"{measured.name}_worst_group" if metrics else ""
        return ProbeResult("subgroups", data.name, metrics, primary, self.version, details, warnings)

    def _columns(self, known: Mapping[str, Sequence[object]]) -> tuple[list[Column], list[str]]:
        """The columns to divide by, and the names that no item has."""
        if self.by is None:
            return [Column(name) for name, values in known.items() if suitable(values)], []
        asked = [parse(one) for one in self.by]
        there = [column for column in asked if column.name in known]
        return there, [column.name for column in asked if column.name not in known]

    def _shown(
        self, tables: Mapping[tuple[Column, ...], Table], owner: np.ndarray
    ) -> dict[tuple[Column, ...], Table]:
        """The cells that may be seen. A cell under a hidden value of one column would add up to it."""
        dark: dict[tuple[Column, ...], set[tuple[str, ...]]] = {}
        for key, table in tables.items():
            people = {cell: len(set(owner[places])) for cell, places in table.items()}
            under = {
                cell
                for cell in table
                if len(key) > 1
                and any((value,) in dark[(one,)] for one, value in zip(key, cell, strict=True))
            }
            dark[key] = hidden(people, self.smallest, under)
        light = {
            key: {cell: places for cell, places in table.items() if cell not in dark[key]}
            for key, table in tables.items()
        }
        # One cell alone is compared with nothing.
        return {key: table if len(table) > 1 else {} for key, table in light.items()}


def _metrics(
    data: EvaluationSet, measured: Measured, shown: Mapping[tuple[Column, ...], Table]
) -> list[Metric]:
    tables = {key: table for key, table in shown.items() if len(table) > 1}
    if not tables:
        return []
    name, everyone = measured.name, measured.rows
    parts = {
        key: [(places, measured.figure(places)) for places in table.values()] for key, table in tables.items()
    }
    single = [cells for key, cells in parts.items() if len(key) == 1] or list(parts.values())

    def metric(title: str, cells: list[list[Part]], worst: bool) -> Metric:
        aggregate = partial(_over_cells, tables=cells, worst=worst)
        chance = measured.chance if worst else None
        # The lowest of several cells is too low by luck alone, a gap too wide, and the more so the noisier
        # the answers: a difference of two models may be one of noise. Verdicts stand on the cells.
        return results.metric(
            title, data.items, everyone, measured.scores, aggregate, chance, worst, comparable=False
        )

    metrics = [metric(f"{name}_worst_group", single, True), metric(f"{name}_gap", single, False)]
    if len(tables) > 1:
        metrics += [
            metric(f"{name}_worst_group/{_title(key)}", [cells], True) for key, cells in parts.items()
        ]
        metrics += [metric(f"{name}_gap/{_title(key)}", [cells], False) for key, cells in parts.items()]
    metrics += _opportunity(data, measured, tables)
    for table in tables.values():
        for cell, places in table.items():
            metrics.append(
                results.metric(
                    f"{name}/{', '.join(cell)}",
                    data.items,
                    everyone[places],
                    measured.scores[places],
                    measured.figure(places),
                    measured.chance,
                )
            )
    return metrics


def _opportunity(
    data: EvaluationSet, measured: Measured, tables: Mapping[tuple[Column, ...], Table]
) -> list[Metric]:
    """Gaps in the share of positives found, over the cells with enough of them."""
    metrics = []
    for key, table in tables.items():
        for name, (said, positive) in measured.answers.items():
            inside = [np.intersect1d(places, positive) for places in table.values()]
            parts: list[Part] = [
                (places, aggregates.mean) for places in inside if len(places) >= results.MIN_ITEMS
            ]
            if len(parts) > 1:
                aggregate = partial(_over_cells, tables=[parts], worst=False)
                title = f"tpr_gap/{_title(key)}: {name}"
                metrics.append(
                    results.metric(
                        title, data.items, measured.rows, said, aggregate, None, False, comparable=False
                    )
                )
    return metrics


def _over_cells(
    scores: np.ndarray, weights: np.ndarray, tables: Sequence[Sequence[Part]], worst: bool
) -> np.ndarray:
    """(r,) the figure of the worst cell of all tables, or the largest gap inside one of them."""
    found = []
    for parts in tables:
        each = np.stack([figure(scores[places], weights[:, places]) for places, figure in parts])
        low = np.where(np.isnan(each), np.inf, each).min(axis=0)
        high = np.where(np.isnan(each), -np.inf, each).max(axis=0)
        found.append(low if worst else high - low)
    values = np.min(found, axis=0) if worst else np.max(found, axis=0)
    return np.where(np.isinf(values), np.nan, values)


def _by_luck(measured: Measured, cells: Sequence[np.ndarray], owner: np.ndarray) -> float:
    """The mean gap when patients keep their scores, but are dealt to cells of these sizes by lot."""
    inside = np.concatenate(cells)
    names, member = np.unique(owner[inside], return_inverse=True)
    cell = np.zeros(len(names), dtype=int)
    ends = np.cumsum([len(places) for places in cells])
    cell[member] = np.searchsorted(ends, np.arange(len(inside)), side="right")
    rng = np.random.default_rng(0)
    gaps = []
    for _ in range(_DRAWS):
        dealt = rng.permutation(cell)[member]
        parts = [inside[dealt == i] for i in range(len(cells)) if (dealt == i).any()]
        tables: list[list[Part]] = [[(places, measured.figure(places)) for places in parts]]
        gaps.append(_over_cells(measured.scores, np.ones((1, len(measured.scores))), tables, False)[0])
    return float(np.nanmean(gaps))


def _title(columns: Sequence[Column]) -> str:
    return " × ".join(column.name for column in columns)
