"""What identifies a person in a report, as people write it, and what looks alike and does not."""

from __future__ import annotations

import pytest

from domainclip.data.text.identifiers import KnownValues, find_identifiers, redact

KNOWN = KnownValues(names=("Smith", "Long", "O'Neill"), numbers=("ID4711", "ACC-99"), dates=((1956, 3, 12),))


def _kinds(text: str, known: KnownValues | None = None) -> list[str]:
    found = find_identifiers(text, known) if known else find_identifiers(text)
    return [identifier.kind for identifier in found]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Mrs. Smith, follow-up", "name"),
        ("Discussed with Dr. Maria Rossi.", "name"),
        ("Frau Müller-Lüdenscheidt, Verlaufskontrolle", "name"),
        ("Name: John Smith", "name"),
        ("Patient: SMITH^JOHN", "name"),
        ("Electronically signed by: Jane Doe", "name"),
        ("DOB: 03/12/1956", "date of birth"),
        ("born on 12 March 1956", "date of birth"),
        ("geb. am 12.3.56", "date of birth"),
        ("née le 12 mars 1956", "date of birth"),
        ("Date of birth 19560312", "date of birth"),
        ("MRN 0012345", "record number"),
        ("Patient ID: AB-12345", "record number"),
        ("accession no. 20190012", "record number"),
        ("PatientID=AB12345", "record number"),
        ("study 1.2.826.0.1.3680043.8.498.99.4", "DICOM UID"),
        ("2.25.329800735698586629295641978511506172918", "DICOM UID"),
        ("MRNAB12345", "record number"),
        ("Fallnummer: 884211", "record number"),
        ("Tel. 044 123 45 67", "telephone number"),
        ("call +41 44 123 45 67", "telephone number"),
        ("j.smith@hospital.org", "e-mail address"),
        ("SSN 123-45-6789", "national number"),
        ("756.1234.5678.97", "national number"),
        ("a 93-year-old woman", "age above 89"),
        ("compared with 12.03.2019", "date"),
        ("CT of March 4th, 2020 shows", "date"),
        ("prior study 2019-12-31", "date"),
    ],
)
def test_forms_that_identify(text: str, kind: str) -> None:
    assert _kinds(text) == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "No focal consolidation. Heart size is normal. Stable since 2018.",
        "5 mm nodule in the right upper lobe, 3.5 x 2.1 cm mass, T12 fracture.",
        "Patient: supine. AP view, L4-5 disc, SpO2 93 percent, 45-year-old man.",
        "[**Name**] with [**2019**] prior; XXXX was notified at XXXX.",
        "NGC 1300, exposure 1.5 h, RA 03:19:41, dec -19 24 40.9, z = 0.0052",
        "a portrait of a man by Vincent van Gogh, 1889",
        "RGB 255 128 64; scale 1:100 000",
        "das patientenbezogene Verfahren, case series of 12 images",
        "google/siglip2-base-patch16-224",
        "syntax 1.2.840.10008.1.2.4.90, version 1.2.3.4.5, row 1.2",
    ],
)
def test_what_only_looks_alike(text: str) -> None:
    assert _kinds(text) == []


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("SMITH was seen", ["name"]),
        ("Smith's film", ["name"]),
        ("seen by Long today", ["name"]),
        ("a long bone, smithereens", []),  # the adjective, and another word
        ("case id4711", ["record number"]),
        ("ID47110", []),
        ("acc-99 again", ["record number"]),
        ("12.03.1956", ["date of birth"]),
        ("3/12/56", ["date of birth"]),
        ("19560312", ["date of birth"]),
        ("1956", []),
    ],
)
def test_values_of_the_header(text: str, kinds: list[str]) -> None:
    assert _kinds(text, KNOWN) == kinds


def test_values_of_another_person_are_not_known() -> None:
    assert _kinds("Smith ID4711 normal heart") == []


def test_a_text_is_redacted_by_kind() -> None:
    text = "Mr. Smith, DOB 12.03.1956, MRN 4455667: normal heart."
    found = find_identifiers(text, KNOWN)
    assert redact(text, found) == "Mr. [name], DOB [date of birth], [record number]: normal heart."
    assert _kinds(redact(text, found), KNOWN) == []


def test_a_name_ends_where_another_part_begins() -> None:
    text = "Mr. Planted, DOB 1.2.1950"
    parts = [(i.kind, text[i.start : i.end]) for i in find_identifiers(text)]
    assert parts == [("name", "Mr. Planted"), ("date of birth", "DOB 1.2.1950")]


def test_parts_do_not_overlap() -> None:
    found = find_identifiers("Name: John Smith born on 12.03.1956 MRN 12345 j@smith.org", KNOWN)
    ends = [0, *(identifier.end for identifier in found)]
    assert all(end <= identifier.start for end, identifier in zip(ends, found, strict=False))
