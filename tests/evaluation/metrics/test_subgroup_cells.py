from __future__ import annotations

import numpy as np
import pytest

from domainclip.evaluation.metrics.subgroup_cells import (
    Column,
    count_no_numbers,
    is_categorical,
    item_attributes,
    parse_column,
    reason_not_categorical,
    reason_not_shown,
    split_into_cells,
    suppressed_cells,
)
from tests.evaluation.probes.array_encoder import items


def test_suppressed_cells_have_enough_groups_together() -> None:
    counts: dict[tuple[str, ...], int] = {("a",): 1, ("b",): 2, ("c",): 11, ("d",): 12, ("e",): 30}
    assert suppressed_cells(counts, 10) == {("a",), ("b",), ("c",)}
    assert suppressed_cells({("a",): 5, ("b",): 6, ("c",): 30}, 10) == {("a",), ("b",)}
    assert suppressed_cells({("a",): 15, ("b",): 16}, 10) == set()


@pytest.mark.parametrize("seed", range(20))
def test_every_line_of_a_table_suppresses_none_or_enough(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table: dict[tuple[str, ...], int] = {
        (f"r{i}", f"c{j}"): int(rng.integers(1, 60)) for i in range(4) for j in range(5) if rng.random() < 0.9
    }
    dark = suppressed_cells(table, 10)
    assert {key for key, count in table.items() if count < 10} <= dark
    for position in range(2):
        for value in {key[position] for key in table}:
            line = [key for key in table if key[position] == value]
            gone = [key for key in line if key in dark]
            if gone and len(gone) < len(line):
                assert len(gone) >= 2
                assert sum(table[key] for key in gone) >= 10


@pytest.mark.parametrize(
    ("raw", "cell"),
    [
        (39.9, "age <40"),
        ("40", "age ≥40 to <60"),
        (59.5, "age ≥40 to <60"),
        (60, "age ≥60"),
        (0, "age <40"),
        (None, "age not given"),
        ("  ", "age not given"),
        ("old", "age not given"),
        ("nan", "age not given"),
        (float("inf"), "age not given"),
    ],
)
def test_a_limit_belongs_to_the_cell_above_it(raw: object, cell: str) -> None:
    assert Column("age", (40.0, 60.0)).value(raw) == cell


def test_a_column_without_limits_has_a_cell_for_each_value() -> None:
    sex = Column("sex")
    assert sex.value(2.50) == "sex=2.5"
    assert [sex.value(raw) for raw in (" F ", 0, "", None)] == [
        "sex=F",
        "sex=0",
        "sex not given",
        "sex not given",
    ]


def test_a_column_and_its_limits_as_text() -> None:
    assert parse_column("sex") == Column("sex")
    assert parse_column(" age =40,60.5") == Column("age", (40.0, 60.5))
    for wrong in ("=40", " ", "age=", "age=60,40", "age=40,40", "age=forty"):
        with pytest.raises(ValueError, match="neither a column nor a column with ascending limits"):
            parse_column(wrong)


@pytest.mark.parametrize(
    ("values", "categorical"),
    [
        ([f"hospital {i}" for i in range(20)], True),
        ([f"hospital {i}" for i in range(21)], False),
        ([1, 2.5, -3, "4", "5.25"], True),
        ([1, 2, 3, 4, 5, 6], False),  # numbers divide at limits instead
        ([1, 2, 3, 4, 5, "6 or more"], True),
        (["F", "M", None, " "], True),
        (["F", "F", None], False),
        ([None, ""], False),
    ],
)
def test_columns_that_divide_the_items_by_default(values: list[object], categorical: bool) -> None:
    assert is_categorical(values) is categorical


def test_attributes_of_the_items() -> None:
    rows = [
        {"id": "0", "texts": ["one", "un"], "language": "en", "meta": {"sex": "F", "boxes": [1]}},
        {"id": "1", "texts": ["eins"], "language": "de", "meta": {"age": 70, "unknown_labels": ["x"]}},
        {"id": "2", "meta": {}},
    ]
    assert item_attributes(items(rows)) == {
        "age": [None, 70, None],
        "sex": ["F", None, None],
        "language": ["en", "de", None],
    }
    one_language = [{**row, "language": "en"} for row in rows]
    assert "language" not in item_attributes(items(one_language))


def test_cells_hold_positions_among_the_rows() -> None:
    values = {"sex": ["F", "M", "F", None], "age": [30, 50, 70, 70]}
    found = split_into_cells([Column("sex"), Column("age", (60.0,))], values, np.array([3, 2, 0]))
    assert {key: rows.tolist() for key, rows in found.items()} == {
        ("sex=F", "age <60"): [2],
        ("sex=F", "age ≥60"): [1],
        ("sex not given", "age ≥60"): [0],
    }


def test_a_cell_that_others_would_give_away_is_suppressed_too() -> None:
    """In each line of a 2 × 2 table a small cell needs a second one, of the fewest groups, in both directions."""
    counts = {("F", "old"): 3, ("F", "young"): 40, ("M", "old"): 30, ("M", "young"): 50}
    assert suppressed_cells(counts, 10) == set(counts)
    row: dict[tuple[str, ...], int] = {("a",): 9, ("b",): 30, ("c",): 20}
    assert suppressed_cells(row, 10) == {("a",), ("c",)}
    assert suppressed_cells({("a",): 10, ("b",): 30}, 10) == set()  # ten are enough
    assert suppressed_cells({("a",): 1}, 10) == {("a",)}  # nothing else to suppress
    assert suppressed_cells({("a",): 30, ("b",): 40}, 10, start=[("a",)]) == {("a",), ("b",)}
    together: dict[tuple[str, ...], int] = {("a",): 4, ("b",): 6, ("c",): 30}
    assert suppressed_cells(together, 10) == {("a",), ("b",)}  # ten groups together
    assert suppressed_cells({("a",): 4, ("b",): 5, ("c",): 30}, 10) == {("a",), ("b",), ("c",)}
    assert suppressed_cells({}, 10) == set()


def test_reasons_why_a_column_shows_nothing() -> None:
    age = Column("age", (40.0,))
    values = ["65Y", None, " ", "70", "unknown"]
    assert (count_no_numbers(age, values), count_no_numbers(Column("age"), values)) == (2, 0)
    assert reason_not_shown(age, values) == ""  # one of them is a number
    assert reason_not_shown(age, ["65Y", None, " "]) == "no number in 1 of 3"
    assert reason_not_shown(age, [None, " "]) == reason_not_shown(Column("sex"), [None]) == "no value"
    assert reason_not_shown(Column("sex"), ["F", None]) == ""


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["F", "M", None], ""),
        ([None, " "], "no value"),
        (["F", "F", None], "one value"),
        ([1, 2, 3, 4, 5, 6], "6 distinct numbers: give limits, as in by=[NAME=40,60]"),
        ([*range(20), "old", None], "21 distinct values"),
    ],
)
def test_reasons_why_a_column_is_not_categorical(values: list[object], reason: str) -> None:
    assert reason_not_categorical(values) == reason
