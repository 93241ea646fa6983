"""Fault 37: copies planted in another split are found, and none without a planted copy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from domainclip.data.checks import leakage
from domainclip.data.checks.findings import Finding, leak_messages, refuse_errors, tolerated_copies
from domainclip.data.checks.leakage import identical_images
from domainclip.data.checks.run_checks import corpus_findings
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.errors import DataError, RecipeError
from tests.data.image_copies import COPIES, film
from tests.data.made_corpora import card, table
from tests.support.processes import started

SPLITS = ["train"] * 8 + ["val"] * 2 + ["test"] * 2


def _corpus(
    folder: Path,
    last: Image.Image | bytes | None = None,
    changed: dict[str, dict[int, str]] | None = None,
    **keys: Any,
) -> Corpus:
    """Twelve films; `last` replaces that of row 12, in the test split, `changed` cells by column and index."""
    rows = [
        {"file_name": f"{i}.png", "text": f"caption {i}", "group": f"g{i}", "split": split}
        for i, split in enumerate(SPLITS)
    ]
    for column, cells in (changed or {}).items():
        for i, value in cells.items():
            rows[i][column] = value
    file = table(folder, rows, images=False)
    for i in range(len(rows)):
        film(i).save(folder / f"{i}.png")
    if isinstance(last, bytes):
        (folder / "11.png").write_bytes(last)
    elif last is not None:
        last.save(folder / "11.png")
    return load_corpus(card(**keys), str(file))


def _codes(findings: list[Finding], level: str) -> list[str]:
    return [finding.code for finding in findings if finding.level == level]


def test_no_leak_without_a_planted_copy(tmp_path: Path) -> None:
    findings = corpus_findings(_corpus(tmp_path), None, 4)
    assert _codes(findings, "error") == []
    assert _codes(findings, "warning") == []
    assert leak_messages(findings) == []
    refuse_errors(findings)


def test_the_same_file(tmp_path: Path) -> None:
    film(2).save(tmp_path / "copy.png")
    findings = corpus_findings(_corpus(tmp_path, (tmp_path / "copy.png").read_bytes()), None, 4)
    assert leak_messages(findings) == [
        "the same image in two splits: 1 in train and test; one of them: row 3, row 12; leave its "
        "group out of the earlier split with corpus.splits.near_duplicates=leave_out"
    ]  # and is not repeated as nearly the same


def test_the_same_patient(tmp_path: Path) -> None:
    loaded = _corpus(tmp_path)
    moved = loaded.splits["train"].select(range(2)).to_list()
    assert corpus_findings(loaded, None, 4)[0].level != "error"
    rows = [{**row, "id": f"other {row['id']}"} for row in moved]
    loaded.splits["test"] = type(loaded.splits["test"]).from_list(rows, loaded.splits["test"].features)
    (finding, *_) = corpus_findings(loaded, None, 4)
    assert (finding.level, finding.code, finding.count) == ("error", "group_leak", 2)


def test_a_truth_key_in_two_splits(tmp_path: Path) -> None:
    """Without a column for it, the key is the image, whose copies are found as such."""
    loaded = _corpus(tmp_path)
    keys = {name: ["study"] * len(rows) for name, rows in loaded.splits.items()}
    for name, rows in loaded.splits.items():
        loaded.splits[name] = rows.remove_columns("truth").add_column("truth", keys[name])
    assert list(leakage.shared_groups(loaded)) == []
    named = replace(loaded, card=card(columns={"truth": "study"}))
    (finding,) = leakage.shared_groups(named)
    assert (finding.level, finding.code, finding.count) == ("error", "group_leak", 1)
    assert finding.text.startswith("leak: 1 truth key is in more than one split")


@pytest.mark.parametrize("name", COPIES)
def test_nearly_the_same_image(tmp_path: Path, name: str) -> None:
    findings = corpus_findings(_corpus(tmp_path, COPIES[name](film(2))), None, 4)
    turn = " (mirrored)" if "mirrored" in name else ""
    line = (
        "nearly the same image in two splits: 1 in train and test; one of them: row 3, row 12"
        f"{turn}; leave its group out of the earlier split with "
        "corpus.splits.near_duplicates=leave_out, or, if they are different images, set corpus.checks.near_duplicates=warning"
    )
    assert leak_messages(findings) == [line]
    assert findings[0].where == ("row 3 and row 12",)
    with pytest.raises(DataError) as caught:
        refuse_errors(findings)
    assert str(caught.value) == f"corpus: {line}"


def test_the_card_can_lower_the_level_of_near_duplicates(tmp_path: Path) -> None:
    planted = COPIES["cut"](film(2))
    lowered = corpus_findings(
        _corpus(tmp_path / "a", planted, checks={"near_duplicates": "warning"}), None, 4
    )
    assert _codes(lowered, "warning") == ["near_duplicates"]
    assert leak_messages(lowered) == []
    assert tolerated_copies(lowered) == [
        "1 pair of nearly the same image in two splits, which "
        "corpus.checks.near_duplicates lets pass: where they are copies, the metrics are too high."
    ]
    off = corpus_findings(_corpus(tmp_path / "b", planted, checks={"near_duplicates": "off"}), None, 4)
    assert "near_duplicates" not in [finding.code for finding in off]
    with pytest.raises(RecipeError) as caught:
        load_corpus(_misspelt(), "")
    assert "checks.near_duplicate: unknown key: did you mean" in str(caught.value)


def _misspelt() -> Any:
    from domainclip.data.cards import load_card

    return load_card(None, {"checks": {"near_duplicate": "off"}})


@pytest.mark.parametrize("form", ["cut", "same file"])
def test_the_group_of_a_copy_is_left_out_of_the_earlier_split_and_counted(tmp_path: Path, form: str) -> None:
    copy = film(2)
    copy.save(tmp_path / "copy.png")
    last = (tmp_path / "copy.png").read_bytes() if form == "same file" else COPIES[form](copy)
    published = {"group": {2: "patient", 5: "patient"}}  # row 6 is of the same patient as row 3
    whole = _corpus(tmp_path, last, changed=published)
    assert leak_messages(corpus_findings(whole, None, 4))
    separated = _corpus(tmp_path, last, changed=published, splits={"near_duplicates": "leave_out"})
    findings = corpus_findings(separated, None, 4)
    assert leak_messages(findings) == []
    assert [len(separated.splits[name]) for name in ("train", "validation", "test")] == [6, 2, 2]
    assert separated.splits["test"].to_list() == whole.splits["test"].to_list()
    assert [(item.location, item.reason) for item in separated.unusable] == [
        ("row 3", "near-duplicate of an image in a later split"),
        ("row 6", "of a group with a near-duplicate in a later split"),
    ]
    assert separated.fingerprint != whole.fingerprint
    assert _codes(findings, "warning") == ["left_out"]
    (note,) = [note for note in separated.notes if note.startswith("near-duplicates")]
    assert "2 of 8 items of train (1 of its groups) are left out" in note


def _left_out(file: str) -> dict[str, Any]:
    loaded = load_corpus(card(splits={"near_duplicates": "leave_out"}), file)
    return {
        "ids": {name: items["id"][:] for name, items in loaded.splits.items()},
        "unusable": [(item.location, item.reason) for item in loaded.unusable],
        "notes": loaded.notes,
        "fingerprint": loaded.fingerprint,
    }


def test_two_processes_leave_out_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    _corpus(tmp_path, COPIES["cut"](film(2)), changed={"group": {2: "patient", 5: "patient"}})
    alone = _left_out(str(tmp_path / "metadata.csv"))
    assert len(alone["unusable"]) == 2
    assert started(2, tmp_path, _left_out, str(tmp_path / "metadata.csv")) == [alone, alone]


def test_nothing_is_left_out_without_a_copy(tmp_path: Path) -> None:
    assert _corpus(tmp_path, splits={"near_duplicates": "leave_out"}).unusable == []


def test_near_duplicates_in_one_split_are_information(tmp_path: Path) -> None:
    loaded = _corpus(tmp_path)
    COPIES["half"](film(2)).save(tmp_path / "4.png")
    (finding,) = [f for f in corpus_findings(loaded, None, 4) if f.code == "near_duplicates_within"]
    assert (finding.level, finding.text) == (
        "info",
        "1 pair of nearly the same image in one split, 0 of them in one group; one of them: row 3, row 5",
    )


def test_a_second_check_uses_the_cache_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from domainclip.data.images import inspection, near_duplicates

    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    for place, planted in (("a", COPIES["cut"](film(2))), ("b", None)):
        loaded = _corpus(tmp_path / place, planted)
        first = corpus_findings(loaded, None, 4)
        with monkeypatch.context() as patch:
            patch.setattr(inspection, "inspect_image", None)  # not decoded again
            patch.setattr(near_duplicates, "score_pairs", None)  # not compared again
            assert corpus_findings(loaded, None, 4) == first


def test_no_finding_contains_a_patients_name(tmp_path: Path) -> None:
    loaded = _corpus(tmp_path, COPIES["cut"](film(2)), privacy={"identifiers": "unknown"})
    findings = corpus_findings(loaded, None, 4)
    text = " ".join([finding.text + " ".join(finding.where) for finding in findings])
    assert "row 3, row 12" in text
    for hidden in ("g2", "g11", "11.png", str(tmp_path), "caption"):
        assert hidden not in text


def test_the_same_view_of_two_items(tmp_path: Path) -> None:
    loaded = _corpus(tmp_path)
    train, test = loaded.splits["train"]["id"][2], loaded.splits["test"]["id"][0]
    views = {train: ["twin", "other"], test: [loaded.digests[test], "twin"]}
    findings = list(identical_images(replace(loaded, view_digests=views)))
    assert [finding.text for finding in findings] == [
        "the same image in two splits: 1 in train and test; one of them: row 3 view 1, row 11 view 2; "
        "leave its group out of the earlier split with corpus.splits.near_duplicates=leave_out"
    ]
