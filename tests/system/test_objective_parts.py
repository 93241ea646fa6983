"""What objectives leave in a model, by whole runs: a captioner, and a space with a distance of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from domainclip.config import loading as loading_config
from domainclip.models import loading
from domainclip.pipelines import finetune
from domainclip.pipelines.checkpoint_model import load_checkpoint
from domainclip.training.run_context import RunOptions


def _run(recipe: Path, folder: Path, *changes: str) -> dict[tuple[str, str], tuple[float, float]]:
    """The value of base and adapted model by probe and metric."""
    common = ["strategy={lora: {rank: 2}}", "probes={retrieval: {}, written_captions: {max_items: 8}}"]
    finetune.finetune(
        loading_config.load_recipe(str(recipe), [*common, *changes]), RunOptions(folder=folder, quiet=True)
    )
    rows = json.loads((folder / "results.json").read_text())["results"]
    return {(row["probe"], row["metric"]): (row["base"]["value"], row["adapted"]["value"]) for row in rows}


def test_what_objectives_leave_in_a_model_is_saved_measured_and_loaded(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "captioning"
    objectives = "objectives={contrastive: {}, captioning: {layers: 1, width: 16, heads: 2, rate: 100}}"
    rows = _run(recipe_file, run, objectives)
    assert rows["written_captions", "cider"][0] == rows["written_captions", "cider_nearest"][0]
    assert rows["written_captions", "cider"][1] != rows["written_captions", "cider_nearest"][1]
    captioner = loading.load_model(run / "model").captioner
    last = load_checkpoint(str(max((run / "checkpoints").glob("step-*")))).captioner
    assert captioner is not None
    assert last is not None
    assert all(torch.equal(weight, last.weights[name]) for name, weight in captioner.weights.items())
    assert torch.equal(captioner.vocabulary, last.vocabulary)
    run = tmp_path / "hyperbolic"
    rows = _run(recipe_file, run, "objectives={hyperbolic: {rate: 100}}")
    space = loading.load_model(run / "model").space
    assert space is not None
    assert float(space.weights["directions"].abs().max()) > 0
    assert any(probe == "retrieval" for probe, _ in rows)
