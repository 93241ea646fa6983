"""The page of held-out sources: which sources have an AUROC, and its figures, worked by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import leave_one_source_out as page


def _table(tmp_path: Path) -> Path:
    rows = [f"B,COVID-19,b{i}" for i in range(12)] + [f"B,No Finding,n{i}" for i in range(10)]
    rows += [f"A,COVID-19,a{i}" for i in range(30)] + [f"A,Pneumonia,p{i}" for i in range(9)]
    file = tmp_path / "metadata.csv"
    file.write_text("source_repo,label,group_id\n" + "\n".join(rows))
    return file


def test_findings_with_enough_patients_with_and_without(tmp_path: Path) -> None:
    first, second = page.read_sources(_table(tmp_path))
    assert (first.place, first.findings) == (1, [])  # nine patients without COVID-19 are too few
    assert (second.place, second.findings) == (2, ["COVID-19", "Pneumonia", "No Finding"])  # COVID-19 is one
    assert second.summary == "12 COVID-19, 10 No Finding"


def test_the_mean_over_sources_by_hand() -> None:
    """Halves of 0.196 and 0.0 by 1.96: errors 0.1 and 0; their mean has 0.1 / 2 = 0.05, z = 0.1 / 0.05 = 2."""
    rows = [page.Row(0.5, 0.7, 0.2, 0.004, 0.396, 0.05), page.Row(0.6, 0.6, 0.0, 0.0, 0.0, 1.0)]
    mean = page.mean_row(rows)
    assert (mean.base, mean.adapted, mean.difference) == pytest.approx((0.55, 0.65, 0.1))
    assert (mean.low, mean.high) == pytest.approx((0.1 - 0.098, 0.1 + 0.098))
    assert mean.p == pytest.approx(0.0455, abs=1e-4)
    assert mean.cell() == "**0.650** (+0.100; +0.002 to +0.198; p 0.046)"


def test_a_page_has_what_is_measured_and_names_what_is_not(tmp_path: Path) -> None:
    sources = page.read_sources(_table(tmp_path))
    bare = page.page(sources, {})
    assert "| 1 | 30 COVID-19, 9 Pneumonia | not measurable |" in bare
    for seed, value in ((0, 0.6), (1, 0.8)):
        folder = page.folder_of(tmp_path, 2, "within source", seed)
        folder.mkdir(parents=True)
        low, high = value - 0.6, value - 0.4
        difference = {"value": value - 0.5, "low": low, "high": high, "p": 0.01 + 0.01 * seed}
        row = {"probe": "sources", "dataset": "test", "metric": "auroc_within_sources"}
        measured = row | {"base": {"value": 0.5}, "adapted": {"value": value}, "difference": difference}
        (folder / "results.json").write_text(json.dumps({"results": [measured]}))
    # Of two seeds, p is that of the mean interval: 0.2 is 3.92 of its standard errors.
    cell = "**0.700** (+0.200; +0.100 to +0.300; p < 0.001)"
    mean = "**0.700** (+0.200; +0.100 to +0.300; p < 0.001)"
    figures = page.measured_here(sources, tmp_path)
    lines = page.page(sources, figures).splitlines()
    assert f"| within source | {cell} | {mean} | not measured |" in lines
    assert "| plain | not measured | not measured | not measured |" in lines
    assert "| base | 0.500 | 0.500 | |" in lines
    # Another machine has none of these runs: the figures are those of the table, until as many seeds replace them.
    page.write_figures(tmp_path / "figures.csv", figures)
    earlier = page.read_figures(tmp_path / "figures.csv")
    assert page.page(sources, earlier).splitlines() == lines
    (cell,) = earlier.values()
    fewer = {(2, "within source"): replace(cell, seeds=(0,)), (2, "plain"): cell}
    assert page.updated(earlier, fewer) == earlier | {(2, "plain"): cell}
    assert page.updated(earlier, {(2, "within source"): replace(cell, seeds=(5, 6))}) != earlier


def test_every_command_is_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """All variants pass the checks of `validate`."""
    from domainclip import components
    from domainclip.config import loading
    from domainclip.data.cards import load_card

    for variant in page.VARIANTS:
        command = page.command_of(2, variant, 1)
        overrides = command[command.index("--run-dir") + 2 :]
        recipe = loading.load_recipe("medical_xray", overrides)
        components.build_components(recipe)
        card = load_card(recipe.corpus.card, recipe.corpus.overrides())
        assert (card.splits.by, card.splits.test_source) == ("source", 2)
        assert list(card.classes) == list(page.FINDINGS)
