"""What travels: classification within each source, on new sources, and what the source alone would score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from domainclip.data.cards import Prompts
from domainclip.data.interfaces import Encoder
from domainclip.evaluation.base import EvaluationSet, Metric, Probe, ProbeResult
from domainclip.evaluation.metrics import decisions, results, zero_shot_scores
from domainclip.evaluation.metrics import labels as metrics_labels
from domainclip.evaluation.metrics.class_hierarchy import ClassHierarchy
from domainclip.evaluation.metrics.results import MIN_ITEMS
from domainclip.evaluation.metrics.sources import ItemSources, display_names, table_scores
from domainclip.evaluation.statistics import aggregates


@dataclass(frozen=True)
class _Answers:
    """The zero-shot answers of a model to the items at some rows of the set."""

    data: EvaluationSet
    rows: np.ndarray  # (n,)
    labels: np.ndarray  # (n, c) of 1, 0 and NaN
    scores: np.ndarray  # (n, c) that order the items of each class
    truth: np.ndarray  # (n,) the class of each item, the first of several
    hits: np.ndarray | None  # (n,) of one class an item; None where several may apply
    strata: np.ndarray  # (n,) the source
    trained: frozenset[str] | None  # the sources of the training split; None without one

    @property
    def groups(self) -> list[str]:
        names = list(self.data.items["group"])
        return [names[row] for row in self.rows]

    def metric(self, name: str, at: np.ndarray, classes: np.ndarray, chance: float) -> Metric:
        """Mean accuracy over the categories `classes` of the items at these places."""
        assert self.hits is not None
        aggregate = partial(aggregates.macro_mean, classes=classes)
        return results.metric(name, self.data.items, self.rows[at], self.hits[at], aggregate, chance)

    def auroc(self, name: str, scores: np.ndarray, labels: np.ndarray) -> Metric:
        """Mean AUROC over the columns (n, k); items with no known label in any column are left out."""
        at = np.flatnonzero(~np.isnan(labels).all(axis=1))
        aggregate = partial(aggregates.macro_auroc, labels=labels[at])
        return results.metric(name, self.data.items, self.rows[at], scores[at], aggregate, 0.5)


@dataclass(frozen=True, kw_only=True)
class Sources(Probe):
    """Zero-shot classification within each source, and on sources that were not trained on.

    The columns `source` and `acquisition` of the card name them. A model that recognises the hospital or
    the view names the class where they are tangled, and fails elsewhere [doi:10.1371/journal.pmed.1002683].
    Of one class an item: the mean accuracy over all pairs of source and class with ten items or more, in
    sources with two such classes or more; knowing the source alone gives one class of each source. For all:
    the mean AUROC over the pairs with ten groups or more with and without the class. The details have what a
    table of label frequencies by source and acquisition scores, which is fitted on the training split; for
    macro accuracy, divided by the frequency of the class. Every evaluation of a corpus with these columns has
    this probe. Legend: n items, c classes.
    """

    citation: ClassVar[str] = "doi:10.1371/journal.pmed.1002683"
    classifies: ClassVar[bool] = True

    def __call__(self, encoder: Encoder, data: EvaluationSet) -> ProbeResult:
        """Accuracy, or AUROC with several classes an item; not measured without the columns."""
        known = ItemSources.of(data.items)
        if not known.known:
            return results.not_measured("sources", data, self.version, "columns.source or acquisition")
        names = list(data.classes)
        if len(names) < (1 if data.card.multi_label else 2):
            return results.not_measured("sources", data, self.version, "classes")
        answers = _answers(encoder, data, names, known)
        if not len(answers.rows):
            return results.not_measured(
                "sources", data, self.version, "items with exactly one of the classes"
            )
        shown = display_names(known.strata.tolist(), data.card.names_may_show)
        metrics = [*_within(answers, shown), *_on_new_sources(answers)]
        details = {
            "sources": len(set(known.strata) - {""}),
            "sources_with_two_classes": _with_two_classes(answers),
            "by": " and ".join(_columns(known)),
            "alone": _alone(answers, known.take(answers.rows), names),
            "new_sources": _new_sources(answers),
        }
        if not metrics:
            details["not_measured"] = (
                f"there is no source with two classes of {MIN_ITEMS} items, and none that was not trained on"
            )
        return ProbeResult(
            "sources", data.name, metrics, metrics[0].name if metrics else "", self.version, details
        )


def _columns(known: ItemSources) -> list[str]:
    named = {"source": known.sources, "acquisition": known.acquisitions}
    return [name for name, values in named.items() if any(values)]


def _answers(encoder: Encoder, data: EvaluationSet, names: Sequence[str], known: ItemSources) -> _Answers:
    train = ItemSources.of(data.train)
    trained = frozenset(train.strata.tolist()) - {""} if data.train is not None else None
    if data.card.multi_label:
        labels = metrics_labels.label_matrix(data.items, names)
        scores = zero_shot_scores.class_margins(encoder, data.items, data.classes)
        everyone = np.arange(len(data.items))
        first = np.nan_to_num(labels).argmax(axis=1)
        return _Answers(data, everyone, labels, scores, first, None, known.strata, trained)
    rows, truth = metrics_labels.single_label_items(data.items, names)
    positives = {name: Prompts(positive=data.classes[name].positive) for name in names}
    scores = zero_shot_scores.class_margins(encoder, data.items, positives)[rows]
    hits = decisions.top_k_hits(scores, truth)
    hierarchy = ClassHierarchy.of(names, data.card.implied_classes)
    odds = hierarchy.log_odds(scores * encoder.scale) if len(rows) else scores
    return _Answers(data, rows, hierarchy.labels(truth), odds, truth, hits, known.strata[rows], trained)


def _within(answers: _Answers, shown: Mapping[str, str]) -> Iterator[Metric]:
    """The metrics within sources, over all sources and for each."""
    if answers.hits is not None:
        pairs, by_source = _pairs(answers)
        if by_source:
            at = np.flatnonzero(pairs >= 0)
            chance = len(by_source) / len(set(pairs[at].tolist()))
            yield answers.metric("accuracy_within_sources", at, pairs[at], chance)
            for source, classes in by_source.items() if len(by_source) > 1 else ():
                at = np.flatnonzero((answers.strata == source) & np.isin(answers.truth, classes))
                name = f"accuracy_within_sources/{shown[source]}"
                yield answers.metric(name, at, answers.truth[at], 1 / len(classes))
    columns = {source: _with_and_without(answers, source) for source in sorted(set(answers.strata) - {""})}
    columns = {source: classes for source, classes in columns.items() if classes}
    if columns:
        yield answers.auroc("auroc_within_sources", *_side_by_side(answers, columns))
        for source, classes in columns.items() if len(columns) > 1 else ():
            name = f"auroc_within_sources/{shown[source]}"
            yield answers.auroc(name, *_side_by_side(answers, {source: classes}))


def _pairs(answers: _Answers) -> tuple[np.ndarray, dict[str, list[int]]]:
    """(n,) the number of the pair of source and class of each item, -1 where it does not count; and the
    classes by source."""
    pairs = np.full(len(answers.rows), -1)
    by_source: dict[str, list[int]] = {}
    for source in sorted(set(answers.strata.tolist()) - {""}):
        inside = answers.strata == source
        counts = np.bincount(answers.truth[inside], minlength=answers.labels.shape[1])
        classes = np.flatnonzero(counts >= MIN_ITEMS).tolist()
        if len(classes) > 1:
            by_source[source] = classes
            for i in classes:
                pairs[inside & (answers.truth == i)] = pairs.max() + 1
    return pairs, by_source


def _with_and_without(answers: _Answers, source: str) -> list[int]:
    """The classes that enough groups of a source have, and enough do not."""
    inside = answers.strata == source
    groups = [group for group, there in zip(answers.groups, inside, strict=True) if there]
    counts = metrics_labels.groups_with_and_without(answers.labels[inside], groups)
    classes: list[int] = np.flatnonzero(counts >= MIN_ITEMS).tolist()
    return classes


def _side_by_side(answers: _Answers, columns: Mapping[str, Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels (n, k), a column for each pair of source and class; other sources have NaN."""
    scores, labels = [], []
    for source, classes in columns.items():
        for i in classes:
            scores.append(answers.scores[:, i])
            labels.append(np.where(answers.strata == source, answers.labels[:, i], np.nan))
    return np.stack(scores, axis=1), np.stack(labels, axis=1)


def _with_two_classes(answers: _Answers) -> int:
    """The number of sources within which classes can be distinguished."""
    if answers.hits is not None:
        return len(_pairs(answers)[1])
    return sum(bool(_with_and_without(answers, source)) for source in set(answers.strata.tolist()) - {""})


def _on_new_sources(answers: _Answers) -> Iterator[Metric]:
    """The headline over the items of sources that no training item has."""
    if answers.trained is None:
        return
    new = ~np.isin(answers.strata, [*answers.trained, ""])
    if answers.hits is None:
        groups = [group for group, there in zip(answers.groups, new, strict=True) if there]
        counts = metrics_labels.groups_with_and_without(answers.labels[new], groups)
        classes = np.flatnonzero(counts >= MIN_ITEMS)
        if len(classes):
            labels = np.where(new[:, None], answers.labels, np.nan)[:, classes]
            yield answers.auroc("auroc_on_new_sources", answers.scores[:, classes], labels)
        return
    counts = np.bincount(answers.truth[new], minlength=answers.labels.shape[1])
    at = np.flatnonzero(new & (counts >= MIN_ITEMS)[answers.truth])
    if len(at):
        yield answers.metric("accuracy_on_new_sources", at, answers.truth[at], 1 / answers.labels.shape[1])


def _new_sources(answers: _Answers) -> int | str:
    if answers.trained is None:
        return "unknown: there is no training split"
    return len(set(answers.strata.tolist()) - answers.trained - {""})


def _alone(answers: _Answers, measured: ItemSources, names: Sequence[str]) -> dict[str, Any]:
    """What a table of source and acquisition scores on the same items, by the headline metrics."""
    data, fitted = answers.data, None
    if data.train is not None and len(data.train):
        train = ItemSources.of(data.train)
        if answers.hits is None:
            fitted = (train, metrics_labels.label_matrix(data.train, names))
        else:
            rows, truth = metrics_labels.single_label_items(data.train, names)
            fitted = (train.take(rows), np.eye(len(names))[truth]) if len(rows) else None
    labels = answers.labels if answers.hits is None else np.eye(len(names))[answers.truth]
    scores, source = table_scores(measured, answers.groups, labels, fitted)
    if np.isnan(scores).any():
        return {}
    if answers.hits is None:
        counts = metrics_labels.groups_with_and_without(answers.labels, answers.groups)
        classes = np.flatnonzero(metrics_labels.frequent_classes(counts))
        area = partial(aggregates.macro_auroc, labels=answers.labels[:, classes])
        return {"macro_auroc": aggregates.point_estimate(area, scores[:, classes]), "fitted_on": source}
    hits = decisions.top_k_hits(np.round(scores, 12), answers.truth)
    prior = (labels if fitted is None else fitted[1]).mean(axis=0)
    balanced = decisions.top_k_hits(np.round(scores / np.maximum(prior, 1e-12), 9), answers.truth)
    frequent = metrics_labels.frequent_classes(np.bincount(answers.truth))[answers.truth]
    macro = partial(aggregates.macro_mean, classes=answers.truth[frequent])
    return {
        "macro_accuracy": aggregates.point_estimate(macro, balanced[frequent]),
        "accuracy": float(hits.mean()),
        "fitted_on": source,
    }
