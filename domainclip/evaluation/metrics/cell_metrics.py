"""AUROC and calibration error within the cells of a subgroup table, beside the metric that the set allows.

Legend: n items, c classes. A table maps cells to positions among the items that have a score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Metric
from domainclip.evaluation.metrics import forecasting, results
from domainclip.evaluation.metrics.class_hierarchy import ClassHierarchy
from domainclip.evaluation.metrics.labels import groups_with_and_without
from domainclip.evaluation.metrics.subgroup_cells import Table
from domainclip.evaluation.metrics.subset_metric import SubsetMetric
from domainclip.evaluation.statistics import aggregates

_BINS = 15  # of a calibration error, as in the probe `calibration`


def measurable_in_all(labels: np.ndarray, groups: np.ndarray, tables: Sequence[Table]) -> list[int]:
    """The classes that every cell has enough groups with and without, by labels (n, c) and groups (n,)."""
    sides = [
        groups_with_and_without(labels[places], groups[places])
        for table in tables
        for places in table.values()
    ]
    return np.flatnonzero(np.min(sides, axis=0) >= results.MIN_ITEMS).tolist() if sides else []


def over_measurable_classes(
    metric_on_cells: SubsetMetric, groups: np.ndarray, cells: Sequence[Table]
) -> tuple[SubsetMetric, list[int] | None]:
    """A mean over the classes with enough groups in every cell, and these; all where no class has.

    Other classes would be in the mean of some cells only. None for a metric that is no mean over classes.
    """
    if metric_on_cells.labels is None:
        return metric_on_cells, None
    classes = measurable_in_all(metric_on_cells.labels, groups, cells)
    return (metric_on_cells.over(classes) if classes else metric_on_cells), classes


def aurocs(encoder: Encoder, data: EvaluationSet, tables: Sequence[Table]) -> list[Metric]:
    """AUROCs by cell: of each class, as descriptions, and with one class an item their mean, which is judged.

    A class is measured in a cell with ten groups with and ten without it; the mean is over the classes that
    are measured in every cell, so that cells can be compared.
    """
    names, several = list(data.classes), data.card.multi_label
    if len(names) < (1 if several else 2):
        return []
    found = forecasting.forecasts(encoder, data.items, data.classes, several)
    hierarchy = ClassHierarchy.of(names, data.card.implied_classes)
    labels = found.truth if several else hierarchy.labels(found.truth)
    scores = found.logits if several else hierarchy.log_odds(found.logits)
    groups = np.asarray(list(data.items["group"]), dtype=str)[found.rows]
    everywhere = [] if several else measurable_in_all(labels, groups, tables)
    metric = partial(results.metric, items=data.items, chance=0.5)
    metrics = []
    for cell, places in _cells(tables):
        if everywhere:
            mean = partial(aggregates.macro_auroc, labels=labels[places][:, everywhere])
            scores_of_cell = scores[places][:, everywhere]
            metrics.append(
                metric(f"macro_auroc/{cell}", rows=found.rows[places], scores=scores_of_cell, aggregate=mean)
            )
        if len(names) == 2 and not several:
            continue  # its AUROC is the mean
        sides = groups_with_and_without(labels[places], groups[places])
        for i in np.flatnonzero(sides >= results.MIN_ITEMS).tolist():
            known = places[~np.isnan(labels[places, i])]
            metrics.append(
                metric(
                    f"auroc/{cell}: {names[i]}",
                    rows=found.rows[known],
                    scores=scores[known, i],
                    aggregate=partial(aggregates.auroc, labels=labels[known, i]),
                    comparable=False,
                )
            )
    return metrics


def calibration_errors(
    encoder: Encoder, data: EvaluationSet, tables: Sequence[Table]
) -> tuple[list[Metric], dict[str, float]]:
    """The calibration error of each cell, never judged, and that of a calibrated model with its confidences.

    The error grows as a cell shrinks, whatever the model: only its distance from the latter is informative.
    """
    several = data.card.multi_label
    classes = forecasting.classes_with_probability(encoder, data)[0] if several else data.classes
    if len(classes) < (1 if several else 2):
        return [], {}
    found = forecasting.forecasts(encoder, data.items, classes, several)
    edges = np.linspace(0, 1, _BINS + 1)
    confidence, correct = found.confidence(1.0)
    by_bin = forecasting.by_bin(confidence, correct, edges)
    # With a bias it is another probability: metrics of two names are not compared.
    name = "ece_with_bias" if several and encoder.bias is not None else "ece"
    metrics, by_luck = [], {}
    for cell, places in _cells(tables):
        by_luck[cell] = forecasting.error_of_a_calibrated_model(confidence[places], edges)
        metrics.append(
            results.metric(
                f"{name}/{cell}",
                data.items,
                found.rows[places],
                by_bin[places],
                aggregates.calibration_error,
                higher_is_better=False,
                biased=True,
                by_luck=by_luck[cell],
            )
        )
    return metrics, by_luck


def _cells(tables: Sequence[Table]) -> Iterator[tuple[str, np.ndarray]]:
    for table in tables:
        for values, places in table.items():
            yield ", ".join(values), places
