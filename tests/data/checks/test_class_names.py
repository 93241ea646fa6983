"""Findings about class names, each with its way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domainclip.data.checks.class_names import class_names
from domainclip.data.checks.run_checks import corpus_findings
from domainclip.data.corpus import load_corpus
from tests.data.made_corpora import card, noise_image, table

TEMPLATES = {"templates": ["a photo of a {}"], "min_items": 2}


def _found(folder: Path, labels: list[str], **keys: Any) -> dict[str, str]:
    rows = [
        {
            "file_name": f"{i}.png",
            "text": f"thing {i}",
            "label": label,
            "split": "train" if i % 4 < 2 else "test",
        }
        for i, label in enumerate(labels)
    ]
    corpus = load_corpus(card(**TEMPLATES | keys), str(table(folder, rows)), b"key")
    return {finding.code: finding.text for finding in class_names(corpus)}


def test_classes_that_differ_in_spelling_only(tmp_path: Path) -> None:
    found = _found(tmp_path, ["Benign", "benign", "malignant"] * 4)
    assert found == {
        "similar_classes": 'classes "Benign", "benign" differ only in capitals, spaces, hyphens, underscores or '
        "Unicode form, and are counted as 2: give the 8 items one label"
    }
    # Also where one of them is too rare to be a class, and in a corpus without prompts.
    assert "similar_classes" in _found(tmp_path / "rare", ["no finding"] * 4 + ["No_Finding"] + ["x"] * 4)
    assert "similar_classes" in _found(tmp_path / "bare", ["a b", "a_b"] * 3, templates=[])
    assert _found(tmp_path / "sound", ["cat", "dog"] * 4) == {}


def test_several_labels_an_item(tmp_path: Path) -> None:
    rows = [
        {
            "file_name": f"{i}.png",
            "text": f"thing {i}",
            "Edema": i % 2,
            "edema": (i + 1) % 2,
            "split": "train",
        }
        for i in range(6)
    ]
    columns = {"labels": ["Edema", "edema"]}
    corpus = load_corpus(card(**TEMPLATES, columns=columns, multi_label=True), str(table(tmp_path, rows)))
    assert [finding.code for finding in class_names(corpus)] == ["similar_classes"]


@pytest.mark.parametrize(
    ("labels", "code", "remedy"),
    [
        (["0", "1", "2"], "number_classes", 'classes: {"0": "a photo of a …"}'),
        (["n02084071", "n02121808"], "wordnet_classes", 'classes: {"n02084071": "a photo of a …"}'),
        (["?", "cat"], "missing_classes", "leave these cells blank"),
        (["class_0", "class_1"], "number_classes", 'classes: {"class_0": "a photo of a …"}'),
        (["images"], "wrapper_classes", "set corpus.path to the folder that holds one folder for each class"),
        (["thing"], "single_class", "there is nothing to classify"),
    ],
)
def test_names_that_say_nothing(tmp_path: Path, labels: list[str], code: str, remedy: str) -> None:
    found = _found(tmp_path, labels * 6)
    assert list(found) == [code]
    assert remedy in found[code]
    # Prompts that do not rest on the name are the way out.
    prompts = {
        label: f"a photo of {word}" for label, word in zip(labels, ("cats", "dogs", "owls"), strict=False)
    }
    if code in ("number_classes", "wordnet_classes"):
        assert _found(tmp_path, labels * 6, classes=prompts, templates=[]) == {}
        assert _found(tmp_path, labels * 6, templates=[]) == {}  # neither prompts nor captions


def test_a_number_among_words_is_found(tmp_path: Path) -> None:
    found = _found(tmp_path, ["cat", "7", "train"] * 4)
    assert found["number_classes"].startswith('1 of 3 classes are numbers ("7")')
    assert "wrapper_classes" not in found  # a train among cats is a train


def test_a_folder_around_the_class_folders(tmp_path: Path) -> None:
    for i in range(6):
        noise_image(tmp_path / "images" / ("cat", "dog")[i % 2] / f"{i}.png", i)
    corpus = load_corpus(card(reader="folder", **TEMPLATES), str(tmp_path))
    findings = {finding.code: finding.text for finding in corpus_findings(corpus, None, 4)}
    assert findings["wrapper_classes"].startswith(
        '1 of 1 classes are names of folders around the class folders ("images")'
    )
    inside = load_corpus(card(reader="folder", **TEMPLATES), str(tmp_path / "images"))
    assert list(class_names(inside)) == []


def test_a_label_that_may_be_a_name_is_not_quoted(tmp_path: Path) -> None:
    labels = [
        "Doe_Jane",
        "doe jane",
        "12345",
        "cat",
        "cat",
        "cat",
        "cat",
        "cat",
        "cat",
        "cat",
        "cat",
        "cat",
        "cat",
        "Cat",
    ]
    rows = [
        {"file_name": f"{i}.png", "text": f"thing {i}", "label": label, "split": "train"}
        for i, label in enumerate(labels)
    ]
    keys = {**TEMPLATES, "min_items": 5, "privacy": {"identifiers": "unknown"}}
    findings = list(class_names(load_corpus(card(**keys), str(table(tmp_path, rows)), b"key")))
    assert [finding.text.split(" differ")[0] for finding in findings] == ['classes "Cat", "cat"', "2 labels"]
    assert {finding.code for finding in findings} == {"similar_classes"}
    assert "doe" not in str(findings).lower()


def test_a_name_that_is_a_caption_too_has_to_be_renamed(tmp_path: Path) -> None:
    for i in range(8):
        noise_image(tmp_path / ("n02084071", "n02121808")[i % 2] / f"{i}.png", i)
    corpus = load_corpus(card(reader="folder", **TEMPLATES), str(tmp_path))
    (finding,) = (one for one in class_names(corpus) if one.code == "wordnet_classes")
    assert finding.text.endswith("rename these labels, which are captions as well")


def test_the_card_sets_the_level(tmp_path: Path) -> None:
    rows = [
        {"file_name": f"{i}.png", "text": f"thing {i}", "label": ("a", "A")[i % 2], "split": "train"}
        for i in range(6)
    ]
    corpus = load_corpus(card(**TEMPLATES, checks={"similar_classes": "off"}), str(table(tmp_path, rows)))
    assert "similar_classes" not in [finding.code for finding in corpus_findings(corpus, None, 4)]
