"""Metrics by subgroup: each cell, the worst one, and the gap between cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any, ClassVar

import numpy as np

from domainclip.data.dicom import typed_values
from domainclip.data.interfaces import Encoder
from domainclip.errors import did_you_mean
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics import cell_metrics, results
from domainclip.evaluation.metrics.cell_extremes import CellMetric, by_luck, over_cells
from domainclip.evaluation.metrics.subgroup_cells import (
    Column,
    Table,
    count_no_numbers,
    is_categorical,
    item_attributes,
    parse_column,
    reason_not_categorical,
    reason_not_shown,
    split_into_cells,
    suppressed_cells,
)
from domainclip.evaluation.metrics.subset_metric import SubsetMetric, make_subset_metric
from domainclip.evaluation.statistics import aggregates


@dataclass(frozen=True, kw_only=True)
class Subgroups(Probe):
    """Accuracy (or AUROC, or R@1) by sex, age, scanner, language …: each cell, the worst one, and the gap.

    The gap is the best cell minus the worst; in a finite sample it is above 0 even for equal groups, so the
    details give its expected value at chance. Worst groups: [arXiv:1911.08731]. For binary answers, also the
    gap in the true positive rate: equal opportunity. Beside them, the AUROC and calibration error of each
    cell. Cells of fewer than `smallest` patients or objects are suppressed, with as many others as it takes
    so that they cannot be derived.
    """

    citation: ClassVar[str] = "arXiv:1610.02413"
    version: ClassVar[int] = 2
    classifies: ClassVar[bool] = True

    # Columns of the card's `columns.meta`, or `language`; numbers with bins, as `age=40,60`. None: all
    # columns with few values.
    by: list[str] | None = None
    intersections: bool = False  # of all pairs of columns
    smallest: int = 10  # items of a subgroup that is measured, at least

    def __post_init__(self) -> None:
        names = [parse_column(text).name for text in self.by or ()]
        if twice := [name for name in names if names.count(name) > 1]:
            # Two divisions of one column give small cells by subtraction.
            raise ValueError(f'by: column "{twice[0]}" is listed twice: list each column once')
        if self.smallest < 2:
            raise ValueError("smallest: at least 2: a cell of one is a person")

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """The metric of each cell; worst cell and gap by column and over all columns."""
        attributes = item_attributes(data.items)
        columns, absent = self._columns(attributes)
        warnings = [
            f'subgroups on {data.name}: no item has "{name}": {did_you_mean(name, attributes)}'
            for name in absent
            if data.card.columns.meta
        ]
        hidden = self._not_shown(columns, attributes)
        columns = [column for column in columns if column.name not in hidden]
        warnings += [
            f"subgroups on {data.name}: not shown: {name}, {reason}" for name, reason in hidden.items()
        ]
        for column in columns:
            if bad := count_no_numbers(column, attributes[column.name]):
                text = f"{column.name}: no number in {bad} of {len(data.items)}, counted as not given"
                warnings.append(f"subgroups on {data.name}: {text}")
        metric_on_cells = make_subset_metric(encoder, data) if columns else None
        if metric_on_cells is None:
            missing = "classes or captions to measure" if columns else "metadata columns to divide by"
            lacking: dict[str, Any] = {"columns_not_there": absent} if absent else {}
            lacking |= {"columns_not_shown": hidden} if hidden else {}
            result = results.not_measured("subgroups", data, self.version, missing, **lacking)
            return replace(result, warnings=warnings)
        groups = np.asarray(list(data.items["group"]), dtype=str)[metric_on_cells.rows]
        tables = self._tables(columns, attributes, metric_on_cells.rows)
        shown = self._shown(tables, groups)
        cells = [table for table in shown.values() if len(table) > 1]
        metric_on_cells, classes = cell_metrics.over_measurable_classes(metric_on_cells, groups, cells)
        luck = {
            key: by_luck(metric_on_cells, list(table.values()), groups)
            for key, table in shown.items()
            if len(table) > 1
        }
        metrics = _metrics(data, metric_on_cells, shown, luck, judged=classes != [])
        errors, errors_by_luck = cell_metrics.calibration_errors(encoder, data, cells)
        metrics += [*cell_metrics.aurocs(encoder, data, cells), *errors]
        details: dict[str, Any] = {
            "figure": metric_on_cells.name,
            "smallest": self.smallest,
            "columns": [column.name for column in columns],
            "columns_not_there": absent,
            "columns_not_shown": hidden,
            "cells_not_shown": {_title(key): len(tables[key]) - len(shown[key]) for key in tables},
            "gap_by_luck": {_title(key): gap for key, (_, gap) in luck.items()},
        }
        if errors:
            details["ece_of_a_calibrated_model"] = errors_by_luck
        if classes is not None:
            details["averaged_over"] = [list(data.classes)[i] for i in classes] or "all classes: not judged"
        if not metrics:
            details["not_measured"] = (
                f"there are no two cells of at least {self.smallest} patients or objects"
            )
        primary = f"{metric_on_cells.name}_worst_group" if metrics else ""
        return ProbeResult("subgroups", data.name, metrics, primary, self.version, details, warnings)

    def _tables(
        self, columns: Sequence[Column], attributes: Mapping[str, Sequence[object]], rows: np.ndarray
    ) -> dict[tuple[Column, ...], Table]:
        """The table of each column and, where requested, of each pair."""
        keys: list[tuple[Column, ...]] = [(column,) for column in columns]
        keys += combinations(columns, 2) if self.intersections else []
        return {key: split_into_cells(key, attributes, rows) for key in keys}

    def _columns(self, attributes: Mapping[str, Sequence[object]]) -> tuple[list[Column], list[str]]:
        """The columns to divide by, and the requested names that no item has."""
        if self.by is None:
            return [Column(name) for name, values in attributes.items() if is_categorical(values)], []
        columns = [parse_column(text) for text in self.by]
        present = [column for column in columns if column.name in attributes]
        return present, [column.name for column in columns if column.name not in attributes]

    def _not_shown(
        self, columns: Sequence[Column], attributes: Mapping[str, Sequence[object]]
    ) -> dict[str, str]:
        """The columns that divide no items, with the reason: requested ones, or numbers without limits."""
        if self.by is not None:
            reasons = {column.name: reason_not_shown(column, attributes[column.name]) for column in columns}
        else:
            reasons = {
                name: reason_not_categorical(values).replace("NAME", name)
                for name, values in attributes.items()
                if typed_values.is_numeric(typed_values.type_of(name, ()))
                or any(isinstance(value, float) for value in values)
            }
        return {name: reason for name, reason in reasons.items() if reason}

    def _shown(
        self, tables: Mapping[tuple[Column, ...], Table], groups: np.ndarray
    ) -> dict[tuple[Column, ...], Table]:
        """The cells that are not suppressed. Cells of a suppressed value of one column would add up to it."""
        hidden: dict[tuple[Column, ...], set[tuple[str, ...]]] = {}
        for key, table in tables.items():
            group_counts = {cell: len(set(groups[places])) for cell, places in table.items()}
            under_hidden = {
                cell
                for cell in table
                if len(key) > 1
                and any((value,) in hidden[(column,)] for column, value in zip(key, cell, strict=True))
            }
            hidden[key] = suppressed_cells(group_counts, self.smallest, under_hidden)
        visible = {
            key: {cell: places for cell, places in table.items() if cell not in hidden[key]}
            for key, table in tables.items()
        }
        # A single cell has no other to compare with.
        return {key: table if len(table) > 1 else {} for key, table in visible.items()}


def _metrics(
    data: EvaluationSet,
    metric_on_cells: SubsetMetric,
    shown: Mapping[tuple[Column, ...], Table],
    luck: Mapping[tuple[Column, ...], tuple[float, float]],
    judged: bool,
) -> list[Metric]:
    tables = {key: table for key, table in shown.items() if len(table) > 1}
    if not tables:
        return []
    name, rows = metric_on_cells.name, metric_on_cells.rows
    parts = {
        key: [(places, metric_on_cells.aggregate_on(places)) for places in table.values()]
        for key, table in tables.items()
    }
    single: list[tuple[Column, ...]] = [key for key in parts if len(key) == 1] or list(parts)

    def metric(title: str, keys: Sequence[tuple[Column, ...]], worst: bool) -> Metric:
        aggregate = partial(over_cells, tables=[parts[key] for key in keys], worst=worst)
        alone = luck[keys[0]][0 if worst else 1] if len(keys) == 1 else None
        chance = metric_on_cells.chance if worst else None
        # The lowest of several cells is biased downwards and a gap upwards, more so with noisier answers: a
        # difference of two models may be one of noise. Verdicts are given for the cells.
        return results.metric(
            title,
            data.items,
            rows,
            metric_on_cells.scores,
            aggregate,
            chance,
            worst,
            biased=True,
            by_luck=alone,
        )

    metrics = [metric(f"{name}_worst_group", single, True), metric(f"{name}_gap", single, False)]
    if len(tables) > 1:
        metrics += [metric(f"{name}_worst_group/{_title(key)}", [key], True) for key in parts]
        metrics += [metric(f"{name}_gap/{_title(key)}", [key], False) for key in parts]
    metrics += _opportunity(data, metric_on_cells, tables)
    for table in tables.values():
        for cell, places in table.items():
            metrics.append(
                results.metric(
                    f"{name}/{', '.join(cell)}",
                    data.items,
                    rows[places],
                    metric_on_cells.scores[places],
                    metric_on_cells.aggregate_on(places),
                    metric_on_cells.chance,
                    comparable=judged,
                )
            )
    return metrics


def _opportunity(
    data: EvaluationSet, metric_on_cells: SubsetMetric, tables: Mapping[tuple[Column, ...], Table]
) -> list[Metric]:
    """Gaps in the true positive rate, over the cells with enough positives."""
    metrics = []
    for key, table in tables.items():
        for name, (answers, positive) in metric_on_cells.binary_answers.items():
            inside = [np.intersect1d(places, positive) for places in table.values()]
            parts: list[CellMetric] = [
                (places, aggregates.mean) for places in inside if len(places) >= results.MIN_ITEMS
            ]
            if len(parts) > 1:
                aggregate = partial(over_cells, tables=[parts], worst=False)
                title = f"tpr_gap/{_title(key)}: {name}"
                metrics.append(
                    results.metric(
                        title,
                        data.items,
                        metric_on_cells.rows,
                        answers,
                        aggregate,
                        None,
                        False,
                        biased=True,
                    )
                )
    return metrics


def _title(columns: Sequence[Column]) -> str:
    return " × ".join(column.name for column in columns)
