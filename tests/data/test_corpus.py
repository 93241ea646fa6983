from __future__ import annotations

import json
import os
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from domainclip.data import corpus
from domainclip.data.cards import Card
from domainclip.data.corpus import load_corpus
from domainclip.data.files.column_roles import Columns
from domainclip.data.interfaces import CorpusReader
from domainclip.data.quarantine import (
    ReadLog,
    UnusableItem,
    check_max_unusable,
    count_reasons,
    raise_max_unusable,
)
from domainclip.data.rows import SourceRow, standardise
from domainclip.data.schema import COLUMNS, features
from domainclip.errors import DataError, ExitCode, RecipeError
from tests.data.made_corpora import card, noise_image, table


def _rows(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"file_name": f"{i}.png", "text": f"caption {i}", "split": "train", **more} for i in range(n)]


def _error(path: Path, **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_corpus(card(**keys), str(path))
    assert caught.value.code == ExitCode.DATA
    return str(caught.value)


def _list() -> Path:
    return Path.home() / ".cache" / "domainclip" / "unusable-test.tsv"


def test_a_corpus_is_read_whole(tmp_path: Path) -> None:
    rows = [{**row, "label": "cat" if i % 2 else "dog"} for i, row in enumerate(_rows(30))]
    rows[0]["split"], rows[1]["split"] = "val", "test"
    loaded = load_corpus(card(templates=["a {}", "one {}"], min_items=2), str(table(tmp_path, rows)))
    assert {name: len(items) for name, items in loaded.splits.items()} == {
        "train": 28,
        "validation": 1,
        "test": 1,
    }
    assert {name: prompts.positive for name, prompts in loaded.classes.items()} == {
        "cat": ["a cat", "one cat"],
        "dog": ["a dog", "one dog"],
    }
    assert loaded.unusable == []
    assert len(loaded.digests) == len(loaded.locations) == 30
    assert len(loaded.fingerprint) == 64


def test_classes_are_those_that_are_frequent_in_training(tmp_path: Path) -> None:
    rows = [
        {**row, "label": label, "split": split}
        for row, (label, split) in zip(
            _rows(7),
            [("b", "train")] * 2 + [("a", "train")] * 2 + [("c", "test")] * 2 + [("d", "train")],
            strict=True,
        )
    ]
    loaded = load_corpus(card(templates=["{}"], min_items=2), str(table(tmp_path, rows)))
    assert list(loaded.classes) == ["a", "b"]
    assert loaded.notes[-1] == (
        "classes: 1 with fewer than 2 items are left out of zero-shot evaluation (corpus.min_items)"
    )


def test_the_prevalence_of_an_unknown_class_is_refused(tmp_path: Path) -> None:
    file = str(table(tmp_path, _rows(3)))
    classes = {"pneumonia": "a chest x-ray of pneumonia"}
    assert load_corpus(card(classes=classes, prevalence={"pneumonia": 0.02}), file).card.prevalence == {
        "pneumonia": 0.02
    }
    with pytest.raises(RecipeError) as refusal:
        load_corpus(card(classes=classes, prevalence={"pneumona": 0.02}), file)
    assert str(refusal.value) == 'corpus.prevalence: class "pneumona": did you mean "pneumonia"?'


def test_in_a_set_for_evaluation_only_classes_are_counted_everywhere(tmp_path: Path) -> None:
    file = table(tmp_path, [{**row, "label": "a"} for row in _rows(2)])
    keys = {"splits": {"train": 0, "validation": 0, "test": 1}, "columns": {"split": ""}, "templates": ["{}"]}
    assert list(load_corpus(card(min_items=2, **keys), str(file)).classes) == ["a"]


def test_the_cards_own_classes_win(tmp_path: Path) -> None:
    file = table(tmp_path, [{**row, "label": "b"} for row in _rows(2)])
    loaded = load_corpus(card(classes={"z": "a z", "b": "a b"}, templates=["{}"]), str(file))
    assert list(loaded.classes) == ["z", "b"]


def test_missing_files_are_counted_and_the_first_five_named(tmp_path: Path) -> None:
    file = table(tmp_path, _rows(10))
    for i in range(3, 10):
        (tmp_path / f"{i}.png").unlink()
    (tmp_path / "2.png").write_bytes(b"")
    assert _error(file) == (
        "corpus test: 8 of 10 items are unusable (80.0%, limit 1.0%): 7 missing file, 1 empty file; first: "
        "row 3 2.png (empty file), row 4 3.png (missing file), row 5 4.png (missing file), "
        "row 6 5.png (missing file), "
        f"row 7 6.png (missing file) and 3 more; repair them or raise corpus.max_unusable to 0.8 (list: {_list()})"
    )
    loaded = load_corpus(card(max_unusable=0.8), str(file))
    assert loaded.splits["train"]["texts"][:] == [["caption 0"], ["caption 1"]]
    assert loaded.locations == {"0.png": "row 1", "1.png": "row 2"}
    assert len(loaded.unusable) == 8


def test_empty_captions_are_counted(tmp_path: Path) -> None:
    rows = _rows(8)
    rows[2]["text"], rows[5]["text"] = "  ", "nan"
    assert _error(table(tmp_path, rows)) == (
        "corpus test: 2 of 8 items are unusable (25.0%, limit 1.0%): 2 empty caption; first: row 3 2.png "
        f"(empty caption), row 6 5.png (empty caption); repair them or raise corpus.max_unusable to 0.25 (list: {_list()})"
    )


def test_a_missing_column(tmp_path: Path) -> None:
    file = table(tmp_path, _rows(2))
    assert _error(file, columns={"texts": ["caption", "txt"]}) == (
        'metadata.csv: no column "caption" (corpus.columns.texts): known: file_name, split, text.'
    )


def test_a_corpus_where_nothing_is_usable_stops_whatever_the_limit(tmp_path: Path) -> None:
    file = table(tmp_path, _rows(2), images=False)
    assert _error(file, max_unusable=1).startswith(
        "corpus test: 2 of 2 items are unusable (100.0%, limit 100.0%)"
    )
    assert _error(file, options={"where": {"text": "none"}}) == f"corpus test: {file} holds no items"


def test_the_fingerprint_follows_the_content_and_not_the_date(tmp_path: Path) -> None:
    file = table(tmp_path / "a", _rows(4))
    base = load_corpus(card(), str(file)).fingerprint
    os.utime(tmp_path / "a" / "1.png", (0, 0))
    assert load_corpus(card(), str(file)).fingerprint == base
    assert load_corpus(card(), str(table(tmp_path / "b", _rows(4)))).fingerprint == base
    assert load_corpus(card(privacy={"identifiers": "unknown"}), str(file)).fingerprint == base
    changed = []
    for place, value in [("text", "another"), ("split", "test"), ("file_name", "0b.png")]:
        rows = _rows(4)
        rows[0][place] = value
        changed.append(load_corpus(card(), str(table(tmp_path / place, rows))).fingerprint)
    noise_image(tmp_path / "a" / "0.png", seed=99)
    changed.append(load_corpus(card(), str(file)).fingerprint)
    assert len({base, *changed}) == 5


def test_splits_do_not_depend_on_the_secret(tmp_path: Path) -> None:
    rows = [{"file_name": f"{i}.png", "text": str(i), "patient_id": f"p{i % 15}"} for i in range(60)]
    file = str(table(tmp_path, rows))
    plain = load_corpus(card(), file)
    hidden = load_corpus(card(privacy={"identifiers": "de-identified"}), file, secret=b"x")
    assert hidden.splits["test"]["texts"][:] == plain.splits["test"]["texts"][:]
    assert len(plain.splits["test"]) > 0
    assert set(hidden.splits["test"]["group"]).isdisjoint(plain.splits["test"]["group"])
    assert hidden.splits["test"].features == plain.splits["test"].features == features()


def test_the_truth_key_is_hidden_and_counts_where_it_is_named(tmp_path: Path) -> None:
    """Without a column it is the name of the file, under which the fingerprint must not change."""
    rows = [{**row, "key": str(i), "study": f"s{i // 2}", "p": "p"} for i, row in enumerate(_rows(4))]
    roles = {"id": "key", "group": "p"}
    file = str(table(tmp_path, rows))
    plain = load_corpus(card(columns=roles), file)
    named = card(columns={**roles, "truth": "study"}, privacy={"identifiers": "identified"})
    hidden = load_corpus(named, file, secret=b"x")
    keys = [key for split in hidden.splits.values() for key in split["truth"][:]]
    assert len(set(keys)) == 2
    assert not set(keys) & {"s0", "s1"}
    moved = [{**row, "file_name": f"moved/{row['file_name']}"} for row in rows]
    other = load_corpus(card(columns=roles), str(table(tmp_path / "moved", moved)))
    assert other.fingerprint == plain.fingerprint != hidden.fingerprint


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    file = str(table(tmp_path, _rows(12)))
    first, second = (load_corpus(card(), file) for _ in range(2))
    assert json.dumps(first.splits["train"]["id"][:]) == json.dumps(second.splits["train"]["id"][:])
    assert first.fingerprint == second.fingerprint


def test_reasons_are_counted_with_the_commonest_first() -> None:
    bad = [
        UnusableItem("row 1", "b"),
        UnusableItem("row 2", "c"),
        UnusableItem("row 3", "c"),
        UnusableItem("row 4", "a"),
    ]
    assert count_reasons(bad) == "2 c, 1 a, 1 b"


def test_at_the_limit_is_within_it() -> None:
    check_max_unusable([UnusableItem("row 1", "x")], 100, card(max_unusable=0.01))
    with pytest.raises(DataError):
        check_max_unusable(
            [UnusableItem("row 1", "x"), UnusableItem("row 2", "x")], 100, card(max_unusable=0.01)
        )


class _Outside(CorpusReader):
    """Readers that someone else wrote."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns = columns

    def read(self, card: Card, path: str, log: ReadLog) -> DatasetDict:
        return DatasetDict(
            {name: Dataset.from_dict(self.columns) for name in ("train", "validation", "test")}
        )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"id": ["a"]},
            'reader "table": split train must have the columns id, image, views, texts, language, labels, '
            "group, truth, meta",
        ),
        ({name: ["a"] for name in COLUMNS}, 'reader "table": 2 ids are not unique'),
    ],
)
def test_an_outside_reader_keeps_the_contract(
    columns: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("domainclip.registry.build", lambda *_, **__: _Outside(**columns))
    assert _error(tmp_path) == message


def test_without_a_place_for_the_list_the_fault_is_reported_all_the_same(
    tmp_path: Path, own_home: Path
) -> None:
    (own_home / ".cache").write_text("a file in the way", encoding="utf-8")
    assert _error(table(tmp_path, _rows(1), images=False)) == (
        "corpus test: 1 of 1 items are unusable (100.0%, limit 1.0%): 1 missing file; first: row 1 0.png "
        "(missing file); repair them, or check corpus.path, corpus.columns and corpus.options: no item is usable"
    )


class _Studies(CorpusReader):
    """A reader of three items with two views each; the views of a study lie beside its image."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, card: Card, path: str, log: ReadLog) -> DatasetDict:
        rows = []
        for i in range(3):
            first, *views = ({"path": str(self.root / f"{i}{k}.png"), "bytes": None} for k in range(3))
            rows.append(SourceRow({"text": f"study {i}"}, f"row {i}", first, f"{i}", "train", views=views))
        columns = Columns(texts=["text"], labels="", group="", split="", language="")
        return standardise(rows, columns, card, log)


def _studies(root: Path, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> corpus.Corpus:
    monkeypatch.setattr("domainclip.registry.build", lambda *_, **__: _Studies(root))
    return load_corpus(card(**keys), str(root))


def test_a_missing_view_is_counted_and_its_item_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(3):
        for k in range(3):
            noise_image(tmp_path / f"{i}{k}.png", seed=3 * i + k)
    whole = _studies(tmp_path, monkeypatch)
    assert [len(views) for views in whole.splits["train"]["views"]] == [2, 2, 2]
    assert [len(own) for own in whole.view_digests.values()] == [2, 2, 2]
    assert len({*whole.digests.values(), *chain.from_iterable(whole.view_digests.values())}) == 9
    (tmp_path / "01.png").unlink()
    (tmp_path / "10.png").write_bytes(b"")  # its next view becomes the first
    for k in range(3):
        (tmp_path / f"2{k}.png").unlink()
    with pytest.raises(DataError) as caught:
        _studies(tmp_path, monkeypatch)
    assert str(caught.value) == (
        "corpus test: 3 of 7 items are unusable (42.9%, limit 1.0%): 2 missing file, 1 empty file; first: "
        "row 0 view 1 01.png (missing file), row 1 10.png (empty file), row 2 20.png (missing file); repair "
        f"them or raise corpus.max_unusable to 0.429 (list: {_list()})"
    )
    left = _studies(tmp_path, monkeypatch, max_unusable=0.9)
    shown = [
        [Path(image["path"]).name for image in (row["image"], *row["views"])] for row in left.splits["train"]
    ]
    assert shown == [["00.png", "02.png"], ["11.png", "12.png"]]
    assert left.splits["train"].features == features()
    assert left.digests["0"] == whole.digests["0"]
    assert left.digests["1"] == whole.view_digests["1"][0]
    assert left.view_digests == {"0": whole.view_digests["0"][1:], "1": whole.view_digests["1"][1:]}
    assert left.fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("unusable", "total"), [(1, 3), (29, 100), (1, 64), (999, 1000), (57, 1000), (1, 10**6)]
)
def test_the_limit_that_the_message_names_is_enough(unusable: int, total: int) -> None:
    limit = float(raise_max_unusable(unusable, total).rpartition(" ")[2])
    items = [UnusableItem(f"row {i}", "missing file") for i in range(unusable)]
    check_max_unusable(items, total, Card(max_unusable=limit))
    with pytest.raises(DataError):
        check_max_unusable(items, total, Card(max_unusable=max(0, limit - 0.0011)))
