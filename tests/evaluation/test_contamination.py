"""An evaluation on images that a model was trained on is invalid, however these images come to be measured."""

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
from domainclip.pipelines.eval_request import EvalRequest
from domainclip.pipelines.evaluate import evaluate_models
from domainclip.training.run_context import RunOptions
from tests.conftest import make_corpus

COLUMNS = "{image: file_name, texts: text, labels: label, group: group_id, split: split}"


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def random_splits(recipe_file: Path, corpus: Path, tmp_path: Path) -> Path:
    """The recipe of the tiny corpus without a column of splits: splits are drawn at random."""
    text = recipe_file.read_text(encoding="utf-8").replace(
        str(corpus), str(corpus_without_splits(tmp_path / "squares"))
    )
    text = text.replace(", split: split}", "}\n  splits: {seed: 0}").replace("epochs: 3", "epochs: 1")
    recipe_file.write_text(text, encoding="utf-8")
    return recipe_file


def corpus_without_splits(folder: Path, items: int = 64) -> Path:
    """A tiny corpus of distinct images without a column of splits."""
    table = make_corpus(folder, items) / "metadata.csv"
    rows = [line.rpartition(",")[0] for line in table.read_text(encoding="utf-8").splitlines()]
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    for number, file in enumerate(sorted((folder / "images").iterdir())):
        image = Image.open(file)
        image.putpixel((0, 0), (number, items, 0))
        image.save(file)
    return folder


def train(file: Path, folder: Path, *overrides: str) -> Path:
    finetune.finetune(loading.load_recipe(str(file), overrides), RunOptions(folder=folder, quiet=True))
    return folder


def evaluate(*models: Path | str, **options: Any) -> dict[str, Any]:
    page = evaluate_models(EvalRequest(models=[str(model) for model in models], **options))
    assert page is not None
    file = page.parent / ("results_compare.json" if page.stem == "compare" else "results.json")
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return results | {"page": page.read_text(encoding="utf-8")}


def training_images(folder: Path) -> int:
    return len(contamination.load(str(folder)).images)  # type: ignore[union-attr]


def test_new_random_splits_contain_training_images(random_splits: Path, tmp_path: Path) -> None:
    run = train(random_splits, tmp_path / "made")
    same_splits = evaluate(run, against="base")
    assert same_splits["valid"] is True
    assert same_splits["protocol"]["trained_on"] == [
        "base, clip: no record of its training images, so the overlap is unknown",
        f"made: 0 measured items are among the {training_images(run)} images that it was trained on",
    ]
    assert "measured items are among" in same_splits["page"]
    corpora = [
        loading.load_recipe(str(random_splits), [f"corpus.splits.seed={seed}"]).corpus for seed in (0, 5)
    ]
    split = [_split_digests(source, name) for source, name in zip(corpora, ("train", "test"), strict=True)]
    overlap, measured = len(split[0] & split[1]), len(split[1])
    assert 0 < overlap < measured
    warning = (
        f"test: made was trained on {overlap} of its {measured} items: their metrics say nothing about "
        "new images; measure on other items"
    )
    for options in ({"against": "base"}, {}):
        results = evaluate(run, overrides=["corpus.splits.seed=5"], **options)
        assert results["valid"] is False
        assert results["warnings"][0] == warning
        assert warning in results["page"]
        assert "This evaluation is not valid" in results["page"]
    other = evaluate("base", against=str(run), recipe=str(random_splits), overrides=["corpus.splits.seed=5"])
    assert (other["valid"], other["warnings"][0]) == (False, warning)
    three = evaluate(run, "base", "base", against="base", overrides=["corpus.splits.seed=5"])
    assert (three["valid"], three["warnings"][0]) == (False, warning)
    assert "no record of its training images" in three["page"]


def _split_digests(source: Any, split: str) -> set[str]:
    from domainclip.data.cards import load_card
    from domainclip.data.corpus import load_corpus

    loaded = load_corpus(load_card(source.card, source.overrides()), source.path)
    return {loaded.digests[id] for id in loaded.splits[split]["id"]}


def test_the_training_corpus_as_a_further_set_is_invalid(
    recipe_file: Path, corpus: Path, tmp_path: Path
) -> None:
    run = train(recipe_file, tmp_path / "made", "train.epochs=1")
    shutil.copytree(corpus, tmp_path / "copy")  # other paths, equal content
    rest = f"columns: {COLUMNS}, templates: ['a {{}}'], min_items: 1, privacy: {{identifiers: none}}"
    for split, n in (("all", 40), ("test", 0)):
        (tmp_path / "suite.yaml").write_text(
            f"probes: [zero_shot]\nsets:\n  more: {{path: copy, split: {split}, {rest}}}\n"
        )
        results = evaluate(run, suite=str(tmp_path / "suite.yaml"))
        assert results["valid"] is (n == 0)
        assert [warning for warning in results["warnings"] if "was trained on" in warning] == (
            [
                "more: made was trained on 40 of its 64 items: their metrics say nothing about "
                "new images; measure on other items"
            ]
            if n
            else []
        )


def test_a_retention_set_with_training_images_makes_the_run_invalid(
    recipe_file: Path, corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(corpus, tmp_path / "copy")
    text = recipe_file.read_text(encoding="utf-8")
    text += (
        f"retention: {{path: copy, columns: {COLUMNS}, templates: ['a {{}}'], "
        "min_items: 1, privacy: {identifiers: none}}\n"
    )
    recipe_file.write_text(text, encoding="utf-8")
    run = train(recipe_file, tmp_path / "made", "train.epochs=1")
    results = json.loads((run / "results.json").read_text())
    assert results["valid"] is False
    assert results["warnings"][0] == (
        "general: the adapted model was trained on 40 of its 64 items: their metrics say nothing about "
        "new images; measure on other items"
    )


def test_the_record_is_private_and_salted_and_includes_that_of_the_base(
    random_splits: Path, tmp_path: Path
) -> None:
    run = train(random_splits, tmp_path / "made")
    file = run / contamination.FILE
    assert file.stat().st_mode & 0o077 == 0
    data = json.loads(file.read_text())
    assert sorted(data) == ["images", "salt", "version", "whole"]
    assert data["images"] == sorted(data["images"])
    assert {len(value) for value in [data["salt"], *data["images"]]} == {32}
    source = loading.load_recipe(str(random_splits)).corpus
    assert not _split_digests(source, "train") & set(data["images"])  # salted
    assert contamination.load(str(run / "model")) == contamination.load(str(run))
    assert contamination.FILE not in {Path(file.path).name for file in files_to_push(run)}
    # The record of a second run, with the first as its base, contains both.
    other = corpus_without_splits(tmp_path / "other", items=80)
    second = train(
        random_splits,
        tmp_path / "second",
        f"base.path={run / 'model'}",
        f"corpus.path={other}",
        "corpus.splits.seed=3",
    )
    assert set(data["images"]) < set(json.loads((second / contamination.FILE).read_text())["images"])


def test_exported_weights_have_the_record_of_the_run(random_splits: Path, tmp_path: Path) -> None:
    from domainclip.pipelines.export.export import export
    from domainclip.pipelines.export.request import make_request

    run = train(random_splits, tmp_path / "made", "strategy=lora")
    export(make_request(run, "transformers", tmp_path / "plain", check=False))
    assert contamination.load(str(tmp_path / "plain")) == contamination.load(str(run))


@pytest.mark.parametrize("text", ["", "[]", '{"version": 9}', '{"version": 1, "salt": "00", "images": 3}'])
def test_a_broken_record_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / contamination.FILE).write_text(text)
    with pytest.raises(ModelError) as error:
        contamination.load(str(tmp_path))
    assert str(error.value) == (
        f"{tmp_path}/trained_on.json: not a record of training images that this version reads: restore it, or "
        "delete it to measure without knowing what was trained on"
    )
    assert contamination.load("openai/clip-vit-base-patch32") is None
