"""Average precision of images that share a label or a truth key, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.metrics.image_to_image import image_to_image
from tests.evaluation.probes.array_encoder import items

LINE = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.6, 0.8]])


def test_images_of_a_label_with_ties_and_at_chance() -> None:
    """The first finds 1 at rank 1 and 2 in a tie with 3, so at ranks 2 or 3. At chance all three are a tie."""
    rows = [{"id": f"{i}", "labels": [label]} for i, label in enumerate("aaab")]
    found = image_to_image(LINE, items(rows), seed=0, by_truth=False)
    assert found is not None
    assert (found.rows.tolist(), found.truth, found.gallery) == ([0, 1, 2], "label", 4)
    assert found.scores[0] == pytest.approx((1 + (2 / 2 + 2 / 3) / 2) / 2)
    # 1 is nearer to 2 and 3 (0.96) than to 0 (0.8): 2 at rank 1 or 2, then 0 at rank 3.
    assert found.scores[1] == pytest.approx(((1 + 1 / 2) / 2 + 2 / 3) / 2)
    # 2 is equal to 3; then 1 and 0.
    assert found.scores[2] == pytest.approx((1 / 2 + 2 / 3) / 2)
    # Two relevant of three, in their three orders: (1/1 + 2/2)/2, (1/1 + 2/3)/2, (1/2 + 2/3)/2.
    assert found.at_chance.tolist() == pytest.approx([(1 + 5 / 6 + 7 / 12) / 3] * 3)


def test_without_labels_images_of_a_truth_key_match() -> None:
    rows = [{"id": f"{i}", "truth": key, "group": "patient"} for i, key in enumerate("ggxx")]
    found = image_to_image(LINE, items(rows), seed=0, by_truth=True)
    assert found is not None
    assert (found.truth, found.rows.tolist()) == ("truth key", [0, 1, 2, 3])
    assert found.scores.tolist() == pytest.approx([1, 1 / 3, 1, 1])
    assert found.at_chance.tolist() == pytest.approx([(1 + 1 / 2 + 1 / 3) / 3] * 4)


def test_cosines_within_six_decimals_are_a_tie() -> None:
    angles = np.array([0.0, 1.0, 1.0 + 2e-7, 1.0 + 4e-6])
    images = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rows = [{"id": f"{i}", "labels": [label]} for i, label in enumerate("abac")]
    found = image_to_image(images, items(rows), seed=0, by_truth=False)
    assert found is not None
    assert found.scores[0] == pytest.approx((1 + 1 / 2) / 2)  # 2 is in a tie with 1, before 3


def test_without_labels_and_truth_key_no_image_is_right() -> None:
    """Rows of one image share the default key, and would find each other with a cosine of 1."""
    rows = [{"id": f"{i}", "truth": key, "group": "patient"} for i, key in enumerate("ggxx")]
    assert image_to_image(LINE, items(rows), seed=0, by_truth=False) is None


def test_images_of_a_truth_key_are_no_answers_where_the_label_is_right() -> None:
    """1 has the key of 0, so 0 finds only 2 among 2 and 3, which tie."""
    rows = [{"id": f"{i}", "labels": ["a"] if i < 3 else ["b"], "truth": "xxyz"[i]} for i in range(4)]
    found = image_to_image(LINE, items(rows), seed=0, by_truth=True)
    assert found is not None
    assert found.scores[0] == pytest.approx((1 + 1 / 2) / 2)
