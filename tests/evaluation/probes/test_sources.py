"""The probe `sources`: a model that only recognises sources is no better than chance within them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from domainclip.data.schema import ACQUISITION, SOURCE
from domainclip.evaluation.base import EvaluationSet, ProbeResult
from domainclip.evaluation.evaluate import compare_models
from domainclip.evaluation.probes.sources import Sources
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.evaluation.statistics import aggregates
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import BETTER, SAME
from domainclip.report.source_cautions import source_cautions
from tests.evaluation.example_sets import AXES, CLASSES
from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set

# Three of four images of the north are cats, three of four of the south are dogs.
COUNTS = {("north", "cat"): 30, ("north", "dog"): 10, ("south", "cat"): 10, ("south", "dog"): 30}


def made_set(counts: Mapping[tuple[str, str], int], prefix: str = "t", **meta: str) -> EvaluationSet:
    rows = [
        {"id": f"{prefix}-{source}-{label}-{i:02d}", "labels": [label], "meta": {SOURCE: source, **meta}}
        for (source, label), n in counts.items()
        for i in range(n)
    ]
    return evaluation_set(rows, CLASSES)


def model(data: EvaluationSet, answer: Callable[[str, str, int], str]) -> ArrayEncoder:
    """A model that answers by source, class and number of an item."""
    vectors = {}
    for id in data.items["id"]:
        _, source, label, number = id.split("-")
        vectors[id] = [1.0, 0.1] if answer(source, label, int(number)) == "cat" else [0.1, 1.0]
    return ArrayEncoder(vectors, AXES)


def by_source(source: str, label: str, number: int) -> str:
    """The answer of a model that recognises the source alone."""
    return "cat" if source == "north" else "dog"


def value(result: ProbeResult, name: str) -> float:
    (metric,) = (metric for metric in result.metrics if metric.name == name)
    return aggregates.point_estimate(metric.aggregate, metric.scores)


def with_train(data: EvaluationSet, counts: Mapping[tuple[str, str], int]) -> EvaluationSet:
    return replace(data, train=made_set(counts, "r").items)


def test_a_model_that_recognises_sources_is_at_chance_within_them() -> None:
    data = with_train(made_set(COUNTS), COUNTS)
    result = Sources()(model(data, by_source), data)
    assert result.primary == "accuracy_within_sources"
    assert value(result, "accuracy_within_sources") == pytest.approx(0.5)  # (1 + 0 + 0 + 1) / 4
    assert value(result, "auroc_within_sources") == pytest.approx(0.5)
    (first,) = (metric for metric in result.metrics if metric.name == "accuracy_within_sources")
    assert first.chance == 0.5  # the source gives one of the two classes of each
    zero_shot = ZeroShot()(model(data, by_source), data)
    # The same answers, and a table of the source, look like three quarters right.
    assert value(zero_shot, "macro_accuracy") == pytest.approx(0.75)
    assert result.details["alone"] == {
        "macro_accuracy": pytest.approx(0.75),
        "accuracy": pytest.approx(0.75),
        "fitted_on": "the training split, 80 items",
    }


def test_a_model_that_knows_the_classes_is_right_within_sources() -> None:
    data = with_train(made_set(COUNTS), COUNTS)
    result = Sources()(model(data, lambda _, label, number: label), data)
    assert value(result, "accuracy_within_sources") == 1.0
    assert value(result, "auroc_within_sources") == 1.0
    names = [metric.name for metric in result.metrics]
    assert (
        "accuracy_within_sources/source 1" in names
    )  # no name: the card does not state that none identifies
    open_card = data.card.model_copy(
        update={"privacy": data.card.privacy.model_copy(update={"identifiers": "none"})}
    )
    result = Sources()(model(data, by_source), replace(data, card=open_card))
    assert "accuracy_within_sources/north" in [metric.name for metric in result.metrics]


def test_a_source_of_one_class_shows_nothing_within_it() -> None:
    data = made_set({("north", "cat"): 20, ("south", "dog"): 20, ("south", "cat"): 9})
    result = Sources()(model(data, by_source), data)
    assert result.metrics == []
    assert "no source with two classes of 10 items" in result.details["not_measured"]
    assert result.details["sources_with_two_classes"] == 0


def test_new_sources_are_those_without_a_training_item() -> None:
    data = with_train(made_set(COUNTS), {("north", "cat"): 5, ("north", "dog"): 5})
    result = Sources()(model(data, by_source), data)
    assert result.details["new_sources"] == 1
    assert value(result, "accuracy_on_new_sources") == pytest.approx(0.5)  # cats 0, dogs 1
    (metric,) = (metric for metric in result.metrics if metric.name == "accuracy_on_new_sources")
    assert len(metric.ids) == 40
    alone = Sources()(model(data, by_source), replace(data, train=None)).details
    assert alone["new_sources"] == "unknown: there is no training split"
    assert alone["alone"]["fitted_on"] == "the measured items, cross-validated"
    assert alone["alone"]["accuracy"] == pytest.approx(0.75)


def test_the_acquisition_counts_where_no_source_is_known() -> None:
    counts = {("north", "cat"): 20, ("north", "dog"): 20}
    rows = made_set(counts).items.to_list()
    items = [
        {
            "id": row["id"],
            "labels": row["labels"],
            "meta": {ACQUISITION: "AP" if int(row["id"][-2:]) % 2 else "PA"},
        }
        for row in rows
    ]
    data = evaluation_set(items, CLASSES)
    result = Sources()(model(data, lambda _, label, number: label), data)
    assert result.details["by"] == "acquisition"
    assert result.details["sources"] == 2
    assert value(result, "accuracy_within_sources") == 1.0
    nothing = evaluation_set([{"id": "t-x-cat-00", "labels": ["cat"]}], CLASSES)
    assert "columns.source" in Sources()(model(nothing, by_source), nothing).details["not_measured"]


def test_several_classes_an_item_have_an_auroc_within_sources() -> None:
    """Sources differ in the share of a class; within them the model ranks at random or perfectly."""
    prompts: dict[str, Any] = {"cat": {"positive": ["a cat"]}}
    rows = []
    for source, positives in (("north", 30), ("south", 10)):
        for i in range(40):
            labels = ["cat"] if i < positives else []
            rows.append({"id": f"{source}{i:02d}", "labels": labels, "meta": {SOURCE: source}})
    data = evaluation_set(rows, prompts, multi_label=True)
    shortcut = ArrayEncoder({row["id"]: [1.0, float(row["id"][0] == "s")] for row in rows}, AXES)
    result = Sources()(shortcut, data)
    assert result.primary == "auroc_within_sources"
    assert value(result, "auroc_within_sources") == pytest.approx(0.5)
    # A north image ranks above a south one: 30·30 right, 30·10 + 10·30 ties, of 40·40 pairs.
    assert value(ZeroShot()(shortcut, data), "macro_auroc") == pytest.approx((900 + 300) / 1600)
    knowing = ArrayEncoder({row["id"]: [1.0, float(not row["labels"])] for row in rows}, AXES)
    assert value(Sources()(knowing, data), "auroc_within_sources") == 1.0


# --- the sentences beside the verdict -------------------------------------------------------------------


def test_a_gain_that_is_none_within_sources_is_stated_beside_the_verdict() -> None:
    """The base is right for every second item; the other model recognises sources."""
    data = with_train(made_set(COUNTS), COUNTS)
    base = model(data, lambda _, label, number: label if number % 2 else {"cat": "dog", "dog": "cat"}[label])
    probes = {"zero_shot": ZeroShot(), "sources": Sources()}
    (evaluation,) = compare_models([base, model(data, by_source)], [data], probes, resamples=100)
    table, within, new = source_cautions(evaluation)
    assert table == (
        "Source alone: a table of them, fitted on the training split, 80 items, has a macro accuracy of "
        "75\u00a0%; the model has 75\u00a0%, which is no more."
    )
    assert within.startswith("The gain is not shown within sources: AUROC within sources 0.5")
    assert new.startswith("Not measured on sources that were not trained on: hold one out with")
    # With a gain within sources, and a new source without one:
    sure = Estimate(0.9, 0.8, 0.95)
    rows = [
        replace(row, verdict=BETTER, adapted=sure) if row.probe == "sources" else row
        for row in evaluation.rows
    ]
    (row,) = (row for row in rows if row.metric == "accuracy_within_sources")
    rows.append(replace(row, metric="accuracy_on_new_sources", verdict=SAME))
    table, new = source_cautions(replace(evaluation, rows=rows))
    assert new.startswith(
        "The gain is not shown on sources that were not trained on: accuracy on new sources"
    )
    # Better than a base far below chance is not yet more than chance.
    low = Estimate(0.34, 0.31, 0.37)
    rows[-1] = replace(row, metric="accuracy_on_new_sources", verdict=BETTER, adapted=low, chance=0.5)
    _, new = source_cautions(replace(evaluation, rows=rows))
    assert new.endswith("(chance\u00a050\u00a0%), not shown to be more than chance.")
