from __future__ import annotations

import numpy as np

from domainclip.evaluation.metrics.gallery_parts import divide
from domainclip.evaluation.metrics.retrieval_gallery import build_galleries
from tests.evaluation.probes.array_encoder import evaluation_set

ROWS = [
    {"id": "0", "group": "p4", "texts": ["mass"], "language": "en"},
    {"id": "1", "group": "p1", "texts": ["clear"], "language": "en"},
    {"id": "2", "group": "p2", "texts": ["Clear", "old scar"], "language": "en"},
    {"id": "3", "group": "p3", "texts": ["old scar"], "language": "en"},
    {"id": "4", "group": "p4", "texts": ["nodule"], "language": "en"},
    {"id": "5", "group": "p0", "texts": [], "language": "en"},
]


def test_groups_that_share_a_caption_directly_or_through_others_are_one_unit() -> None:
    """p2 shares a caption with p1 and one with p3; p4 shares none; p0 has none."""
    data = evaluation_set(ROWS)
    parts = divide(data, list(build_galleries(data)))
    assert parts.units.tolist() == ["p4", "p1", "p1", "p1", "p4", "p0"]
    assert parts.of_items.tolist()[:5] == [1, 0, 0, 0, 1]  # the largest unit first
    (galleries,) = build_galleries(data)
    by_text = dict(zip(galleries.texts, parts.of_captions[0].tolist(), strict=True))
    assert {text.lower(): part for text, part in by_text.items()} == {
        **{"mass": 1, "nodule": 1},
        **{"clear": 0, "old scar": 0},
    }


def test_a_truth_key_of_two_groups_and_another_language_connect_as_well() -> None:
    rows = [
        {"id": "0", "group": "a", "truth": "t", "texts": ["one"], "language": "en"},
        {"id": "1", "group": "b", "truth": "t", "texts": ["two"], "language": "en"},
        {"id": "2", "group": "b", "truth": "u", "texts": ["drei"], "language": "de"},
        {"id": "3", "group": "c", "truth": "v", "texts": ["drei"], "language": "de"},
        {"id": "4", "group": "d", "truth": "w", "texts": ["vier"], "language": "de"},
    ]
    data = evaluation_set(rows)
    assert divide(data, list(build_galleries(data))).units.tolist() == ["a", "a", "a", "a", "d"]
    pairwise = list(build_galleries(data, pairwise=True))  # equal texts are then separate captions
    assert divide(data, pairwise).units.tolist() == ["a", "b", "b", "c", "d"]


def test_many_units_are_dealt_out_to_a_hundred_parts_whatever_the_order_of_the_rows() -> None:
    rows = [{"id": f"{i:03d}", "texts": [f"caption {i // 2}"]} for i in range(260)]
    rows += [{"id": f"x{i}", "texts": []} for i in range(300)]  # without captions: no part of their own
    data = evaluation_set(rows)
    parts = divide(data, list(build_galleries(data)))
    assert np.bincount(parts.of_items[:260]).tolist() == [4] * 30 + [2] * 70
    turned = divide(other := evaluation_set(rows[::-1]), list(build_galleries(other)))
    assert turned.of_items[::-1][:260].tolist() == parts.of_items[:260].tolist()
    assert turned.units[::-1].tolist() == parts.units.tolist()
