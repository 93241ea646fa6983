"""Attributes as numbers and codes, by their VR."""

from __future__ import annotations

import pytest

from domainclip.data.checks.structure import unusable_attributes
from domainclip.data.corpus import load_corpus
from domainclip.data.dicom.typed_values import parse_value, type_of, typed_value
from tests.data.made_corpora import card, table


@pytest.mark.parametrize(
    ("text", "vr", "number"),
    [
        ("065Y", "AS", 65),
        ("012M", "AS", 1),
        ("003W", "AS", 0.0575),
        ("010D", "AS", 0.0274),
        ("65", "AS", 65),
        ("065X", "AS", None),
        ("20200101", "DA", 2020),
        ("2020-07-02", "DA", 2020.5),
        ("20200631", "DA", None),
        ("20200101120000.5+0100", "DT", 2020),
        ("123000", "TM", 12.5),
        ("12:30", "TM", 12.5),
        ("1,5", "DS", 1.5),
        (" 7 ".strip(), "IS", 7),
        ("NaN", "DS", None),
    ],
)
def test_a_number_by_its_vr(text: str, vr: str, number: float | None) -> None:
    assert parse_value(text, vr) == number


def test_the_type_is_that_of_the_keyword_or_of_the_form() -> None:
    assert [type_of(name, ()) for name in ("PatientAge", "PatientSex", "StudyDate", "site")] == [
        "AS",
        "CS",
        "DA",
        "",
    ]
    assert type_of("age", ["065Y", "", None, "030Y", "x"]) == "AS"
    assert type_of("age", ["065Y", "x", "y"]) == ""
    assert [typed_value(value, "CS", "PatientSex") for value in ("m ", "Female", "")] == ["M", "F", None]
    assert typed_value("1.5\\2", "DS") == 1.5
    assert typed_value("Ward 3", "LO") == "Ward 3"


def test_the_check_counts_ages_that_are_none(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    ages = ["065Y", "old", "", "012M"]
    rows = [
        {"file_name": f"{i}.png", "text": f"caption {i}", "PatientAge": age} for i, age in enumerate(ages)
    ]
    table(folder, rows)
    corpus = load_corpus(card(columns={"meta": ["PatientAge"]}), str(folder))
    assert [finding.text for finding in unusable_attributes(corpus)] == [
        "corpus.columns.meta: PatientAge is no age in 1 of 4 items: subgroups do not show them"
    ]
