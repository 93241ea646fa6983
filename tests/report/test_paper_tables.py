from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from domainclip.evaluation.verdicts import NO_VERDICT
from domainclip.report import paper_tables
from domainclip.report.writer import write
from tests.report.made_results import ALIKE, ALONE, GAIN, LOSS, PART, context, evaluation, row

HOSTILE = r"\input{/etc/passwd} $x^2$ 50% a_b & c # ~ {d} | [e] *f* -- \\[1ex] `g` <h> \end{tabular}"


def test_the_headline_metrics_in_markdown() -> None:
    table = paper_tables.headline([GAIN, ALIKE, PART, LOSS], "patients", "Ten styles.")
    assert paper_tables.markdown(table) == (
        "| Metric | Set | Base | Adapted | Difference (95 % interval) | p | Items | Patients |\n"
        "|---|---|--:|--:|--:|--:|--:|--:|\n"
        "| zero-shot macro accuracy | test | 0.079 | 0.554 | +0.475 (+0.420 to +0.530) | 0.001 | 8 | 8 |\n"
        "| retrieval image-to-text R@1 | test | 0.023 | 0.026 | +0.003 (−0.010 to +0.016) | 0.640 | 8 | 8 |\n"
        "| zero-shot macro accuracy | general | 0.498 | 0.058 | −0.440 (−0.470 to −0.410) | 0.001 | 8 | 8 |\n"
        "\nTen styles.\n"
    )


def test_the_same_in_latex() -> None:
    text = paper_tables.latex(paper_tables.headline([LOSS], "works", "Ten styles, 50 %."))
    assert text.splitlines()[3:9] == [
        r"\caption{Ten styles, 50 \%.}",
        r"\begin{tabular}{llrrrrrr}",
        r"\toprule",
        r"Metric & Set & Base & Adapted & Difference (95 \% interval) & p & Items & Works \\",
        r"\midrule",
        r"zero-shot macro accuracy & general & 0.498 & 0.058 & $-$0.440 ($-$0.470 to $-$0.410) & 0.001 & 8 & 8 \\",
    ]


def test_a_single_model_has_no_difference_and_what_is_not_judged_no_p() -> None:
    assert paper_tables.headline([ALONE], "groups", "").rows == [
        ["zero-shot macro accuracy", "test", "0.079 (0.050 to 0.110)", "8", "8"]
    ]
    fault = replace(GAIN, control_fault="a control failed", verdict=NO_VERDICT)
    adjusted = replace(GAIN, adjusted_p=0.0004, comparisons=3)
    rows = paper_tables.headline([fault, adjusted], "groups", "").rows
    assert [line[5] for line in rows] == ["–", "< 0.001"]


def test_several_models_are_columns() -> None:
    table = paper_tables.several({"a": [GAIN], "b": [GAIN]}, "base", "")
    assert table.head == ["Metric", "Set", "base", "a", "b"]
    assert table.rows == [
        ["zero-shot macro accuracy", "test", *["0.079 (0.050 to 0.110)"], *["0.554 (0.500 to 0.610)"] * 2]
    ]


@pytest.mark.parametrize("text", [HOSTILE, "\\", "*", "[1cm]", "%", "a--b", "\u202eb", "x\ny"])
def test_no_name_is_a_command_of_latex(text: str) -> None:
    table = paper_tables.headline([row(dataset=text)], text, text)
    lines = paper_tables.latex(table).splitlines()
    assert len(lines) == 12
    known = r"\\(?:textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|textasciigrave|[{}$&#%_])"
    for line in (lines[3].removeprefix(r"\caption{").removesuffix("}"), lines[6][:-3], lines[8][:-3]):
        rest = re.sub(known, "", line).replace("$-$", "")
        assert not re.search(r"[\\$%#^~_*]|--|(?<!\{)[\[\]]", rest.replace("{*}", "")), rest
        assert rest.count("{") == rest.count("}")
    # As many columns as the head, whatever is in a cell.
    assert {len(re.findall(r"(?<!\\)&", line)) for line in (lines[6], lines[8])} == {7}


def test_both_files_stand_beside_the_report_and_in_it(tmp_path: Path) -> None:
    write(tmp_path, evaluation([replace(GAIN, dataset="<b>test")]), context())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in ("table.md", "table.tex"):
        assert (tmp_path / name).read_text(encoding="utf-8")
        assert f'download="{name}"' in page
    assert r"\toprule" in page
    assert "<b>test" not in page
