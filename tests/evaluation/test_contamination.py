"""A model is never said to know pictures that it was trained on, however they come to be measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from domainclip.config import loading
from domainclip.errors import ModelError
from domainclip.evaluation import contamination
from domainclip.hub.allowlist import files_to_push
from domainclip.pipelines import finetune
from domainclip.pipelines.evaluate import EvalRequest, evaluate_models
from domainclip.training.run_context import RunOptions
from tests.conftest import make_corpus

COLUMNS = "{image: file_name, texts: text, labels: label, group: group_id, split: split}"


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def drawn(recipe_file: Path, corpus: Path, tmp_path: Path) -> Path:
    """The recipe of the tiny corpus without a column of splits: they are drawn by lot."""
    text = recipe_file.read_text(encoding="utf-8").replace(str(corpus), str(undivided(tmp_path / "squares")))
    text = text.replace(", split: split}", "}\n  splits: {seed: 0}").replace("epochs: 3", "epochs: 1")
    recipe_file.write_text(text, encoding="utf-8")
    return recipe_file


def undivided(folder: Path, items: int = 64) -> Path:
    """A tiny corpus, no two of its pictures alike, that says nothing of splits."""
    table = make_corpus(folder, items) / "metadata.csv"
    rows = [line.rpartition(",")[0] for line in table.read_text(encoding="utf-8").splitlines()]
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    for number, file in enumerate(sorted((folder / "images").iterdir())):
        picture = Image.open(file)
        picture.putpixel((0, 0), (number, items, 0))
        picture.save(file)
    return folder


def finished(file: Path, folder: Path, *said: str) -> Path:
    finetune.finetune(loading.load_recipe(str(file), said), RunOptions(folder=folder, quiet=True))
    return folder


def figures(*models: Path | str, **options: Any) -> dict[str, Any]:
    page = evaluate_models(EvalRequest(models=[str(model) for model in models], **options))
    assert page is not None
    file = page.parent / ("results_compare.json" if page.stem == "compare" else "results.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    found["page"] = page.read_text(encoding="utf-8")
    return found


def training(folder: Path) -> int:
    return len(contamination.load(str(folder)).images)  # type: ignore[union-attr]


def test_splits_that_are_drawn_anew_are_no_test(drawn: Path, tmp_path: Path) -> None:
    made = finished(drawn, tmp_path / "made")
    own = figures(made, against="base")
    assert own["valid"] is True
    assert own["protocol"]["trained_on"] == [
        "base, clip: no record of its training images, so the overlap is unknown",
        f"made: 0 measured items are among the {training(made)} images that it was trained on",
    ]
    assert "measured items are among" in own["page"]
    corpora = [loading.load_recipe(str(drawn), [f"corpus.splits.seed={seed}"]).corpus for seed in (0, 5)]
    split = [_ids(one, name) for one, name in zip(corpora, ("train", "test"), strict=True)]
    again, measured = len(split[0] & split[1]), len(split[1])
    assert 0 < again < measured
    said = (
        f"test: made was trained on {again} of its {measured} items: their metrics say nothing about "
        "new images; measure on other items"
    )
    for options in ({"against": "base"}, {}):
        found = figures(made, overrides=["corpus.splits.seed=5"], **options)
        assert found["valid"] is False
        assert found["warnings"][0] == said
        assert said in found["page"]
        assert "This evaluation is not valid" in found["page"]
    other = figures("base", against=str(made), recipe=str(drawn), overrides=["corpus.splits.seed=5"])
    assert (other["valid"], other["warnings"][0]) == (False, said)
    three = figures(made, "base", "base", against="base", overrides=["corpus.splits.seed=5"])
    assert (three["valid"], three["warnings"][0]) == (False, said)
    assert "no record of its training images" in three["page"]


def _ids(source: Any, split: str) -> set[str]:
    from domainclip.data.cards import load_card
    from domainclip.data.corpus import load_corpus

    loaded = load_corpus(load_card(source.card, source.overrides()), source.path)
    return {loaded.digests[id] for id in loaded.splits[split]["id"]}


def test_the_own_corpus_as_a_further_set_is_no_test(recipe_file: Path, corpus: Path, tmp_path: Path) -> None:
    made = finished(recipe_file, tmp_path / "made", "train.epochs=1")
    shutil.copytree(corpus, tmp_path / "copy")  # elsewhere, and under other names
    rest = f"columns: {COLUMNS}, templates: ['a {{}}'], min_items: 1, privacy: {{identifiers: none}}"
    for split, n in (("all", 40), ("test", 0)):
        (tmp_path / "own.yaml").write_text(
            f"probes: [zero_shot]\nsets:\n  more: {{path: copy, split: {split}, {rest}}}\n"
        )
        found = figures(made, suite=str(tmp_path / "own.yaml"))
        assert found["valid"] is (n == 0)
        assert [said for said in found["warnings"] if "was trained on" in said] == (
            [
                "more: made was trained on 40 of its 64 items: their metrics say nothing about "
                "new images; measure on other items"
            ]
            if n
            else []
        )


def test_a_general_set_that_was_trained_on_makes_the_run_itself_invalid(
    recipe_file: Path, corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(corpus, tmp_path / "copy")
    text = recipe_file.read_text(encoding="utf-8")
    text += (
        f"retention: {{path: copy, columns: {COLUMNS}, templates: ['a {{}}'], "
        "min_items: 1, privacy: {identifiers: none}}\n"
    )
    recipe_file.write_text(text, encoding="utf-8")
    made = finished(recipe_file, tmp_path / "made", "train.epochs=1")
    found = json.loads((made / "results.json").read_text())
    assert found["valid"] is False
    assert found["warnings"][0] == (
        "general: the adapted model was trained on 40 of its 64 items: their metrics say nothing about "
        "new images; measure on other items"
    )


def test_the_list_goes_with_the_weights_and_tells_nothing(drawn: Path, tmp_path: Path) -> None:
    made = finished(drawn, tmp_path / "made")
    file = made / contamination.FILE
    assert file.stat().st_mode & 0o077 == 0
    data = json.loads(file.read_text())
    assert sorted(data) == ["images", "salt", "version", "whole"]
    assert data["images"] == sorted(data["images"])
    assert {len(one) for one in [data["salt"], *data["images"]]} == {32}
    source = loading.load_recipe(str(drawn)).corpus
    assert not _ids(source, "train") & set(data["images"])  # salted
    assert contamination.load(str(made / "model")) == contamination.load(str(made))
    assert contamination.FILE not in {Path(file.path).name for file in files_to_push(made)}
    # A second run on top of it knows both.
    other = undivided(tmp_path / "other", items=80)
    then = finished(
        drawn,
        tmp_path / "then",
        f"base.path={made / 'model'}",
        f"corpus.path={other}",
        "corpus.splits.seed=3",
    )
    assert set(data["images"]) < set(json.loads((then / contamination.FILE).read_text())["images"])


def test_merged_weights_keep_the_list(drawn: Path, tmp_path: Path) -> None:
    from domainclip.pipelines.merge import merge

    made = finished(drawn, tmp_path / "made", "strategy=lora")
    merge(made, tmp_path / "plain")
    assert contamination.load(str(tmp_path / "plain")) == contamination.load(str(made))


@pytest.mark.parametrize("text", ["", "[]", '{"version": 9}', '{"version": 1, "salt": "00", "images": 3}'])
def test_a_broken_list_is_no_list_of_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / contamination.FILE).write_text(text)
    with pytest.raises(ModelError) as error:
        contamination.load(str(tmp_path))
    assert str(error.value) == (
        f"{tmp_path}/trained_on.json: not a record of training images that this version reads: restore it, or "
        "delete it to measure without knowing what was trained on"
    )
    assert contamination.load("openai/clip-vit-base-patch32") is None
