"""Findings of a large corpus are computed once, and again when anything that they depend on changes."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from domainclip.data.checks import tallies
from domainclip.data.checks.findings import Finding
from domainclip.data.checks.images import dicom_files, image_digests, inspect_corpus
from domainclip.data.checks.stored_findings import stored_findings
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.files import stored_corpus
from domainclip.data.images import inspection
from domainclip.data.images.corpus_images import positions_in
from tests.data.made_corpora import card, table


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored_corpus, "MIN_ITEMS", 5)
    rows = [
        {"file_name": f"{i}.png", "text": f"caption {i // 2}", "label": "ab"[i % 2], "split": split}
        for i, split in enumerate(["train"] * 6 + ["val", "test"])
    ]
    file = table(tmp_path / "corpus", rows)
    past = time.time() - 100
    for one in file.parent.rglob("*"):
        os.utime(one, (past, past))
    return load_corpus(card(), str(file))


def test_findings_are_computed_once(corpus: Corpus) -> None:
    calls: list[int] = []
    findings = [
        Finding("error", "of two splits", "image_leak", 2, ("row 1", "row 3")),
        Finding("info", "é", "sizes"),
    ]

    def compute() -> list[Finding]:
        calls.append(1)
        return findings

    def find(changed: Corpus = corpus, sample: int | None = 4, settings: tuple[Any, ...] = (4,)) -> int:
        before = len(calls)
        assert stored_findings(changed, sample, settings, compute) == findings
        return len(calls) - before

    assert [find(), find()] == [1, 0]
    others = corpus.splits["train"].map(lambda row: {"texts": ["other"]}, keep_in_memory=True)
    assert find(corpus.with_train_items(others)) == 1
    assert find(corpus.with_train_items(corpus.splits["train"].select([0, 2]))) == 1
    assert find(replace(corpus, card=card(checks={"blank_images": "error"}))) == 1
    assert find(replace(corpus, entry="another")) == 1
    assert find(settings=(5,)) == 1
    assert [find(), find(settings=(5,))] == [0, 0]
    assert [find(replace(corpus, entry="")), find(replace(corpus, entry=""))] == [1, 1]


def test_findings_of_all_images_take_the_place_of_those_of_a_sample(corpus: Corpus) -> None:
    text = f"{len(list(image_digests(corpus)))} images"

    def compute() -> list[Finding]:
        return [Finding("info", inspect_corpus(corpus, 4).count_text())]

    assert stored_findings(corpus, 4, (), compute)[0].text == "4 inspected images"
    inspect_corpus(corpus, None)  # as `data check` does
    assert stored_findings(corpus, 4, (), compute)[0].text == text


@pytest.mark.parametrize("code", ["unreadable_images", "missing_decoder"])
def test_what_another_decoder_may_remove_is_not_stored(corpus: Corpus, code: str) -> None:
    found = [Finding("warning", "1 of 8 images cannot be read", code)]
    assert stored_findings(corpus, 4, (), lambda: found) == found
    assert stored_findings(corpus, 4, (), lambda: []) == []


@pytest.mark.parametrize("views", [{}, {"b": ["v", "w"], "e": ["x"]}])
def test_a_sample_is_that_of_all_positions(views: dict[str, list[str]]) -> None:
    """Without further views, the positions between those of the sample are never made."""
    ids = {"train": ["a", "b", "c"], "validation": [], "test": ["d", "e"]}
    every = positions_in(ids, views, None)
    assert [(at.split, at.row) for at in every if not at.view] == [
        *(("train", row) for row in range(3)),
        *(("test", row) for row in range(2)),
    ]
    assert len(every) == 5 + sum(map(len, views.values()))
    for sample in range(1, len(every) + 1):
        assert positions_in(ids, views, sample) == [every[i * len(every) // sample] for i in range(sample)]


def test_digests_are_those_of_the_positions(corpus: Corpus) -> None:
    inspected = inspect_corpus(corpus, None)
    assert list(inspected.digests) == list(image_digests(corpus))
    assert {inspected.item(k): inspected.digests[k] for k in range(8)} == dict(corpus.digests)


def test_tallies() -> None:
    items = Dataset.from_dict(
        {
            "group": ["p", "q", "p"],
            "labels": [["a", "b", "a"], [], ["b"]],
            "texts": [["x"], ["a", "y"], []],
        }
    )
    other = items.select([1])
    assert tallies.count_values(items, "group") == Counter(p=2, q=1)
    assert tallies.count_labels(items) == Counter(a=1, b=2)
    assert tallies.count_labels(items.select([2, 1])) == Counter(b=1)
    assert tallies.count_labelled(items) == 2
    assert tallies.names_among_captions(items, ["a", "b"]) == {"a"}
    assert tallies.names_among_captions(items.select([0]), ["a", "b"]) == set()
    assert tallies.share_a_value([items, items.select([]), other], "group")
    assert not tallies.share_a_value([items.select([0]), items.select([]), other], "group")
    assert not tallies.share_a_value([items.select([])] * 3, "group")


def test_no_image_of_a_table_is_dicom(corpus: Corpus) -> None:
    assert dicom_files(corpus) == set()
    assert inspection.is_inspection_cached([])
