"""Roles of columns by name and content: worked by hand on small tables, with names that must not be taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domainclip.data.readers.guesses.caption_columns import language_of_texts
from domainclip.data.readers.guesses.domain import guess_domain
from domainclip.data.readers.guesses.image_column import find_image_column
from domainclip.data.readers.guesses.profiles import profile_columns
from domainclip.data.readers.guesses.roles import Roles, guess_roles
from tests.data.made_corpora import noise_image

SPLITS = ("train", "train", "val", "test")


def _roles(rows: list[dict[str, Any]], image: str = "file") -> Roles:
    return guess_roles(profile_columns(list(rows[0]), rows), rows, image, "t.csv")


def _values(roles: Roles) -> dict[str, Any]:
    return {guess.key: guess.value for guess in roles.guesses}


def test_roles_of_a_hospital_table() -> None:
    rows = [
        {
            "file": f"{i}.png",
            "Patient ID": f"P{i // 2}",
            "findings": f"Opacity number {i} in the left lung.",
            "impression": f"Pneumonia, case {i}.",
            "diagnosis": ("pneumonia", "normal")[i % 2],
            "set": SPLITS[i % 4],
            "hospital": ("north", "south")[i // 3 % 2],
            "ViewPosition": ("PA", "AP")[i % 2],
            "sex": "FM"[i % 2],
            "age": 20 + i,
            "license": "all rights reserved by the clinic",
        }
        for i in range(40)
    ]
    assert _values(_roles(rows)) == {
        "columns.split": "set",
        "columns.group": "Patient ID",
        "columns.texts": ["findings", "impression"],
        "columns.labels": "diagnosis",
        "columns.source": "hospital",
        "columns.acquisition": ["ViewPosition"],
        "columns.meta": ["sex", "age"],
    }
    # Reasons are counts: a cell may identify a person.
    assert not any("P1" in guess.reason or "Opacity" in guess.reason for guess in _roles(rows).guesses)


def test_ids_and_files_are_no_classes_and_labels_with_a_value_each_neither() -> None:
    rows = [
        {"file": f"{i}.png", "label": f"thing {i}", "object_type_id": i, "caption": f"a thing {i}"}
        for i in range(30)
    ]
    assert _values(_roles(rows)) == {"columns.texts": ["caption"], "columns.group": "object_type_id"}


def test_the_only_column_with_few_values_is_the_class_and_two_are_none() -> None:
    rows = [{"file": f"{i}.png", "Sorte": ("rot", "blau")[i % 2]} for i in range(20)]
    assert _values(_roles(rows)) == {"columns.labels": "Sorte"}
    assert _values(_roles([{**row, "Lager": ("a", "b")[i % 2]} for i, row in enumerate(rows)])) == {}
    # What a text is says nothing about the image.
    kinds = [{"file": f"{i}.png", "text_kind": ("note", "name")[i % 2]} for i in range(20)]
    assert _values(_roles(kinds)) == {}


def test_several_classes_in_a_cell_and_a_flag_for_each_class() -> None:
    cells = ["No Finding", "Effusion", "Effusion|Edema", "Edema|Mass", "Mass"]
    several = _roles([{"file": f"{i}.png", "Finding Labels": cells[i % 5]} for i in range(50)])
    assert _values(several) == {
        "columns.labels": "Finding Labels",
        "options.label_separator": "|",
        "multi_label": True,
    }
    assert several.classes.counts == {"No Finding": 10, "Effusion": 20, "Edema": 20, "Mass": 20}
    flags = _roles([{"file": f"{i}.png", "Edema": i % 2, "Mass": ("", "1", "-1")[i % 3]} for i in range(12)])
    assert _values(flags) == {"columns.labels": ["Edema", "Mass"], "multi_label": True}
    assert flags.classes.counts == {"Edema": 6, "Mass": 4}


def test_a_comma_in_a_title_separates_no_classes() -> None:
    titles = ["sea, at night", "sea", "town, in fog", "forest, in spring"]
    roles = _roles([{"file": f"{i}.png", "style": titles[i % 4]} for i in range(40)])
    assert _values(roles) == {"columns.labels": "style"}


def test_captions_in_several_languages_and_a_copy_of_one() -> None:
    rows = [
        {
            "file": f"{i}.png",
            "text": f"the dog number {i} is on the street",
            "text_en": f"the dog number {i} is on the street",
            "text_de": f"der Hund Nummer {i} ist auf der Straße",
            "text_zh_2": f"街上的狗{i}",
        }
        for i in range(20)
    ]
    assert _values(_roles(rows)) == {
        "columns.texts": ["text_en", "text_de", "text_zh_2"],
        "columns.languages": {"text_en": "en", "text_de": "de", "text_zh_2": "zh"},
    }
    # Few captions in another language are not worth a model that reads it.
    rows = [
        {**row, "text_zh_2": "", "text_de": row["text_de"] if i < 8 else ""} for i, row in enumerate(rows)
    ]
    assert _values(_roles(rows)) == {"columns.texts": ["text_en"]}


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (["Ein roter Stuhl und der Tisch in der Küche"], "de"),
        (["une chaise rouge dans la cuisine avec les enfants"], "fr"),
        (["стул на кухне и стол"], "ru"),
        (["chair"], "en"),
        ([], ""),
    ],
)
def test_the_language_of_captions(texts: list[str], language: str) -> None:
    assert language_of_texts(texts) == language


def test_the_truth_key_is_the_group_where_its_images_share_their_caption() -> None:
    rows = [
        {"file": f"{i}.png", "object_id": f"o{i // 2}", "caption": f"the object number {i // 2}"}
        for i in range(20)
    ]
    assert _values(_roles(rows))["columns.truth"] == "object_id"
    own = [{**row, "caption": f"the view {i} of it"} for i, row in enumerate(rows)]
    assert "columns.truth" not in _values(_roles(own))


def test_a_split_column_needs_a_split_in_every_row() -> None:
    rows = [{"file": f"{i}.png", "caption": f"the thing {i}", "split": SPLITS[i % 4]} for i in range(8)]
    assert _values(_roles(rows))["columns.split"] == "split"
    rows[3]["split"] = ""
    assert "columns.split" not in _values(_roles(rows))
    rows[3]["split"] = "fold 4"
    assert "columns.split" not in _values(_roles(rows))


def _image(root: Path, rows: list[dict[str, Any]]) -> tuple[str, str | None, int] | None:
    found = find_image_column(profile_columns(list(rows[0]), rows), root, "t.csv")
    return found and (found.name, found.folder, found.existing)


def test_the_image_column_names_files_beside_below_or_next_to_the_table(tmp_path: Path) -> None:
    for i in range(4):
        noise_image(tmp_path / "photos" / "small" / f"{i}.png", i)
    (tmp_path / "tables").mkdir()
    names = [{"Datei": f"{i}.png", "caption": f"photo {i}"} for i in range(4)]
    photos = tmp_path / "photos"
    assert _image(photos / "small", names) == ("Datei", str(photos / "small"), 4)
    assert _image(photos, names) == ("Datei", str(photos / "small"), 4)
    below = [{**row, "Datei": f"small\\{row['Datei']}"} for row in names]
    assert _image(tmp_path / "tables", below) == ("Datei", str(photos), 4)
    absolute = [{**row, "Datei": str(photos / "small" / row["Datei"])} for row in names]
    assert _image(tmp_path / "tables", absolute) == ("Datei", str(photos / "small"), 4)
    # Named as images are, but nowhere; and a table about something else.
    assert _image(tmp_path / "tables", [{"Datei": f"x{i}.png"} for i in range(4)]) == (
        "Datei",
        str(tmp_path / "tables"),
        0,
    )
    assert _image(tmp_path / "tables", [{"price": i, "name": f"chair {i}"} for i in range(4)]) is None


def test_cells_may_hold_the_images() -> None:
    rows = [{"x": {"bytes": b"\x89PNG", "path": None}, "image": "nothing"} for _ in range(3)]
    assert _image(Path("/nowhere"), rows) == ("x", None, 3)


def test_domains_by_columns_words_and_files() -> None:
    xray = guess_domain(["patient_id"], ["Chest radiograph with effusion."] * 3, ["pneumonia"], "")
    assert (xray.domain, xray.persons, xray.chest) == ("medical", True, True)
    skin = guess_domain(["lesion_id", "diagnosis"], [], ["melanoma", "nevus"], "")
    assert (skin.domain, skin.chest) == ("medical", False)
    assert guess_domain(["ra", "dec", "redshift"], [], ["spiral galaxy"], "").domain == "astronomy"
    assert guess_domain(["artist", "title"], ["an oil on canvas"], [], "").domain == "art"
    assert guess_domain(["file", "caption"], ["a dog on the street"], ["dog"], "") == guess_domain(
        [], [], [], ""
    )
    assert guess_domain([], [], [], "dicom").domain == "medical"
    # One word among many captions makes no domain.
    assert guess_domain([], ["the galaxy of stars", *["a dog"] * 30], [], "").domain == "general"
    assert guess_domain(["name", "email"], ["a portrait"], [], "").persons
