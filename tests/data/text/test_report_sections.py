"""Sections of reports in many styles of headings."""

from __future__ import annotations

import time

import pytest

from domainclip.data.text.report_sections import extract_sections

ASKED = {"findings": ["Befund", "Constatations", "Hallazgos"], "impression": ["Beurteilung", "conclusion"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "FINDINGS: Lungs clear. Heart: normal.\nIMPRESSION: Normal.",
            ["Lungs clear. Heart: normal.", "Normal."],
        ),
        ("EXAM: chest. FINDINGS: fine here. IMPRESSION: fine.", ["fine here.", "fine."]),
        ("## Findings\nclear\n\n**Impression:** good\n", ["clear", "good"]),
        ("**FINDINGS**\nclear\n[IMPRESSION]\ngood", ["clear", "good"]),
        ("Findings - clear\nImpression – good", ["clear", "good"]),
        ("1. FINDINGS: a\n2. IMPRESSION: b", ["a", "b"]),
        ("Befund:\nkein Erguss\nBeurteilung: normal", ["kein Erguss", "normal"]),
        ("Constatations : poumons clairs.\nConclusion : normal.", ["poumons clairs.", "normal."]),
        ("Hallazgos：pulmón claro. Conclusion: normal", ["pulmón claro.", "normal"]),
        ("Findings and Impression: all fine", ["all fine", "all fine"]),
        ("Findings/Impression: all fine", ["all fine", "all fine"]),
        # Others end a section, but subheadings and the word in a sentence do not.
        ("FINDINGS\na b\nLUNGS: c\nRECOMMENDATIONS: d", ["a b LUNGS: c", None]),
        ("HISTORY: old. IMPRESSION: new", [None, "new"]),
        ("FINDINGS: one.\nIMPRESSION: x\nADDENDUM: y\nFINDINGS: two.", ["one. two.", "x"]),
        ("The findings: none of note", [None, None]),
        ("IMPRESSION:", [None, None]),
        ("no headings at all", [None, None]),
        ("", [None, None]),
    ],
)
def test_headings(text: str, expected: list[str | None]) -> None:
    result = extract_sections(text, ASKED)
    assert [result.get("findings"), result.get("impression")] == expected
    assert list(result) == [name for name in ASKED if name in result]


def test_only_what_is_asked_for() -> None:
    assert extract_sections("FINDINGS: a\nIMPRESSION: b", {"impression": []}) == {"impression": "b"}
    assert extract_sections("Synthèse : x\nFINDINGS: y", {"summary of all": ["synthèse"]}) == {
        "summary of all": "x"
    }


def test_a_long_text_takes_no_long_time() -> None:
    began = time.monotonic()
    extract_sections("findings and " * 20_000 + "## " * 20_000 + "\n" * 20_000, ASKED)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("Findings: a\nConclusions: b", "a", "b"),
        ("FINDINGS: a\nSUMMARY: b", "a", "b"),
        ("Findings: a. Opinion: b", "a.", "b"),
        ("Befund: kein Erguss\nBeurteilung: normal\nEmpfehlung: keine", "kein Erguss", "normal"),
        ("Résultats : clair.\nConclusion : normal.", "clair.", "normal."),
        ("Re\u0301sultats : clair.\nSynthe\u0300se : normal.", "clair.", "normal."),  # decomposed accents
        ("Hallazgos: claro.\nImpresión diagnóstica: normal.", "claro.", "normal."),
        ("Reperti: chiaro.\nConclusioni: normale.", "chiaro.", "normale."),
        ("Achados: a\nImpressão: b", "a", "b"),
        ("Bevindingen: a\nConclusie: b", "a", "b"),
        ("Fynd: a\nBedömning: b", "a", "b"),
        ("Opis badania: a\nWnioski: b", "a", "b"),
        ("Nález: a\nZávěr: b", "a", "b"),
        ("ОПИСАНИЕ: a\nЗАКЛЮЧЕНИЕ: b", "a", "b"),
        ("Bulgular: a\nSonuç: b", "a", "b"),
        ("所見：a。 印象：b", "a。", "b"),
        ("影像所见：a\n诊断意见：b", "a", "b"),
        ("소견: a\n결론: b", "a", "b"),
        ("النتائج: a\nالانطباع: b", "a", "b"),
    ],
)
def test_synonyms_of_findings_and_impression(text: str, findings: str, impression: str) -> None:
    headings: dict[str, list[str]] = {"findings": [], "impression": []}
    assert extract_sections(text, headings) == {"findings": findings, "impression": impression}


def test_a_section_of_the_card_has_its_heading_for_itself() -> None:
    headings: dict[str, list[str]] = {"impression": [], "conclusions": [], "advice": ["Summary"]}
    text = "IMPRESSION: a\nCONCLUSIONS: b\nSUMMARY: c"
    assert extract_sections(text, headings) == {"impression": "a", "conclusions": "b", "advice": "c"}
