from __future__ import annotations

import pytest

from domainclip.data.text.captions import fill_template, normalise, template_columns

XRAY = "chest x-ray, {label}. {text}"
ART = "{title}, a {style} painting by {artist}"


@pytest.mark.parametrize(
    ("template", "values", "expected"),
    [
        (
            XRAY,
            {"label": "COVID-19", "text": "Opacities, both sides."},
            "chest x-ray, COVID-19. Opacities, both sides.",
        ),
        (XRAY, {"label": "COVID-19", "text": ""}, "chest x-ray, COVID-19."),
        (XRAY, {"label": "COVID-19", "text": " covid-19 "}, "chest x-ray, COVID-19."),
        (XRAY, {"label": "", "text": "Clear lungs"}, "chest x-ray. Clear lungs"),
        (XRAY, {"label": "Pneumonia.", "text": "Note"}, "chest x-ray, Pneumonia. Note"),
        (XRAY, {"label": "", "text": ""}, ""),
        (XRAY, {}, ""),
        ("{label}. {text}", {"label": "star", "text": ""}, "star."),
        ("{label}. {text}", {"label": "", "text": "A disc."}, "A disc."),
        (
            ART,
            {"title": "The Sea", "style": "Cubism", "artist": "A. B."},
            "The Sea, a Cubism painting by A. B.",
        ),
        (ART, {"title": "", "style": "Cubism", "artist": "A"}, "a Cubism painting by A"),
        (ART, {"title": "The Sea", "style": "Cubism", "artist": ""}, "The Sea"),
        ("{findings} {impression}", {"findings": "No effusion.", "impression": ""}, "No effusion."),
        ("{findings} {impression}", {"findings": "", "impression": "Normal."}, "Normal."),
        ("{a} {b}", {"a": "One.", "b": "Two."}, "One. Two."),
        ("X: {a}.", {"a": "b"}, "X: b."),
        ("X: {a}.", {"a": "b!"}, "X: b!"),
        ("{a}; seen in {b}, {c}", {"a": "1", "b": "", "c": "3"}, "1, 3"),
        ("a photo of {odd name}", {"odd name": "x"}, "a photo of x"),
    ],
)
def test_what_is_empty_drops_out(template: str, values: dict[str, str], expected: str) -> None:
    assert fill_template(template, values) == expected


def test_values_are_never_read_as_a_template() -> None:
    assert fill_template("{a}, {b}", {"a": "{b}", "b": "x, . ; y"}) == "{b}, x, . ; y"


def test_columns_of_a_template() -> None:
    assert template_columns("{a} of {b}, {a}") == ["a", "b"]


def test_normalised_texts_agree_on_form_case_and_space() -> None:
    assert normalise("Cafe\u0301  au\nLAIT ") == normalise("café au lait")
    assert normalise("STRASSE") == normalise("straße")
