"""`merge`: plain weights with the updates of all runs, refusals, the training record, and the reports."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from domainclip.cli.app import main
from domainclip.config import loading as config_loading
from domainclip.errors import ModelError, RecipeError
from domainclip.evaluation import contamination
from domainclip.evaluation.contamination import TrainingRecord
from domainclip.models import loading
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.plain_weights import make_plain
from domainclip.models.saving import save_model
from domainclip.pipelines.merge import merge, report_lines
from domainclip.pipelines.merge_request import MergeRequest
from domainclip.strategies.base import Strategy
from domainclip.strategies.full import Full
from domainclip.strategies.lora import Lora
from tests.support.tiny_models import tiny_clip


def _run(folder: Path, recipe_file: Path, base: Path, strategy: Strategy, seed: int) -> Path:
    """A run folder without its reports: a model whose weights have moved, its recipe, its training record."""
    model = loading.load_model(base)
    factors = strategy.learning_rates(model)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.weights().items():
            if factors[name] > 0:
                weight.add_(0.02 * torch.randn(weight.shape, generator=draw))
    save_model(model, folder / "model")
    recipe = config_loading.load_recipe(str(recipe_file), [f"base={base}"])
    (folder / "recipe.yaml").write_text(recipe.resolved(), encoding="utf-8")
    salt = f"{seed:032x}"
    contamination.save(folder, TrainingRecord(salt, frozenset({contamination._salted("a", salt)})))
    return folder


@pytest.fixture
def runs(tmp_path: Path, recipe_file: Path, base: Path) -> list[Path]:
    return [
        _run(tmp_path / "one", recipe_file, base, Full(), 1),
        _run(tmp_path / "two", recipe_file, base, Lora(rank=2), 2),
    ]


def _plain(folder: Path) -> DualEncoder:
    model = loading.load_model(folder)
    make_plain(model, str(folder))
    return model


def test_the_merged_weights_are_those_of_the_base_and_a_share_of_each_update(
    runs: list[Path], base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    merge(MergeRequest(runs=runs, out=out, shares=[0.75, 0.5]))
    start, merged = _plain(base).weights(), _plain(out).weights()
    one, two = (_plain(run / "model").weights() for run in runs)
    for name, weight in merged.items():
        expected = start[name] + 0.75 * (one[name] - start[name]) + 0.5 * (two[name] - start[name])
        assert torch.allclose(weight, expected, atol=1e-6), name
    assert any(not torch.allclose(merged[name], start[name], atol=1e-3) for name in merged)
    assert json.loads((out / "merge.json").read_text())["shares"] == [0.75, 0.5]
    # Items of either corpus count as trained on.
    known = contamination.load(str(out))
    assert known is not None
    assert len(known) == 2
    assert known.items_of([["a"], ["b"]]) == 1
    assert replace(known, salt="00").items_of([["a"], ["b"]]) == 1  # found by the record of the second run


def test_what_cannot_be_merged_is_refused_and_leaves_nothing(
    runs: list[Path], recipe_file: Path, base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    with pytest.raises(RecipeError, match="at least two"):
        MergeRequest(runs=runs[:1], out=out)
    with pytest.raises(RecipeError, match="--shares: 3 for 2 runs"):
        MergeRequest(runs=runs, out=out, shares=[1, 1, 1])
    other = _run(tmp_path / "other", recipe_file, tiny_clip(tmp_path / "clip", seed=7), Full(), 3)
    with pytest.raises(RecipeError, match="other: its base is not that of"):
        merge(MergeRequest(runs=[runs[0], other], out=out))
    with pytest.raises(RecipeError, match=r"no recipe\.yaml there"):
        MergeRequest(runs=[runs[0], tmp_path / "nothing"], out=out)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.yaml").touch()
    with pytest.raises(ModelError, match="no folder model there"):
        MergeRequest(runs=[runs[0], tmp_path / "begun"], out=out)
    assert not out.exists()
    assert not list(tmp_path.glob(".staging*"))


def test_the_command_measures_on_the_corpus_of_each_run(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    arguments = ["merge", *map(str, runs), "--out", str(out), "--method", "ties", "--evaluate", "validation"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--json"])
    assert not end.value.code
    reports = [Path(page) for page in json.loads(capsys.readouterr().out)["reports"]]
    assert reports == [out / "eval" / run.name / "compare.html" for run in runs]
    for page in reports:
        results = json.loads(page.with_name("results_compare.json").read_text())
        assert len(results["models"]) == 3
    (tmp_path / "x").mkdir()
    again = MergeRequest(runs=[runs[0], tmp_path / "x" / ".." / runs[0].name], out=tmp_path / "twice")
    assert [folder.name for folder in again.reports] == ["one-1", "one-2"]  # of two runs with one name
    # The printed commands are those of the reports.
    for line in report_lines(MergeRequest(runs=runs, out=tmp_path / "again")):
        assert shlex.split(line)[:3] == ["domainclip", "eval", "base"]
