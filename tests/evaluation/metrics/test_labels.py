"""Labels of a set: which classes a macro mean counts, at the border of ten."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from domainclip.data.cards import Privacy
from domainclip.evaluation.metrics.labels import frequent_classes, groups_with_and_without, names_to_show
from tests.evaluation.probes.array_encoder import evaluation_set


def test_classes_of_ten_items_are_frequent() -> None:
    assert frequent_classes(np.array([9, 10, 11, 0])).tolist() == [False, True, True, False]


def test_where_no_class_is_frequent_all_that_have_items_count() -> None:
    assert frequent_classes(np.array([9, 1, 0])).tolist() == [True, True, False]


def test_groups_on_the_smaller_side_of_each_class() -> None:
    # Groups a, a, b, c; the first class is in a and b, the second in c alone, the third is unknown in b and c.
    labels = np.array([[1, 0, 1.0], [0, 0, 0], [1, 0, np.nan], [0, 1, np.nan]])
    assert groups_with_and_without(labels, ["a", "a", "b", "c"]).tolist() == [2, 1, 1]


def test_a_label_outside_the_card_is_not_named_where_it_may_be_a_persons() -> None:
    """Without classes in the card a probe takes the labels of the training split."""
    data = evaluation_set([{"id": "0"}], {"cat": "a cat"})
    assert names_to_show(data, ["cat", "jane doe"]) == ["cat", "class 2"]
    assert names_to_show(data, ["cat"]) == ["cat"]
    card = data.card.model_copy(update={"privacy": Privacy(identifiers="none")})
    assert names_to_show(replace(data, card=card), ["cat", "jane doe"]) == ["cat", "jane doe"]
