"""Anchor captions: the lines of a user's file, without those that are measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip.components import WeightedObjectives, build_objectives
from domainclip.config import loading
from domainclip.config.recipe import AnchorTexts, Recipe
from domainclip.data.corpus import Corpus
from domainclip.data.text.anchor_texts import make_sentences
from domainclip.errors import DataError
from domainclip.models import loading as models_loading
from domainclip.pipelines import early_checks
from domainclip.pipelines.anchor_captions import AnchorCaptions, load_anchor_captions
from domainclip.report.redaction import local_paths, public_settings
from tests.data.made_corpora import corpus_with_held_out

ANCHOR = build_objectives({"contrastive": {}, "anchor": {}})


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus whose captions 2 and 3 are measured."""
    return corpus_with_held_out(tmp_path_factory.mktemp("own"))


def _recipe(recipe_file: Path, *changes: str) -> Recipe:
    return loading.load_recipe(str(recipe_file), changes)


def _loaded(
    recipe_file: Path, file: Path, held_out: Corpus, *changes: str, objectives: WeightedObjectives = ANCHOR
) -> AnchorCaptions:
    recipe = _recipe(recipe_file, f"anchor_texts.path={file}", *changes)
    return load_anchor_captions(recipe, objectives, held_out, None)


def test_captions_of_measured_items_are_left_out_and_counted(
    recipe_file: Path, held_out: Corpus, tmp_path: Path
) -> None:
    file = tmp_path / "general.txt"
    file.write_text(
        "\ufeffa dog\n\n  a cat on a mat \na dog\nCaption  3\ncaption 2\ncaption 1\n", encoding="utf-8"
    )
    captions = _loaded(recipe_file, file, held_out)
    # Capitals and spaces make no other caption; that of a training item is not measured.
    assert sorted(captions.texts) == ["a cat on a mat", "a dog", "caption 1"]
    assert captions.note == (
        "anchor texts: 3 of 5 captions of the file, 2 left out, which are captions of measured items"
    )
    as_retention = load_anchor_captions(
        _recipe(recipe_file, f"anchor_texts.path={file}"), ANCHOR, held_out, held_out
    )
    assert sorted(as_retention.texts) == ["a cat on a mat", "a dog"]  # all of a retention set is measured
    few = _loaded(recipe_file, file, held_out, "anchor_texts.count=2", "anchor_texts.per_step=2")
    assert len(few.texts) == 2
    assert set(few.texts) < set(captions.texts)


def test_none_without_a_file_or_an_objective_that_asks(
    recipe_file: Path, held_out: Corpus, tmp_path: Path
) -> None:
    (file := tmp_path / "general.txt").write_text("a dog\n")
    assert load_anchor_captions(_recipe(recipe_file), ANCHOR, held_out, None) == AnchorCaptions()
    plain = build_objectives({"contrastive": {}})
    assert _loaded(recipe_file, file, held_out, objectives=plain) == AnchorCaptions()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "no line of it can be used as an anchor text: write one caption a line"),
        (b"caption 3\n", "no line of it can be used as an anchor text: write one caption a line"),
        (b"\xff\xfe\x00a", "the file is no UTF-8 text: name a text file with one caption a line"),
    ],
)
def test_a_file_that_cannot_be_used(
    recipe_file: Path, held_out: Corpus, tmp_path: Path, content: bytes, fault: str
) -> None:
    (file := tmp_path / "general.txt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        _loaded(recipe_file, file, held_out)
    assert str(caught.value) == f"anchor_texts.path: {fault}"


def test_they_come_first_and_the_rest_is_made_of_words(base: Path) -> None:
    tokenizer = models_loading.load_model(base).text_tokenizer.hf_tokenizer
    settings = AnchorTexts(count=6, per_step=2, everyday=0)
    made = make_sentences(tokenizer, settings, 0)
    assert make_sentences(tokenizer, settings, 0, ["a dog", "a cat"]) == ["a dog", "a cat", *made[:4]]
    assert make_sentences(tokenizer, settings, 0, [f"{i}" for i in range(9)]) == [f"{i}" for i in range(6)]


def test_the_path_is_checked_early_and_leaves_nothing_private(recipe_file: Path, tmp_path: Path) -> None:
    (file := tmp_path / "smith.txt").write_text("a dog\n")
    recipe = _recipe(recipe_file, f"anchor_texts.path={file}")
    assert str(file) in local_paths(recipe, tmp_path / "run")
    assert "smith" not in str(public_settings(recipe))
    file.unlink()
    with pytest.raises(DataError, match=r"anchor_texts\.path: .* is no file: name a text file"):
        early_checks.check_recipe(recipe)
