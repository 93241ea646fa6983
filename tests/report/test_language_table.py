"""Languages by direction as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainclip.evaluation.verdicts import ComparisonRow
from domainclip.report.language_table import language_tables
from tests.report.made_results import context, evaluation, row
from tests.report.test_writer import written

BEHIND = (-0.25, -0.4, -0.1)


def rows(adapted: bool) -> list[ComparisonRow]:
    """German and English; the base, or base and adapted model."""

    def made(metric: str, **facts: Any) -> ComparisonRow:
        facts = {"probe": "multilingual", "verdict": None, **facts}
        return row(metric=metric, **(facts if adapted else {**facts, "adapted": None}))

    gap = {"unit": "difference", "base": BEHIND, "adapted": (0.0, -0.1, 0.1), "comparable": False}
    return [
        *(made(f"image_to_text_r1/{language}") for language in ("de", "en")),
        *(
            made(f"text_to_image_r1/{language}", n=20 if language == "de" else 30)
            for language in ("de", "en")
        ),
        made("image_to_text_minus_english/de", **gap),
        made("mean_r1"),
    ]


def test_languages_are_rows_and_directions_columns(tmp_path: Path) -> None:
    (table,) = language_tables(rows(adapted=True))
    assert table.title == "R@1 by language and direction on test"
    assert table.rows == [
        ["en", "30", "0.079 → 0.554", "–", "0.079 → 0.554", "–"],
        ["de", "20", "0.079 → 0.554", "−0.250 → 0.000 (−0.100 to +0.100)", "0.079 → 0.554", "–"],
    ]
    (alone,) = language_tables(rows(adapted=False))
    assert alone.rows[1] == ["de", "20", "0.079", "−0.250 (−0.400 to −0.100)", "0.079", "–"]
    assert language_tables([row()]) == []
    texts = written(tmp_path, evaluation([row(), *rows(adapted=True)]), context())
    assert "R@1 by language and direction on test" in texts["html"]
    assert (
        "| de | 20 | 0.079 → 0.554 | −0.250 → 0.000 (−0.100 to +0.100) | 0.079 → 0.554 | – |" in texts["md"]
    )
