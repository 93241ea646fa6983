"""Corpora of train.mix: what they are refused for, and what training knows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domainclip.config import loading
from domainclip.config.sources import MixedSource
from domainclip.config.training import TrainConfig
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.data.quarantine import UnusableItem
from domainclip.errors import DataError, DomainclipError, RecipeError
from domainclip.evaluation.contamination import record_corpora
from domainclip.pipelines import early_checks, mixed_corpora
from domainclip.report.redaction import local_paths, public_settings
from tests.data.made_corpora import card, noise_image, table

COLUMNS = {"image": "file_name", "texts": ["text"], "group": "group", "split": "split"}


def _table(folder: Path, first: int, splits: str, **more: Any) -> Path:
    """A table whose images are noise of seed `first` and following ones."""
    names = {"r": "train", "v": "validation", "t": "test"}
    rows = [
        {"file_name": f"{i}.png", "text": f"caption {i}", "group": f"g{i}", "split": names[split], **more}
        for i, split in enumerate(splits, first)
    ]
    file = table(folder, rows, images=False)
    for i in range(first, first + len(splits)):
        noise_image(folder / f"{i}.png", seed=i)
    return file


def _corpus(folder: Path, first: int, splits: str) -> Corpus:
    return load_corpus(card(columns=COLUMNS), str(_table(folder, first, splits)))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Corpus, Path]:
    """A corpus of images 0 to 5, a retention set of 10 to 12, and a table of 20 to 24."""
    folder = tmp_path_factory.mktemp("mixed")
    return (
        _corpus(folder / "own", 0, "rrrvtt"),
        _corpus(folder / "general", 10, "rvt"),
        _table(folder / "other", 20, "rrrvt"),
    )


def _load(corpora: tuple[Corpus, Corpus, Path], path: Path, **more: Any) -> mixed_corpora.MixedCorpus:
    source = MixedSource(path=str(path), share=0.25, columns=COLUMNS, privacy={"identifiers": "none"}, **more)
    return mixed_corpora._load("extra", source, corpora[0], corpora[1])


def test_training_items_alone_are_mixed_in_under_their_name(corpora: tuple[Corpus, Corpus, Path]) -> None:
    mixed = _load(corpora, corpora[2])
    assert len(mixed.items) == 3
    assert all(
        id.startswith("extra:") for column in ("id", "group", "truth") for id in mixed.items[column][:]
    )
    assert {mixed.corpus.digests[id] for id in mixed.items["id"][:]}.isdisjoint(corpora[0].digests.values())
    assert mixed.items.column_names == corpora[0].splits["train"].column_names
    (note,) = mixed_corpora.with_notes(corpora[0], [mixed]).notes[-1:]
    assert note == "train.mix.extra: 3 training items of unnamed, 0.25 of every batch"
    shared = _load(corpora, corpora[2], shares_groups=True)
    assert shared.items["group"][:] == ["g20", "g21", "g22"]
    assert shared.items["id"][0].startswith("extra:")


@pytest.mark.parametrize(
    ("first", "splits", "counts"),
    [
        (3, "rrr", "3 items 1 in the validation, 2 in the test"),
        (11, "rrv", "2 items 2 in the retention set"),  # images 11 and 12; 13 is not trained on
        (0, "rrr", ""),  # the corpus's own training images may be repeated
        (20, "rrr", ""),
    ],
)
def test_measured_images_are_refused_and_counted(
    corpora: tuple[Corpus, Corpus, Path], tmp_path: Path, first: int, splits: str, counts: str
) -> None:
    path = _table(tmp_path / "copies", first, splits)
    if not counts:
        assert len(_load(corpora, path).items) == 3
        return
    with pytest.raises(DataError) as caught:
        _load(corpora, path)
    assert str(caught.value) == (
        f"train.mix.extra: holds images that are measured, of {counts}: leave them out, or name another folder"
    )


def test_groups_of_held_out_splits_are_refused_where_they_are_shared(
    corpora: tuple[Corpus, Corpus, Path], tmp_path: Path
) -> None:
    path = _table(tmp_path, 30, "rr", group="g4")  # g4 is in the test split
    assert len(_load(corpora, path).items) == 2
    with pytest.raises(
        DataError, match=r"shares_groups: 1 groups of its training items are in the validation"
    ):
        _load(corpora, path, shares_groups=True)
    with pytest.raises(RecipeError, match=r"set privacy\.identifiers of both cards alike"):
        mixed_corpora._load(
            "extra",
            MixedSource(path=str(path), share=0.1, columns=COLUMNS, shares_groups=True),
            corpora[0],
            None,
        )


def test_faults_name_the_key(corpora: tuple[Corpus, Corpus, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^train\.mix\.extra: has no training items"):
        _load(corpora, _table(tmp_path / "none", 40, "vt"))
    with pytest.raises(DomainclipError, match=r"^train\.mix\.extra: .*no_such"):
        _load(corpora, tmp_path / "no_such")


def test_what_is_trained_on_is_recorded(corpora: tuple[Corpus, Corpus, Path], tmp_path: Path) -> None:
    mixed = _load(corpora, corpora[2])
    known = record_corpora(str(tmp_path), [corpora[0], mixed.corpus])
    assert known is not None
    assert len(known) == 6
    assert known.items_of([[mixed.corpus.digests[id]] for id in mixed.items["id"][:]]) == 3
    assert known.items_of([[digest] for digest in corpora[1].digests.values()]) == 0


def test_what_was_left_out_is_counted(corpora: tuple[Corpus, Corpus, Path], tmp_path: Path) -> None:
    path = _table(tmp_path, 50, "rrr")
    (tmp_path / "51.png").unlink()
    mixed = _load(corpora, path, max_unusable=0.5)
    (item,) = mixed_corpora.with_notes(corpora[0], [mixed]).unusable
    assert isinstance(item, UnusableItem)
    assert item.location.startswith("train.mix.extra ")
    assert item.reason == "missing file"


def test_shares_leave_room_for_the_corpus() -> None:
    with pytest.raises(ValueError, match=r"the shares leave 0\.1 of 16 pairs to the corpus: lower"):
        TrainConfig(batch_size=16, mix={"a": {"path": "a", "share": 0.9}})  # type: ignore[dict-item]
    assert TrainConfig(batch_size=16, mix={"a": {"path": "a", "share": 0.8}}).mix["a"].share == 0.8  # type: ignore[dict-item]


def test_paths_are_resolved_checked_and_hidden(recipe_file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    _table(tmp_path / "other", 60, "rr")
    recipe = loading.load_recipe(str(recipe_file), ["train.mix={old: {path: other, share: 0.5}}"])
    path = str(tmp_path / "other")
    assert recipe.train.mix["old"].path == path
    assert list(recipe.corpora()) == ["corpus", "train.mix.old"]
    assert path in local_paths(recipe, tmp_path / "run")
    assert path not in str(public_settings(recipe))
    early_checks.check_recipe(recipe)
    wrong = loading.load_recipe(str(recipe_file), ["train.mix.old.path=nowhere", "train.mix.old.share=0.5"])
    with pytest.raises(DataError, match=r"^train\.mix\.old: .*nowhere.* check train\.mix\.old\.path"):
        early_checks.check_recipe(wrong)
