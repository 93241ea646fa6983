from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from domainclip import registry
from domainclip.config.builtin import builtin_folder
from domainclip.data.cards import Card, Privacy, Prompts, Retention, Splits, corpus_root, load_card
from domainclip.data.files.column_roles import Columns
from domainclip.data.images.fits_settings import FitsSettings
from domainclip.data.text.captions import Captions
from domainclip.errors import ExitCode, RecipeError

SHIPPED = sorted(file.stem for file in builtin_folder("data_cards").glob("*.md"))


def _card(tmp_path: Path, front: str, prose: str = "# Prose") -> str:
    file = tmp_path / "my_card.md"
    file.write_text(f"---\n{front}\n---\n\n{prose}\n", encoding="utf-8")
    return str(file)


def test_reads_front_matter_and_prose(tmp_path: Path) -> None:
    front = "pretty_name: Mine\nlicense: mit\nlanguage: en\ntags: [x]\ndomainclip:\n  columns: {texts: note}"
    card = load_card(_card(tmp_path, front))
    assert (card.name, card.pretty_name, card.license, card.language) == ("my_card", "Mine", "mit", ["en"])
    assert card.columns.texts == ["note"]
    assert card.description == "# Prose"
    assert card.reader == "table"


def test_a_card_from_another_system_is_read_alike(tmp_path: Path) -> None:
    file = Path(_card(tmp_path, "domainclip: {reader: folder}"))
    text = file.read_text(encoding="utf-8")
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load_card(str(file)).reader == "folder"


def test_overrides_reach_into_the_card(tmp_path: Path) -> None:
    name = _card(tmp_path, "domainclip:\n  columns: {image: a, group: g}\n  max_unusable: 0.5")
    card = load_card(name, {"columns": {"image": "b"}, "max_unusable": 0.25})
    assert (card.columns.image, card.columns.group, card.max_unusable) == ("b", "g", 0.25)


def test_without_a_card_all_is_guessed() -> None:
    assert load_card(None, {"columns": {"image": "x"}}).columns.image == "x"
    assert load_card("") == Card()


@pytest.mark.parametrize(
    ("front", "message"),
    [
        ("domainclip: {colums: {}}", 'my_card.md: colums: unknown key: did you mean "columns"?'),
        ("domainclip: {columns: {imge: x}}", 'my_card.md: columns.imge: unknown key: did you mean "image"?'),
        (
            "domainclip: {classes: {cat: {positiv: [x]}}}",
            "my_card.md: classes.cat.positive: field required (and 1 more)",
        ),
        (
            "domainclip: {max_unusable: much}",
            "my_card.md: max_unusable: input should be a valid number, unable to parse string as a number, "
            "got 'much'",
        ),
        (
            "domainclip: {splits: {train: 0.5}}",
            "my_card.md: splits: train, validation and test must add up to 1, not 0.7",
        ),
        (
            "domainclip: {captions: {template: a photo}}",
            'my_card.md: captions.template: write each column in braces, as in "{style} painting, {text}"',
        ),
        (
            "domainclip: {templates: [a photo]}",
            'my_card.md: templates: "a photo" must hold {} once, where the name of the class goes',
        ),
        ("license: mit", 'my_card.md: no mapping under "domainclip": see docs/guide/data.md for its keys'),
        ("just text", "my_card.md: the front matter is not a mapping: write keys and values"),
    ],
)
def test_a_wrong_card_names_file_key_and_way_out(tmp_path: Path, front: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_card(_card(tmp_path, front))
    assert str(caught.value) == message
    assert caught.value.code == ExitCode.USAGE


def test_text_without_front_matter_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plain.md"
    file.write_text("# Only prose", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_card(str(file))
    assert str(caught.value) == "plain.md: no front matter: begin the card with YAML between two lines of ---"
    file.write_bytes(b"---\nname: \xff\n---\n")
    with pytest.raises(RecipeError) as caught:
        load_card(str(file))
    assert str(caught.value) == "plain.md: not UTF-8 text, at byte 10"


def test_an_unknown_name_suggests_one_that_ships() -> None:
    with pytest.raises(RecipeError) as caught:
        load_card("astronom")
    assert str(caught.value) == 'data_cards: no file or built-in name "astronom": did you mean "astronomy"?'


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_card_loads_and_explains_itself(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert card.pretty_name
    assert len(card.description.split()) > 60


def test_cards_ship() -> None:
    assert {"art_paintings", "astronomy", "general", "medical_xray", "multilingual"} <= set(SHIPPED)


@pytest.mark.parametrize(
    ("short", "positive"), [("a cat", ["a cat"]), (["a cat", "one cat"], ["a cat", "one cat"])]
)
def test_short_prompts(short: Any, positive: list[str]) -> None:
    assert Card.model_validate({"classes": {"cat": short}}).classes["cat"].positive == positive


def test_the_root_of_a_table_is_its_folder(tmp_path: Path) -> None:
    assert corpus_root(tmp_path / "metadata.csv") == tmp_path
    assert corpus_root(str(tmp_path)) == tmp_path


def test_every_key_of_a_card_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guide" / "data.md").read_text(encoding="utf-8")
    models: list[type[BaseModel]] = [
        Card,
        Columns,
        Splits,
        Captions,
        Prompts,
        Retention,
        Privacy,
        FitsSettings,
    ]
    keys = {key for model in models for key in model.model_fields} - {"description", "name"}
    assert len(keys) > 30
    assert sorted(key for key in keys if f"`{key}`" not in text) == []


def test_every_option_of_a_reader_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guide" / "data.md").read_text(encoding="utf-8")
    readers = registry.names("readers")
    assert {"dicom", "folder", "hub", "table"} <= set(readers)
    for reader in readers:
        for option in dataclasses.fields(registry.find("readers", reader)):
            assert f"`{option.name}`" in text, f"{reader}.{option.name}"


def test_an_unknown_key_is_compared_with_path_and_card_too() -> None:
    with pytest.raises(RecipeError, match=r'^corpus\.pth: unknown key: did you mean "path"\?$'):
        load_card("chest_phantom", {"pth": "x"})


def test_a_row_that_is_a_query_is_not_merged_with_others() -> None:
    with pytest.raises(ValidationError, match=r"columns\.change: each row is a query: set captions"):
        Card.model_validate({"columns": {"change": "c"}, "captions": {"merge_captions": True}})
