"""What shows the same thing twice becomes one item that says all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from domainclip.config import loading
from domainclip.data.curation.deduplicate import Deduplicate
from domainclip.errors import DataError
from domainclip.pipelines import inputs
from tests.data.curation.curation_inputs import TableEncoder, items


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _scene(seed: int) -> Image.Image:
    """Structure at several sizes, as a photograph has it."""
    draw = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(draw.integers(0, 256, (size, size, 3), np.uint8)).resize((160, 160)), float
        )
        for size in (4, 10, 40)
    ]
    return Image.fromarray((sum(layers) / 3).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.5))


def _pictures(folder: Path) -> list[str]:
    """Five items: 0 and 2 are the same file's bytes, 3 is 1 in fewer pixels, 4 stands alone."""
    first, second, alone = (_scene(seed) for seed in (1, 2, 3))
    first.save(folder / "0.png")
    second.save(folder / "1.jpg", quality=95)
    (folder / "2.png").write_bytes((folder / "0.png").read_bytes())
    second.resize((120, 120)).save(folder / "3.jpg", quality=60)
    alone.save(folder / "4.png")
    return [str(folder / name) for name in ("0.png", "1.jpg", "2.png", "3.jpg", "4.png")]


TEXTS = [["a fan", "a red fan"], ["a boat"], ["a red fan", "ein Fächer"], ["a ship", "a boat"], ["a star"]]
LABELS = [["fan"], [], ["fan", "red"], ["boat"], []]


def test_copies_become_one_that_says_all(tmp_path: Path) -> None:
    before = items(TEXTS, LABELS, _pictures(tmp_path))
    after = Deduplicate()(before)
    assert after["id"][:] == ["0", "1", "4"]
    assert after["texts"][:] == [["a fan", "a red fan", "ein Fächer"], ["a boat", "a ship"], ["a star"]]
    assert after["labels"][:] == [["fan", "red"], ["boat"], []]
    assert [len(row) for row in after["language"][:]] == [3, 2, 1]
    assert after.features == before.features


def test_a_class_that_one_copy_states_is_unknown_in_none(tmp_path: Path) -> None:
    before = items(TEXTS, LABELS, _pictures(tmp_path))
    metas = [{"age": 7, "unknown_labels": ["red", "old"]}, {}, {"age": 9, "implied_labels": ["old"]}, {}, {}]
    before = before.remove_columns("meta").add_column("meta", [json.dumps(meta) for meta in metas])
    after = Deduplicate()(before)
    assert [json.loads(meta) for meta in after["meta"][:]] == [{"age": 7, "implied_labels": ["old"]}, {}, {}]


def test_without_looking_only_equal_bytes_are_one(tmp_path: Path) -> None:
    before = items(TEXTS, LABELS, _pictures(tmp_path))
    assert Deduplicate(images=False)(before)["id"][:] == ["0", "1", "3", "4"]


def test_embeddings_decide_where_they_are_asked(tmp_path: Path) -> None:
    before = items(TEXTS, LABELS, _pictures(tmp_path))
    turns = np.radians([0, 40, 90, 50, 95])
    base = TableEncoder(np.stack([np.cos(turns), np.sin(turns)], 1))
    # cos 10° = 0.985 joins 1 with 3, cos 5° = 0.996 joins 2 with 4; 0 is 2's copy byte for byte.
    assert Deduplicate(images=False, similarity=0.98)(before, base)["id"][:] == ["0", "1"]
    assert Deduplicate(images=False, similarity=0.99)(before, base)["id"][:] == ["0", "1", "3"]
    # A chain is one set: 0 – 1 – 3 – 2 – 4 at 40° and less.
    assert Deduplicate(images=False, similarity=0.76)(before, base)["id"][:] == ["0"]


def test_what_is_needed_follows_the_options() -> None:
    assert Deduplicate().needs == frozenset()
    assert Deduplicate(similarity=0.9).needs == {"base"}


def test_an_unreadable_image_is_left_out_and_given(recipe_file: Path, corpus: Path, tmp_path: Path) -> None:
    import shutil

    broken = shutil.copytree(corpus, tmp_path / "broken")
    (broken / "images" / "000.png").write_bytes(b"\\x89PNG\\r\\n\\x1a\\nnot really")
    changes = [f"corpus.path={broken}", "curation={deduplicate: {similarity: 0.9999}}"]
    try:
        ready = inputs.load_inputs(loading.load_recipe(str(recipe_file), changes), "train")
    except DataError as error:  # the check of the corpus may refuse it first
        pytest.fail(str(error))
    said = [warning for warning in ready.warnings if warning.startswith("curation deduplicate")]
    assert said[0] == "curation deduplicate: 1 training items with an unreadable image are left out"


def test_the_sets_are_computed_once_and_not_by_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function runs inside `on_first_process`, whose result every process receives."""
    from domainclip.distributed import collectives

    before = items(TEXTS, LABELS, _pictures(tmp_path))
    monkeypatch.setattr(collectives, "on_first_process", lambda call: np.array([0, 0, 0, 0, 4]))
    assert Deduplicate()(before)["id"][:] == ["0", "4"]
