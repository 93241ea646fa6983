"""Batches of one source, and labels that are independent of it: counts worked by hand."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import numpy as np
import pytest
from datasets import Dataset

from domainclip.data.batching.order import RepeatedRows, batch_positions
from domainclip.data.curation.cluster_batches import ClusterBatches
from domainclip.data.curation.within_source import WithinSource
from domainclip.data.schema import ACQUISITION, SOURCE, features
from domainclip.errors import DataError
from domainclip.pipelines.curate import curate
from tests.data.curation import curation_inputs


def _items(sources: list[str], labels: list[list[str]], views: list[str] | None = None) -> Dataset:
    rows = curation_inputs.items([[str(i)] for i in range(len(sources))], labels).to_list()
    for i, row in enumerate(rows):
        row["meta"] = json.dumps({SOURCE: sources[i]} | ({ACQUISITION: views[i]} if views else {}))
    return Dataset.from_list(rows, features=features())


# 6 of A with flu, 2 of A without finding, 2 of B with flu, 2 of B without finding, 2 of C with flu alone.
SOURCES = ["A"] * 8 + ["B"] * 4 + ["C"] * 2
LABELS = [["flu"]] * 6 + [["none"]] * 2 + [["flu"]] * 2 + [["none"]] * 2 + [["flu"]] * 2


def test_items_of_one_source_or_view_share_a_stratum() -> None:
    items = _items(["B", "A", "B", ""], [[]] * 4, ["PA", "PA", "AP", "AP"])
    assert WithinSource().strata(items).tolist() == [2, 1, 2, 0]
    assert WithinSource(by="acquisition").strata(items).tolist() == [1, 1, 0, 0]
    assert len(set(WithinSource(by="both").strata(items))) == 4
    assert WithinSource()(items) is items
    assert WithinSource().repeats(items) is None


def test_repeats_by_hand() -> None:
    """n = 14, n(flu) = 10, n(none) = 4, and w = n(s) n(y) / (n n(s, y)).

    A flu 8 · 10 / (14 · 6) = 0.952; A none 8 · 4 / (14 · 2) = 1.143; B flu 4 · 10 / (14 · 2) = 1.429;
    B none 4 · 4 / (14 · 2) = 0.571, the least; C flu 2 · 10 / (14 · 2) = 0.714. Divided by the least: 1.67, 2,
    2.5, 1 and 1.25, rounded to 2, 2, 2, 1 and 1.
    """
    curation = WithinSource(balance_labels=True)
    expected = [2] * 6 + [2] * 2 + [2] * 2 + [1] * 2 + [1] * 2
    assert np.array_equal(curation.repeats(_items(SOURCES, LABELS)), expected)  # type: ignore[arg-type]
    # An item without labels is shown once, and changes no other count.
    assert curation.repeats(_items([*SOURCES, "A"], [*LABELS, []])).tolist() == [*expected, 1]  # type: ignore[union-attr]


def test_repetition_makes_the_label_less_dependent_on_the_source() -> None:
    sources = ["A"] * 100 + ["B"] * 100
    labels = [["flu"]] * 90 + [["none"]] * 10 + [["flu"]] * 20 + [["none"]] * 80
    repeats = WithinSource(balance_labels=True, max_repeats=100).repeats(_items(sources, labels))
    assert repeats is not None

    def difference(times: np.ndarray) -> float:
        flu = np.array([row == ["flu"] for row in labels])
        shares = [np.average(flu[part], weights=times[part]) for part in (slice(0, 100), slice(100, 200))]
        return float(shares[0] - shares[1])

    assert difference(np.ones(200)) == pytest.approx(0.7)  # control
    assert abs(difference(repeats)) < 0.06
    assert repeats.min() == 1  # no item is lost
    few = WithinSource(balance_labels=True, max_repeats=2).repeats(_items(sources, labels))
    assert few is not None
    assert few.max() == 2


def test_an_epoch_shows_each_row_as_often_as_it_is_repeated_and_batches_keep_to_a_source() -> None:
    times = np.array([1, 3] * 40)
    strata = np.repeat([0, 1], 40)
    order = RepeatedRows(times)
    assert len(order) == 160
    steps = [order.batch_positions(step, 16, 5, strata) for step in range(20)]  # two epochs
    seen = Counter(row for rows in steps[:10] for _, row in rows)
    assert [seen[row] for row in range(80)] == times.tolist()
    shown = defaultdict(list)
    for rows in steps:
        for epoch, row in rows:
            shown[row].append(epoch)
    # Every showing is another epoch of the row, so that captions and augmentation differ.
    assert all(sorted(epochs) == list(range(2 * times[row])) for row, epochs in shown.items())
    assert all(len({strata[row] for _, row in rows}) == 1 for rows in steps)
    assert order.batch_positions(13, 16, 5, strata) == steps[13]  # from any step on: an exact resume
    # Control: without strata, sources mix; with one showing of each row it is the plain order.
    assert any(len({strata[row] for _, row in order.batch_positions(s, 16, 5, None)}) > 1 for s in range(5))
    once = RepeatedRows(np.ones(80, np.int64))
    assert once.batch_positions(7, 16, 5, strata) == batch_positions(7, 16, 80, 5, strata)


def test_another_curation_of_the_order_changes_the_identity_of_the_run() -> None:
    items = _items(SOURCES, LABELS)
    digests = {
        curate(items, curation, None, on_disk=False).digest()  # type: ignore[arg-type]
        for curation in ({}, {"w": WithinSource()}, {"w": WithinSource(balance_labels=True)})
    }
    assert len(digests) == 3
    assert ClusterBatches().repeats(items) is None


def test_a_corpus_without_sources_or_labels_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        WithinSource().strata(_items(["A", "A"], [[], []]))
    assert str(caught.value) == (
        "curation.within_source: all items have the same source, or none: name columns.source in the "
        "card, or leave within_source out"
    )
    with pytest.raises(DataError) as caught:
        WithinSource(balance_labels=True).repeats(_items(["A", "B"], [[], []]))
    assert str(caught.value) == (
        "curation.within_source.balance_labels: no training item has a label: name columns.labels in the card"
    )
