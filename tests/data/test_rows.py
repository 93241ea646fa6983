from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from datasets import Dataset

from domainclip.data import rows as rows_module
from domainclip.data.cards import Card
from domainclip.data.files.column_roles import Columns
from domainclip.data.quarantine import ReadLog, UnusableItem
from domainclip.data.row_captions import cell_text
from domainclip.data.rows import Item, SourceRow, standardise, to_dataset
from domainclip.data.schema import (
    ACQUISITION,
    CANDIDATES,
    CHANGE,
    COLUMNS,
    REFERENCE,
    SOURCE,
    WRITTEN,
    features,
)
from domainclip.errors import DataError
from tests.data.made_corpora import card


def _rows(*values: dict[str, Any], **options: Any) -> list[SourceRow]:
    return [
        SourceRow(row, f"row {i}", {"path": f"/root/{i}.png", "bytes": None}, f"{i}.png", **options)
        for i, row in enumerate(values, start=1)
    ]


def _standard(
    rows: list[SourceRow], columns: dict[str, Any], the_card: Card | None = None, separator: str | None = None
) -> tuple[list[dict[str, Any]], ReadLog]:
    log = ReadLog()
    plain = {"texts": [], "labels": "", "group": "", "split": "", "language": ""}
    splits = standardise(rows, Columns(**{**plain, **columns}), the_card or card(), log, separator)
    assert all(list(rows.features) == list(COLUMNS) for rows in splits.values())
    assert all(rows.features == features() for rows in splits.values())
    return [dict(row) for name in ("train", "validation", "test") for row in splits[name]], log


COLUMNS_T_L = {"texts": ["t"], "labels": "l"}
ALL_IN_TRAINING = card(splits={"train": 1, "validation": 0, "test": 0})
ALL_IN_TEST = card(splits={"train": 0, "validation": 0, "test": 1})


def test_one_row_becomes_the_standard_columns() -> None:
    values = {"t": " A disc. ", "l": "galaxy", "g": "M31", "s": "val", "age": 7, "secret": "x"}
    columns = {"texts": ["t"], "labels": "l", "group": "g", "split": "s", "meta": ["age"]}
    rows, log = _standard(_rows(values), columns, card(language=["en"]))
    assert rows == [
        {
            "id": "1.png",
            "image": {"path": "/root/1.png", "bytes": None},
            "views": [],
            "texts": ["A disc."],
            "language": ["en"],
            "labels": ["galaxy"],
            "group": "M31",
            "truth": "1.png",
            "meta": '{"age": "7"}',
        }
    ]
    assert log.locations == {"1.png": "row 1"}


def test_several_captions_in_several_languages() -> None:
    values = {"en": "a dog", "en2": "", "de": "ein Hund", "fr": ["un chien", "un chien", " "]}
    columns = {
        "texts": ["en", "en2", "de", "fr"],
        "languages": {"en": "en", "en2": "en", "de": "de", "fr": "fr"},
    }
    rows, _ = _standard(_rows(values), columns)
    assert rows[0]["texts"] == ["a dog", "ein Hund", "un chien"]
    assert rows[0]["language"] == ["en", "de", "fr"]


def test_a_column_says_the_language() -> None:
    rows, _ = _standard(_rows({"t": "ein Hund", "lang": "de"}), {"texts": ["t"], "language": "lang"})
    assert rows[0]["language"] == ["de"]
    rows, _ = _standard(_rows({"t": "x"}), {"texts": ["t"]}, card(language=["en", "de"]))
    assert rows[0]["language"] == [""]


def test_a_template_is_filled_for_each_caption() -> None:
    the_card = card(captions={"template": "x-ray, {label}. {text}"})
    rows, _ = _standard(
        _rows({"a": "One.", "b": "Two.", "l": "Mass"}, {"a": "", "b": "", "l": "Mass"}),
        {"texts": ["a", "b"], "labels": "l"},
        the_card,
    )
    assert [row["texts"] for row in rows] == [["x-ray, Mass. One.", "x-ray, Mass. Two."], ["x-ray, Mass."]]


def test_a_template_of_columns_is_filled_once() -> None:
    the_card = card(captions={"template": "{findings} {impression}"})
    rows, _ = _standard(
        _rows({"findings": "Clear.", "impression": "Normal."}),
        {"texts": ["findings", "impression"]},
        the_card,
    )
    assert rows[0]["texts"] == ["Clear. Normal."]


@pytest.mark.parametrize("empty", [None, "", "  ", "nan", "NaN", float("nan")])
def test_what_counts_as_empty(empty: object) -> None:
    assert cell_text(empty) == ""
    rows, log = _standard(_rows({"t": empty}, {"t": "x"}), {"texts": ["t"]}, ALL_IN_TRAINING)
    assert len(rows) == 1
    assert log.unusable == [UnusableItem("row 1", "empty caption", "/root/1.png")]


def test_a_class_without_caption_is_for_evaluation_only() -> None:
    values, columns = {"t": "", "l": "galaxy"}, {"texts": ["t"], "labels": "l"}
    rows, log = _standard(_rows(values), columns, ALL_IN_TEST)
    assert (rows[0]["texts"], rows[0]["labels"], log.unusable) == ([], ["galaxy"], [])
    rows, log = _standard(_rows(values), columns, ALL_IN_TRAINING)
    assert (rows, len(log.unusable)) == ([], 1)
    # With neither there is nothing to measure either.
    rows, log = _standard(_rows({"t": "", "l": ""}), columns, ALL_IN_TEST)
    assert (rows, len(log.unusable)) == ([], 1)


def test_several_classes_in_one_cell() -> None:
    rows, _ = _standard(
        _rows({"t": "x", "l": "Mass| Edema|Mass|"}), {"texts": ["t"], "labels": "l"}, separator="|"
    )
    assert rows[0]["labels"] == ["Mass", "Edema"]
    rows, _ = _standard(_rows({"t": "x", "l": ["Mass", "Edema"]}), {"texts": ["t"], "labels": "l"})
    assert rows[0]["labels"] == ["Mass", "Edema"]


def test_a_column_for_each_class() -> None:
    values = {"t": "x", "Mass": "1.0", "Edema": "-1", "Nodule": "", "Effusion": 0.0, "Cyst": True}
    columns = {"texts": ["t"], "labels": ["Mass", "Edema", "Nodule", "Effusion", "Cyst"]}
    rows, _ = _standard(_rows(values), columns)
    assert rows[0]["labels"] == ["Mass", "Cyst"]
    assert json.loads(rows[0]["meta"]) == {"unknown_labels": ["Edema"]}
    rows, _ = _standard(_rows(values), columns | {"blank_labels": "unknown"})
    assert rows[0]["labels"] == ["Mass", "Cyst"]
    assert json.loads(rows[0]["meta"]) == {"unknown_labels": ["Edema", "Nodule"]}


IMPLIED = {"Covid": ["Viral"], "Viral": ["Pneumonia"], "Sars": ["Viral"]}


def test_implied_classes_are_those_of_an_item_with_several_classes() -> None:
    """At any distance, each once; one that the row marks as unknown follows all the same."""
    values = {"t": "x", "Covid": "1", "Pneumonia": "-1", "Mass": "-1"}
    columns = {"texts": ["t"], "labels": ["Covid", "Pneumonia", "Mass"]}
    rows, log = _standard(_rows(values), columns, card(multi_label=True, implied_classes=IMPLIED))
    assert rows[0]["labels"] == ["Covid", "Viral", "Pneumonia"]
    assert json.loads(rows[0]["meta"]) == {"unknown_labels": ["Mass"]}
    assert log.notes == ['corpus.implied_classes: no item has the class "Sars": check its spelling']


def test_implied_classes_stand_beside_the_class_of_an_item_with_one() -> None:
    the_card = card(implied_classes={**IMPLIED, "Pneumonia": ["Covid"]})  # a circle ends
    rows, _ = _standard(_rows({"t": "x", "l": "Covid"}, {"t": "x", "l": "Mass"}), COLUMNS_T_L, the_card)
    assert [row["labels"] for row in rows] == [["Covid"], ["Mass"]]
    assert [json.loads(row["meta"]) for row in rows] == [{"implied_labels": ["Viral", "Pneumonia"]}, {}]


def test_classes_of_merged_rows_are_neither_unknown_nor_implied() -> None:
    """One image in two rows: what one row states, and what follows from it, the other does not take back."""
    values = [{"t": "x", "Covid": "1", "Mass": "-1"}, {"t": "y", "Covid": "-1", "Mass": "1"}]
    rows = [replace(row, image={"path": "/root/1.png", "bytes": None}) for row in _rows(*values)]
    columns = {"texts": ["t"], "labels": ["Covid", "Mass"], "truth": ""}
    merged, _ = _standard(rows, columns, card(captions={"merge_captions": True}, implied_classes=IMPLIED))
    assert (merged[0]["labels"], len(merged)) == (["Covid", "Mass"], 1)
    assert json.loads(merged[0]["meta"]) == {"implied_labels": ["Viral", "Pneumonia"]}


def test_a_class_column_with_other_values() -> None:
    with pytest.raises(DataError) as caught:
        _standard(
            _rows({"t": "x", "Mass": "1"}, {"t": "x", "Mass": "yes"}), {"texts": ["t"], "labels": ["Mass"]}
        )
    assert str(caught.value) == "row 2, column Mass: not 1, 0, -1 (unknown) or blank"


def test_captions_or_classes_that_do_not_count() -> None:
    columns = {"texts": ["t"], "labels": "t"}
    rows, _ = _standard(_rows({"t": "goldfish"}, with_texts=False), columns, ALL_IN_TEST)
    assert (rows[0]["texts"], rows[0]["labels"]) == ([], ["goldfish"])
    rows, _ = _standard(_rows({"t": "goldfish"}, with_labels=False), columns, ALL_IN_TEST)
    assert (rows[0]["texts"], rows[0]["labels"]) == (["goldfish"], [])


def test_rows_of_one_image_stay_together_and_have_ids_of_their_own() -> None:
    image = {"path": "/root/a.png", "bytes": None}
    sources = [SourceRow({"t": str(i)}, f"row {i}", image, "a.png") for i in range(1, 4)]
    rows, _ = _standard(sources, {"texts": ["t"]})
    assert [row["id"] for row in rows] == ["a.png", "a.png#2", "a.png#3"]
    assert {row["group"] for row in rows} == {"a.png"}


def test_stated_ids_must_differ() -> None:
    with pytest.raises(DataError) as caught:
        _standard(
            _rows({"t": "x", "i": "7"}, {"t": "y", "i": "8"}, {"t": "z", "i": "7"}),
            {"texts": ["t"], "id": "i"},
        )
    assert str(caught.value) == (
        "row 3 has the id of row 1: make the ids differ, or set corpus.columns.id= to call items by their image"
    )


def test_the_sources_own_split_wins() -> None:
    rows = _rows({"t": "x", "s": "dev"}, {"t": "x", "s": "TEST"})
    _, log = _standard(rows, {"texts": ["t"], "split": "s"}, ALL_IN_TRAINING)
    assert log.locations == {"1.png": "row 1", "2.png": "row 2"}
    with pytest.raises(DataError) as caught:
        _standard(_rows({"t": "x", "s": ""}), {"texts": ["t"], "split": "s"})
    assert str(caught.value) == (
        "row 1, column s: not the name of a split: use train, validation (val, valid, dev) or test"
    )


def test_groups_are_divided_and_never_cut() -> None:
    sources = _rows(*({"t": str(i), "g": f"patient {i % 40}"} for i in range(200)))
    log = ReadLog()
    columns = Columns(texts=["t"], labels="", group="g", split="", language="")
    splits = standardise(sources, columns, card(), log)
    held = [set(rows["group"]) for rows in splits.values()]
    assert sum(map(len, held)) == 40
    assert all(held)


def test_many_rows_stand_in_several_pieces() -> None:
    rows, _ = _standard(_rows(*({"t": f"text {i}"} for i in range(2500))), {"texts": ["t"]}, ALL_IN_TRAINING)
    assert [row["texts"] for row in rows] == [[f"text {i}"] for i in range(2500)]
    assert cell_text("Nan") == "Nan"


def test_a_group_in_two_forms_of_letters_is_one() -> None:
    names = [{"t": "x", "patient": name} for name in ("Rene\u0301", "René")]
    rows, _ = _standard(_rows(*names), {"texts": ["t"], "group": "patient"})
    assert [row["group"] for row in rows] == ["René", "René"]


def test_cells_that_are_no_value_cost_their_row_only() -> None:
    """Every role of a column: what is no value is counted by the name of the column, and never quoted."""
    good = {"id": "1", "t": "x", "l": "cat", "g": "P1", "lang": "en", "age": 7}
    bad = [
        {**good, "id": str(n), name: {"Jane": "Doe"}} for n, name in enumerate(good, start=2) if name != "id"
    ]
    columns = {"id": "id", "texts": ["t"], "labels": "l", "group": "g", "language": "lang", "meta": ["age"]}
    rows, log = _standard(_rows(good, *bad, {**good, "id": ["x"]}), columns)
    assert [row["id"] for row in rows] == ["1"]
    assert [(item.location, item.reason) for item in log.unusable] == [
        ("row 2", "column t: a mapping, not text"),
        ("row 3", "column l: a mapping, not a class name"),
        ("row 4", "column g: a mapping, not one value"),
        ("row 5", "column lang: a mapping, not one value"),
        ("row 6", "column age: a mapping, not one value"),
        ("row 7", "column id: a list, not one value"),
    ]


def test_the_truth_key_is_a_column_or_the_image() -> None:
    """A blank key is the image alone; a key is the same in any form of letters, and without groups is one."""
    values = [
        {"t": f"{i}", "study": key, "p": "7"} for i, key in enumerate(["Zu\u0308rich", "Z\u00fcrich", ""])
    ]
    rows, _ = _standard(_rows(*values), {"texts": ["t"], "truth": "study", "group": "p"}, ALL_IN_TEST)
    assert [row["truth"] for row in rows] == ["Z\u00fcrich", "Z\u00fcrich", "3.png"]
    assert {row["group"] for row in rows} == {"7"}
    rows, _ = _standard(_rows(*values), {"texts": ["t"], "truth": "study"}, ALL_IN_TEST)
    assert [row["group"] for row in rows] == ["Z\u00fcrich", "Z\u00fcrich", "3.png"]
    rows, _ = _standard(_rows(*values), {"texts": ["t"], "group": "p"}, ALL_IN_TEST)
    assert [row["truth"] for row in rows] == ["1.png", "2.png", "3.png"]


def test_rows_of_one_image_have_one_truth_key() -> None:
    twice = [*_rows({"t": "a"}), *_rows({"t": "b"})]
    rows, _ = _standard(twice, {"texts": ["t"]}, ALL_IN_TEST)
    assert [(row["id"], row["truth"]) for row in rows] == [("1.png", "1.png"), ("1.png#2", "1.png")]


def test_source_and_acquisition_are_noted_apart_from_the_columns_for_subgroups() -> None:
    rows = _rows({"t": "one", "site": "North", "view": "AP", "device": "X1"}, {"t": "two", "site": ""})
    columns = {"texts": ["t"], "source": "site", "acquisition": ["view", "device"]}
    found, _ = _standard(rows, columns, ALL_IN_TEST)
    assert [json.loads(row["meta"]) for row in found] == [
        {SOURCE: "North", ACQUISITION: "AP, X1"},
        {SOURCE: ""},
    ]


def test_a_change_its_reference_and_the_words_of_an_image_are_noted() -> None:
    rows = _rows(
        {
            "t": "one",
            "of": "2.png",
            "so": "in  red",
            "among": "2.png; 3.png;2.png",
            "words": "['STOP', 'tea']",
        },
        {"t": "two", "of": None, "so": "", "among": "", "words": float("nan")},
    )
    columns = {"texts": ["t"], "reference": "of", "change": "so", "candidates": "among", "written": "words"}
    found, _ = _standard(rows, columns, ALL_IN_TEST)
    assert [json.loads(row["meta"]) for row in found] == [
        {REFERENCE: "2.png", CHANGE: "in  red", CANDIDATES: ["2.png", "3.png"], WRITTEN: ["STOP", "tea"]},
        {},
    ]


@pytest.mark.parametrize("role", ["change", "written"])
def test_images_to_search_among_need_no_caption_unless_they_are_trained_on(role: str) -> None:
    values = [{"t": "", "x": "in red", "s": split} for split in ("train", "val", "test")]
    columns = {"texts": ["t"], "split": "s"}
    found, log = _standard(_rows(*values), {**columns, role: "x"})
    assert [row["id"] for row in found] == ["2.png", "3.png"]
    assert [(item.location, item.reason) for item in log.unusable] == [("row 1", "empty caption")]
    assert _standard(_rows(*values), columns)[0] == []


def test_a_source_may_be_a_level_of_the_folders() -> None:
    names = ("train/north/cat/1.png", "test/south/dog/2.png")
    rows = [
        SourceRow({"t": "x"}, name, {"path": f"/root/{name}", "bytes": None}, name, split=name.split("/")[0])
        for name in names
    ]
    columns = {"texts": ["t"], "source": "folder_1", "labels": "folder_2"}
    found, _ = _standard(rows, columns)
    assert [(json.loads(row["meta"])[SOURCE], row["labels"]) for row in found] == [
        ("north", ["cat"]),
        ("south", ["dog"]),
    ]


def test_a_source_is_held_out_whatever_the_split_column_is() -> None:
    rows = _rows(*({"t": "x", "site": site, "s": "test"} for site in ("a", "b", "a", "b")))
    by_source = card(
        splits={"by": "source", "test_source": "b", "validation": 0, "train": 0.9}, columns={"source": "site"}
    )
    log = ReadLog()
    columns = Columns(texts=["t"], labels="", group="", split="s", language="", source="site")
    splits = standardise(rows, columns, by_source, log)
    assert splits["test"]["id"] == ["2.png", "4.png"]
    assert splits["train"]["id"] == ["1.png", "3.png"]
    assert log.notes == ["splits: one of 2 sources is held out, 2 items"]
    assert log.divided is False


def test_the_card_must_name_the_source_that_it_divides_by() -> None:
    with pytest.raises(ValueError, match=r"splits\.by: source needs columns\.source"):
        card(splits={"by": "source"})


def test_the_table_is_the_one_that_the_library_makes() -> None:
    """`to_dataset` writes Arrow columns without the library's examination of each value."""
    items = [
        Item(
            id=f"{i}",
            image={"path": None, "bytes": bytes([i])} if i % 2 else {"path": f"{i}.png", "bytes": None},
            texts=["a", "ü"][: i % 3],
            language=["en", ""][: i % 3],
            labels=[],
            group="g",
            truth="t",
            meta={"site": i},
            split="train",
            location=f"row {i}",
            views=[{"path": "v.png", "bytes": None}] * (i % 2),
        )
        for i in range(5)
    ]
    for part in (items, items[:0]):
        plain = Dataset.from_dict(rows_module._by_column(part), features=features())
        found = to_dataset(part)
        assert found.features == plain.features
        assert found.to_list() == plain.to_list()
