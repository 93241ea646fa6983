from __future__ import annotations

import numpy as np

from domainclip.evaluation.metrics.gallery_parts import divide
from domainclip.evaluation.metrics.retrieval_gallery import build_galleries
from tests.evaluation.probes.array_encoder import evaluation_set


def test_a_group_and_the_captions_that_it_has_first_are_one_part() -> None:
    """Groups by size, then name: p4, p1, p2. "clear" is of p1 and p2; the group p0 is not searched."""
    rows = [
        {"id": "0", "group": "p4", "texts": ["mass"]},
        {"id": "1", "group": "p1", "texts": ["clear"]},
        {"id": "2", "group": "p2", "texts": ["clear", "scar"]},
        {"id": "3", "group": "p4", "texts": ["mass"]},
        {"id": "4", "group": "p0", "texts": []},
    ]
    data = evaluation_set(rows)
    (gallery,) = build_galleries(data)
    parts = divide(data, [gallery])
    assert (parts.count, parts.of_items[:4].tolist()) == (3, [0, 1, 2, 0])
    assert dict(zip(gallery.texts, parts.of_captions[0].tolist(), strict=True)) == {
        **{"clear": 1, "mass": 0},
        "scar": 2,
    }
    assert parts.shares(gallery.by_image, parts.of_captions[0]).tolist() == [
        *([1, 0, 0], [0, 1, 0]),
        *([0, 0.5, 0.5], [1, 0, 0]),
    ]


def test_many_groups_are_dealt_out_to_a_hundred_parts_whatever_the_order_of_the_rows() -> None:
    rows = [
        {"id": f"{i:03d}", "group": f"{i // 2:03d}", "texts": [f"caption {i}"], "language": "ab"[i % 2]}
        for i in range(260)
    ]
    rows += [{"id": f"x{i}", "texts": []} for i in range(300)]  # without captions: no part of their own
    data, other = evaluation_set(rows), evaluation_set(rows[::-1])
    parts, turned = (divide(each, list(build_galleries(each))) for each in (data, other))
    assert np.bincount(parts.of_items[:260]).tolist() == [4] * 30 + [2] * 70
    assert turned.of_items[::-1][:260].tolist() == parts.of_items[:260].tolist()
    assert [captions.tolist() for captions in turned.of_captions] == [c.tolist() for c in parts.of_captions]
    assert len(parts.of_captions) == 2  # a gallery of each language
