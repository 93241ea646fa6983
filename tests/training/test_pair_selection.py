"""A run that chooses its pairs: only chosen ones are shown, and a run resumed between two choices is bit-equal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from domainclip.config import loading
from domainclip.errors import RecipeError
from domainclip.pipelines import finetune
from domainclip.training.run_context import RunOptions

# Six or more of the forty pairs; a choice at steps 0 and 4, with checkpoints at 2, 4, 6 and 8.
CHANGES = [
    "curation.in_training={every: 4, threshold: 0.99, min_fraction: 0.5}",
    "train.epochs=3",
    "probes=[zero_shot]",
]


def _finetune(recipe: Path, folder: Path, *overrides: str, resume: bool = False) -> None:
    read = loading.load_recipe(str(recipe), overrides)
    finetune.finetune(read, RunOptions(folder=folder, resume=resume, quiet=True))


def _lines(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


def test_a_run_resumed_between_two_choices_ends_bit_equal(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _finetune(recipe_file, folder, *CHANGES)
    lines = _lines(folder)
    last = len(lines)
    saved = sorted((folder / "checkpoints").iterdir())
    between = next(path for path in saved if int(path.name[5:]) % 4 and int(path.name[5:]) < last)
    chosen = load_file(between / "selection.safetensors")["rows"]
    assert lines[int(between.name[5:]) - 1]["selected_pairs"] == len(chosen) < 40
    end = {path.name: path.read_bytes() for path in saved[-1].glob("*.safetensors")}
    for path in saved:
        if int(path.name[5:]) > int(between.name[5:]):
            shutil.rmtree(path)
    _finetune(folder / "recipe.yaml", folder, resume=True)
    again = sorted((folder / "checkpoints").iterdir())[-1]
    assert {path.name: path.read_bytes() for path in again.glob("*.safetensors")} == end
    assert [line["loss"] for line in _lines(folder)] == [line["loss"] for line in lines]
    assert torch.equal(chosen, chosen.unique())  # sorted, each once


def test_it_does_not_work_with_mixed_corpora(recipe_file: Path, corpus: Path, tmp_path: Path) -> None:
    columns = "columns: {image: file_name, texts: text, labels: label, group: group_id, split: split}"
    mixed = f"train.mix={{more: {{path: {corpus}, {columns}, share: 0.25}}}}"
    with pytest.raises(
        RecipeError, match=r"train\.mix: does not work with a curation that orders the batches"
    ):
        _finetune(recipe_file, tmp_path / "run", *CHANGES, mixed)
