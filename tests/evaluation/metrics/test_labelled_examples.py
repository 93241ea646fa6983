from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from domainclip.data.interfaces import UnreadableImages
from domainclip.errors import DataError
from domainclip.evaluation.metrics.classifier_metrics import majority_class_hits
from domainclip.evaluation.metrics.labelled_examples import labelled_examples, sample_items
from domainclip.evaluation.metrics.labels import single_label_rows
from domainclip.evaluation.statistics.aggregates import column_means, mean_of_columns
from tests.evaluation.probes.array_encoder import items
from tests.evaluation.probes.synthetic_sets import WordEncoder, clusters, shuffled


def test_column_means_ignore_nan() -> None:
    scores = np.array([[1.0, np.nan], [0.0, 0.5], [np.nan, np.nan]])
    weights = np.array([[1.0, 1, 1], [2, 0, 0], [0, 0, 3]])
    assert column_means(scores, weights) == pytest.approx(
        np.array([[0.5, 0.5], [1, np.nan], [np.nan, np.nan]]), nan_ok=True
    )
    assert mean_of_columns(scores, weights) == pytest.approx(np.array([0.5, 1, np.nan]), nan_ok=True)


def test_a_sample_depends_on_ids_alone() -> None:
    _, data = clusters(n=30)
    rows = sample_items(data, range(30), 10, "a purpose")
    mixed = shuffled(data)
    again = sample_items(mixed, range(30), 10, "a purpose")
    assert {data.items["id"][row] for row in rows} == {mixed.items["id"][row] for row in again}
    assert rows == sorted(rows)
    assert sample_items(data, range(30), 10, "another") != rows
    assert sample_items(data, range(5), 10, "a purpose") == [0, 1, 2, 3, 4]


def test_examples_have_an_order_by_id_and_nan_for_unknown_labels() -> None:
    rows: list[dict[str, Any]] = [{"id": f"{i}", "labels": ["x"] * (i % 2)} for i in range(6)]
    rows[0]["meta"] = {"unknown_labels": ["x"]}
    model = WordEncoder({f"{i}": [np.cos(i), np.sin(i)] for i in range(6)})
    examples, again = (
        labelled_examples(model, items(rows), ["x"], 5),
        labelled_examples(model, items(rows[::-1]), ["x"], 5),
    )
    assert examples is not None
    assert again is not None
    assert examples.ids == again.ids
    assert np.array_equal(examples.features, again.features)
    expected = {f"{i}": np.nan if i == 0 else float(i % 2) for i in range(6)}
    assert examples.labels[:, 0] == pytest.approx([expected[name] for name in examples.ids], nan_ok=True)
    assert len(examples.ids) == 5


class UnreadableEncoder(WordEncoder):
    """Two of its images cannot be decoded; the error may name the readable items."""

    def __init__(self, names_readable: bool) -> None:
        super().__init__({f"{i}": [1.0, i] for i in range(4)})
        self.names_readable = names_readable

    def images(self, items: Dataset) -> np.ndarray:
        readable = [row for row, name in enumerate(items["id"]) if name not in "02"]
        if len(readable) < len(items):
            if self.names_readable:
                raise UnreadableImages(len(items) - len(readable), items, items.select(readable))
            raise DataError("2 of 4 images cannot be read")
        return super().images(items)


def test_unreadable_training_images_are_left_out() -> None:
    examples = labelled_examples(
        UnreadableEncoder(names_readable=True), items([{"id": f"{i}"} for i in range(4)]), ["x"], 9
    )
    assert examples is not None
    assert sorted(examples.ids) == ["1", "3"]
    assert examples.lost == {"unreadable_training_items": 2}
    assert examples.take([0]).join(examples.take([1])).lost == examples.lost
    assert labelled_examples(UnreadableEncoder(names_readable=True), items([{"id": "0"}]), ["x"], 9) is None


def test_other_data_errors_are_raised() -> None:
    with pytest.raises(DataError, match="2 of 4 images cannot be read"):
        labelled_examples(
            UnreadableEncoder(names_readable=False), items([{"id": f"{i}"} for i in range(4)]), ["x"], 9
        )


def test_single_label_rows_and_majority_class_hits() -> None:
    labels = np.array([[1.0, 0, np.nan], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
    rows, truth = single_label_rows(labels)
    assert (rows.tolist(), truth.tolist()) == ([0, 2], [0, 2])
    assert majority_class_hits(np.array([3, 3, 1]), np.array([0, 1, 2, 0])).tolist() == [0.5, 0.5, 0, 0.5]
