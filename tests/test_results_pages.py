"""The pages of results agree with themselves, and with each other for the same model and items."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parent.parent / "docs" / "results"
NUMBER = r"[-+]?\d+\.\d{3}"
CELL = re.compile(rf"\*\*({NUMBER})\*\* \(({NUMBER}); (?:({NUMBER}) to ({NUMBER})|no interval)\)")


def _results() -> dict[tuple[str, str], tuple[float, list[tuple[float, ...]]]]:
    """By section and metric: the base, and value, difference and bounds of each variant with an interval."""
    section, rows = "", {}
    for line in (PAGES / "results.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and CELL.search(line):
            base = next(cell for cell in cells if re.fullmatch(NUMBER, cell))
            name = " ".join(cells[: cells.index(base)])
            found = [tuple(map(float, match.groups())) for match in CELL.finditer(line) if match[3]]
            rows[section, name] = (float(base), found)
    return rows


def _disagreements(base: float, variants: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """The variants whose difference is not the one of the values, or lies outside of its interval."""
    return [
        (value, difference, low, high)
        for value, difference, low, high in variants
        if abs(value - base - difference) > 0.0011 or not low <= difference <= high
    ]


def test_values_differences_and_intervals_of_results_agree() -> None:
    rows = _results()
    assert len(rows) > 12
    assert {row: wrong for row, (base, cells) in rows.items() if (wrong := _disagreements(base, cells))} == {}


def test_a_wrong_difference_is_noticed() -> None:
    assert _disagreements(0.1, [(0.3, 0.2, 0.1, 0.3)]) == []
    assert _disagreements(0.1, [(0.3, 0.1, 0.05, 0.3)]) != []
    assert _disagreements(0.1, [(0.3, 0.2, 0.21, 0.3)]) != []


@pytest.mark.parametrize("recipe", ["medical_xray", "art_paintings"])
def test_the_base_of_an_ablation_is_that_of_the_results(recipe: str) -> None:
    """A plan's final table measures the same base on the same items; one without tables has no figures."""
    page = (PAGES / "ablations.md").read_text(encoding="utf-8")
    section = re.split(r"^### ", page, flags=re.MULTILINE)
    (plan,) = [part for part in section if part.startswith(recipe.replace("_", " ") + "\n")]
    if "Not measured yet" in plan:
        assert re.findall(NUMBER, plan) == []
        return
    known = {name: base for (of, name), (base, _) in _results().items() if of == recipe}
    final = plan[plan.index("Final") :]
    for name in ("accuracy", "macro accuracy"):
        row = re.search(rf"^\| zero-shot {name}[^|]*test[^|]*\| ({NUMBER})", final, re.MULTILINE)
        assert row is None or float(row[1]) == known[name]
