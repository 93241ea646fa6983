from __future__ import annotations

import json
from typing import Any

import pytest

from domainclip.data.images.boxes import Box, read_boxes
from tests.evaluation.probes.array_encoder import items

GOOD = {"label": "nodule", "box": [10, 20, 30, 60]}


def test_a_list_and_a_list_as_text_are_equivalent() -> None:
    rows = [{"id": "0", "meta": {"boxes": [GOOD]}}, {"id": "1", "meta": {"boxes": json.dumps([GOOD])}}]
    rows += [{"id": "2"}, {"id": "3", "meta": {"boxes": ""}}]
    boxes, invalid = read_boxes(items(rows))
    assert boxes == [[Box("nodule", 10, 20, 30, 60)], [Box("nodule", 10, 20, 30, 60)], [], []]
    assert invalid == 0
    assert boxes[0][0].area == 800


@pytest.mark.parametrize(
    "entry",
    [
        {"label": "nodule"},
        {"label": "nodule", "box": [10, 20, 10, 60]},
        {"label": "nodule", "box": [-1, 20, 30, 60]},
        {"label": "nodule", "box": [1, 2, 3]},
        {"label": "nodule", "box": [1, 2, 3, "x"]},
        {"label": "nodule", "box": [1, 2, float("inf"), 5]},
        {"label": 3, "box": [1, 2, 3, 4]},
        "nodule",
        None,
    ],
)
def test_invalid_entries_are_counted(entry: Any) -> None:
    boxes, invalid = read_boxes(items([{"id": "0", "meta": {"boxes": [GOOD, entry]}}]))
    assert boxes == [[Box("nodule", 10, 20, 30, 60)]]
    assert invalid == 1


@pytest.mark.parametrize("whole", ["no json", '{"label": "nodule"}', {"label": "nodule"}, 5])
def test_a_value_that_is_no_list_is_one_invalid_entry(whole: Any) -> None:
    assert read_boxes(items([{"id": "0", "meta": {"boxes": whole}}])) == ([[]], 1)
