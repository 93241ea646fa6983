from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from datasets import Dataset

from domainclip.data.interfaces import UnreadableImages
from domainclip.errors import DataError
from domainclip.evaluation.metrics.captions import caption_vectors
from domainclip.evaluation.metrics.classifier_metrics import majority_class_hits
from domainclip.evaluation.metrics.labelled_examples import labelled_examples, sample_items
from domainclip.evaluation.metrics.labels import single_label_rows
from domainclip.evaluation.metrics.text_to_image import recall_at_1
from domainclip.evaluation.probes.modality_gap import ModalityGap
from domainclip.evaluation.probes.paraphrase import Paraphrase
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.probes.set_difficulty import SetDifficulty
from domainclip.evaluation.statistics.aggregates import column_means, mean_of_columns
from tests.evaluation.probes.array_encoder import evaluation_set, items
from tests.evaluation.probes.synthetic_sets import WordEncoder, clusters, shuffled


def test_recall_at_1_by_hand() -> None:
    """Images 0 and 1 are of one group. The text of 0 finds 1, which is right; that of 2 ties 2 with 0."""
    rows = [{"id": "0", "group": "g"}, {"id": "1", "group": "g"}, {"id": "2"}, {"id": "3"}]
    texts = {"a": [0, 1, 0, 0], "b": [1, 0, 1, 0], "c": [0, 0, 0, 1]}
    model = WordEncoder({f"{i}": np.eye(4)[i] for i in range(4)}, texts)
    hits, guesses = recall_at_1(model, evaluation_set(rows), [0, 2, 2], ["a", "b", "c"])
    assert hits.tolist() == [1.0, 0.5, 0.0]
    assert guesses.tolist() == [0.5, 0.25, 0.25]


def test_items_asked_for_with_the_same_words_are_all_right() -> None:
    model = WordEncoder({f"{i}": np.eye(3)[i] for i in range(3)}, {"A cat": [0, 1, 0]})
    hits, guesses = recall_at_1(
        model, evaluation_set([{"id": f"{i}"} for i in range(3)]), [0, 1], ["a  cat", "A cat"]
    )
    assert hits.tolist() == [1.0, 1.0]
    assert guesses == pytest.approx([2 / 3, 2 / 3])


def test_captions_that_several_probes_need_are_encoded_once() -> None:
    """With a model that keeps what a whole request gave, as the towers do."""

    class Keeping(WordEncoder):
        asked: ClassVar[set[tuple[str, ...]]] = set()

        def texts(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            self.asked.add(tuple(texts))
            return super().texts(texts)

    rows = [{"id": f"{i}", "texts": [f"one {i}", f"two {i % 3}"], "language": "en"} for i in range(9)]
    model = Keeping({f"{i}": np.random.default_rng(i).normal(size=4) for i in range(9)})
    data = evaluation_set(rows)
    Retrieval()(model, data)
    after_retrieval = set(model.asked)
    assert len(after_retrieval) == 1
    for probe in (ModalityGap(), SetDifficulty(), Paraphrase()):
        assert probe(model, data).metrics  # type: ignore[operator]
    assert model.asked == after_retrieval


def test_caption_vectors_stand_in_the_order_asked() -> None:
    rows = [{"id": "0", "texts": ["b", "a"]}, {"id": "1", "texts": ["c", "A"]}]
    model = WordEncoder({"0": [1, 0], "1": [0, 1]}, {"A": [1, 0], "b": [0, 1], "c": [-1, 0]})
    vectors = caption_vectors(model, evaluation_set(rows), ["c", "b", "a", "b"])
    assert vectors.tolist() == [[-1, 0], [0, 1], [1, 0], [0, 1]]


def test_means_of_columns_leave_out_who_is_not_there() -> None:
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


def test_examples_stand_in_an_order_of_their_own_and_know_what_is_unknown() -> None:
    rows: list[dict[str, Any]] = [{"id": f"{i}", "labels": ["x"] * (i % 2)} for i in range(6)]
    rows[0]["meta"] = {"unknown_labels": ["x"]}
    model = WordEncoder({f"{i}": [np.cos(i), np.sin(i)] for i in range(6)})
    found, again = (
        labelled_examples(model, items(rows), ["x"], 5),
        labelled_examples(model, items(rows[::-1]), ["x"], 5),
    )
    assert found is not None
    assert again is not None
    assert found.ids == again.ids
    assert np.array_equal(found.features, again.features)
    wanted = {f"{i}": np.nan if i == 0 else float(i % 2) for i in range(6)}
    assert found.labels[:, 0] == pytest.approx([wanted[name] for name in found.ids], nan_ok=True)
    assert len(found.ids) == 5


class Failing(WordEncoder):
    """Two of its pictures cannot be decoded; it may say which are left."""

    def __init__(self, tells: bool) -> None:
        super().__init__({f"{i}": [1.0, i] for i in range(4)})
        self.tells = tells

    def images(self, items: Dataset) -> np.ndarray:
        good = [row for row, name in enumerate(items["id"]) if name not in "02"]
        if len(good) < len(items):
            if self.tells:
                raise UnreadableImages(len(items) - len(good), items, items.select(good))
            raise DataError("2 of 4 images cannot be read")
        return super().images(items)


def test_unreadable_training_pictures_are_left_out() -> None:
    found = labelled_examples(Failing(tells=True), items([{"id": f"{i}"} for i in range(4)]), ["x"], 9)
    assert found is not None
    assert sorted(found.ids) == ["1", "3"]
    assert labelled_examples(Failing(tells=True), items([{"id": "0"}]), ["x"], 9) is None


def test_another_fault_of_the_data_is_not_hidden() -> None:
    with pytest.raises(DataError, match="2 of 4 images cannot be read"):
        labelled_examples(Failing(tells=False), items([{"id": f"{i}"} for i in range(4)]), ["x"], 9)


def test_classes_of_examples_and_the_commonest_of_them() -> None:
    labels = np.array([[1.0, 0, np.nan], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
    rows, truth = single_label_rows(labels)
    assert (rows.tolist(), truth.tolist()) == ([0, 2], [0, 2])
    assert majority_class_hits(np.array([3, 3, 1]), np.array([0, 1, 2, 0])).tolist() == [0.5, 0.5, 0, 0.5]
