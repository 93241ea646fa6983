"""`source_removal` in a run: refused early where it cannot work, fitted on training items, saved with the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from domainclip.config import loading
from domainclip.config.recipe import SourceRemoval
from domainclip.data.batching.item_sources import source_names
from domainclip.data.schema import ACQUISITION, SOURCE, features
from domainclip.errors import DataError, RecipeError
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.models.loading import load_model
from domainclip.pipelines import early_checks
from domainclip.pipelines.finetune import finetune
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.source_fit import check_source_removal, fit_items
from domainclip.training.run_context import RunOptions
from tests.data.curation import curation_inputs
from tests.support.tiny_models import tiny_siglip


def _items(sources: list[str], labels: list[list[str]]) -> Dataset:
    rows = curation_inputs.items([["a"] for _ in sources], labels).to_list()
    for row, source in zip(rows, sources, strict=True):
        row["meta"] = json.dumps({SOURCE: source, ACQUISITION: "PA"})
    return Dataset.from_list(rows, features=features())


def test_items_with_a_source_by_source_and_label() -> None:
    items = _items(["B", "A", "", "A"], [["x"], ["x"], ["x"], ["y"]])
    fit = fit_items(SourceRemoval(), items)
    assert (fit.rows.tolist(), fit.concept.tolist(), fit.strata.tolist()) == ([0, 1, 3], [1, 0, 0], [0, 0, 1])
    assert fit.sources == 2
    assert fit_items(SourceRemoval(given_labels=False), items).strata.tolist() == [0, 0, 0]
    assert source_names(items, "both")[:2] == [("B", "PA"), ("A", "PA")]


def test_what_cannot_be_told_apart_is_refused(tmp_path: Path) -> None:
    tangled = _items(["A", "B"], [["x"], ["y"]])
    with pytest.raises(DataError, match=r"^source_removal.given_labels: no label occurs in two sources"):
        fit_items(SourceRemoval(), tangled)
    with pytest.raises(DataError, match=r"^source_removal.by: the training items have fewer than two values"):
        fit_items(SourceRemoval(by="acquisition"), tangled)
    model = load_model(tiny_siglip(tmp_path / "siglip"))
    with pytest.raises(
        RecipeError, match=r"^source_removal: family siglip with 1 images an item has no linear"
    ):
        check_source_removal(SourceRemoval(), tangled, model)
    check_source_removal(None, tangled, model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["source_removal={}", "objectives=hyperbolic", "corpus.columns.source=label"],
            "source_removal: does not work with objectives.hyperbolic, whose distance is no product of "
            "embeddings: leave one of the two out",
        ),
        (
            ["source_removal={}"],
            "source_removal.by: source: the card names no column of it: set corpus.columns.source=COLUMN",
        ),
        (
            ["objectives={contrastive: {}, source_adversary: {by: acquisition}}"],
            "objectives.source_adversary.by: acquisition: the card names no column of it: set "
            "corpus.columns.acquisition=[COLUMN]",
        ),
        (
            ["curation={within_source: {by: both}}", "corpus.columns.source=label"],
            "curation.within_source.by: both: the card names no column of it: set "
            "corpus.columns.acquisition=[COLUMN]",
        ),
    ],
)
def test_a_missing_column_is_named_before_anything_is_loaded(
    recipe_file: Path, changes: list[str], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        early_checks.check_recipe(loading.load_recipe(str(recipe_file), changes))
    assert str(caught.value) == message


@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_a_run_removes_the_source_and_saves_it(recipe_file: Path, tmp_path: Path, strategy: str) -> None:
    changes = ["corpus.columns.source=group_id", f"strategy={strategy}", "train.epochs=1"]
    for name, more in (("kept", []), ("removed", ["source_removal={}"])):
        recipe = loading.load_recipe(str(recipe_file), [*changes, *more])
        assert finetune(recipe, RunOptions(folder=tmp_path / name, quiet=True)) is not None
    items = load_inputs(recipe, "train").train_items.items
    fit = fit_items(SourceRemoval(), items)

    def spread(folder: Path) -> float:
        """The largest difference of the mean of a source from that of its label."""
        rows = CachedEncoder(load_model(folder / "model")).images(items)
        means = [
            rows[(fit.strata == s) & (fit.concept == c)].mean(axis=0) - rows[fit.strata == s].mean(axis=0)
            for s, c in {*zip(fit.strata.tolist(), fit.concept.tolist(), strict=True)}
        ]
        return float(np.linalg.norm(means, axis=1).max())

    assert spread(tmp_path / "removed") < 0.2 * spread(tmp_path / "kept")
    results = json.loads((tmp_path / "removed" / "results.json").read_text(encoding="utf-8"))
    assert results["run"]["facts"]["source_removal"].endswith(f"of {fit.sources} sources")
    assert "2306.03819" in (tmp_path / "removed" / "report.md").read_text(encoding="utf-8")
    assert results["run"]["learning"] > 0
