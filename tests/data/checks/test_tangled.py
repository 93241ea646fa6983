"""Findings about attributes that give the label away: few false alarms, and none missed that is plain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainclip.data.cards import Card
from domainclip.data.checks import tangled
from domainclip.data.checks.findings import Finding
from domainclip.data.checks.images import inspect_corpus
from domainclip.data.checks.tangled import balanced_score, tangled_files, tangled_source
from domainclip.data.corpus import Corpus, load_corpus
from tests.data.made_corpora import card


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def made(
    folder: Path,
    look: Callable[[int, str], tuple[str, int, int, str]],
    the_card: Card,
    count: int = 60,
) -> Corpus:
    """Images of two labels; `look` gives folder, side, brightness and site of each."""
    lines = ["file_name,text,label,site"]
    draw = np.random.default_rng(0)
    for i in range(count):
        label = ("cat", "dog")[i % 2]
        place, side, brightness, site = look(i, label)
        (folder / place).mkdir(parents=True, exist_ok=True)
        pixels = np.clip(brightness + draw.integers(-20, 20, (side, side)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / place / f"{i}.png")
        lines.append(f"{place}/{i}.png,text {i},{label},{site}")
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return load_corpus(the_card, str(folder))


def files(corpus: Corpus) -> list[Finding]:
    return list(tangled_files(inspect_corpus(corpus, None)))


PLAIN = card(columns={"labels": "label", "texts": ["text"]})
WITH_SITE = card(columns={"labels": "label", "texts": ["text"], "source": "site"})


def random_look(seed: int = 0) -> Callable[[int, str], tuple[str, int, int, str]]:
    draw = np.random.default_rng(seed)
    return lambda i, label: (
        f"f{draw.integers(3)}",
        int(draw.integers(30, 50)),
        int(draw.integers(60, 190)),
        "x",
    )


def test_independent_files_are_no_finding(tmp_path: Path) -> None:
    assert files(made(tmp_path, random_look(), PLAIN)) == []


def test_a_size_that_gives_the_label_away_is_a_warning(tmp_path: Path) -> None:
    other = random_look()
    corpus = made(
        tmp_path, lambda i, label: (other(i, label)[0], 30 if label == "cat" else 44, 120, "x"), PLAIN
    )
    (found,) = files(corpus)
    assert (found.level, found.code) == ("warning", "tangled_files")
    assert "size alone 100%" in found.text
    assert "chance 50%" in found.text


def test_folders_that_are_not_named_after_labels_are_one_and_are_not_quoted(tmp_path: Path) -> None:
    """A folder of each clinic, with the cats in one of them; a folder of each class is the label itself."""
    corpus = made(
        tmp_path / "a", lambda i, label: ("smith" if label == "cat" else "doe", 40, 120, "x"), PLAIN
    )
    (found,) = files(corpus)
    assert "folder alone 100%" in found.text
    assert "smith" not in found.text
    assert files(made(tmp_path / "b", lambda i, label: (label.upper(), 40, 120, "x"), PLAIN)) == []


def test_brightness_alone_is_a_note(tmp_path: Path) -> None:
    """Night scenes are dark: what is bright may be what the class is about."""
    corpus = made(tmp_path, lambda i, label: ("f", 40, 60 if label == "cat" else 180, "x"), PLAIN)
    (found,) = files(corpus)
    assert found.level == "info"
    assert "brightness alone 100%" in found.text


def test_a_source_that_gives_the_label_away_is_a_warning(tmp_path: Path) -> None:
    def look(i: int, label: str) -> tuple[str, int, int, str]:
        return "f", 40, 120, "north" if (label == "cat") == (i % 10 < 8) else "south"

    corpus = made(tmp_path, look, WITH_SITE)
    (found,) = tangled_source(corpus)
    assert (found.level, found.code) == ("warning", "tangled_source")
    # 80 % of the cats and 80 % of the dogs: φ² = 0.36, of 60 items.
    v = np.sqrt((0.36 - 1 / 59) / (1 - 1 / 59))
    assert f"Cramér's V {v:.2f}" in found.text
    assert "names 80% of the labels" in found.text
    assert "the commonest label is 50%" in found.text
    assert "north" not in found.text
    assert files(corpus) == []  # the card names the source: the files are not guessed about
    assert list(tangled_source(made(tmp_path / "plain", look, PLAIN))) == []


# --- false alarms and power by simulation ---------------------------------------------------------------


def test_at_most_one_in_twenty_corpora_without_a_shortcut_is_alarming() -> None:
    """Independent numbers and categories, three labels of unequal frequency, 90 items: 60 corpora."""
    draw = np.random.default_rng(1)
    alarms = 0
    for _ in range(60):
        features = np.column_stack([draw.normal(size=(90, 3)), draw.integers(0, 2, (90, 6))])
        labels = draw.permutation(np.repeat([0, 1, 2], [50, 25, 15]))
        alarms += balanced_score(features, labels).alarming
    assert alarms <= 3


def test_a_shortcut_for_most_items_is_always_found() -> None:
    draw = np.random.default_rng(2)
    for _ in range(20):
        labels = draw.permutation(np.repeat([0, 1, 2], [50, 25, 15]))
        size = np.where(draw.random(90) < 0.7, labels, draw.integers(0, 3, 90))
        score = balanced_score(np.column_stack([size, draw.normal(size=(90, 2))]), labels)
        assert score.alarming
        assert score.accuracy > 0.5


def test_at_most_one_in_twenty_independent_sources_is_tangled() -> None:
    """Twelve sources and four labels over 60 groups, where a test of chi square would not hold: 60 corpora."""
    draw = np.random.default_rng(3)
    alarms = 0
    for _ in range(60):
        values, labels = draw.integers(0, 12, 60), draw.permutation(np.repeat([0, 1, 2, 3], 15))
        items = tangled._Labelled([("train", i) for i in range(60)], labels, list("abcd"))
        alarms += bool(list(tangled._tangled("source", values.astype(str), items)))
    assert alarms <= 3
