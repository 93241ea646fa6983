"""`train.seeds`: a run for each seed, exactly as alone, and one report of mean and range."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainclip.config import loading
from domainclip.errors import DomainclipError, ExitCode, Interrupted, ModelError, RecipeError
from domainclip.models.loading import load_model
from domainclip.pipelines import finetune, finetune_seeds
from domainclip.pipelines.ablation import plan
from domainclip.report.ablation_results import AblationFile
from domainclip.report.results_file import load as load_results
from domainclip.training.run_context import RunOptions
from tests.support.runs_in_process import runs_in_process

SEEDS = ["train.seeds=[0, 7]", "train.epochs=1", "probes=[zero_shot]"]


def _finetune(file: Path, folder: Path, *overrides: str, resume: bool = False) -> Path | None:
    options = RunOptions(folder=folder, resume=resume, quiet=True, command="domainclip finetune")
    return finetune.finetune(loading.load_recipe(str(file), overrides), options)


def test_two_seeds_are_two_runs_and_one_report(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    taken, out = runs_in_process(monkeypatch), tmp_path / "out"
    page = _finetune(recipe_file, out, *SEEDS)
    assert page == out / "report.html"
    assert taken == ["seed-0", "seed-7"]
    file = AblationFile.model_validate_json((out / "report.json").read_bytes())
    assert [variant["seeds"] for variant in file.variants] == [[0, 7]]
    assert file.choice is None
    # One evaluation of two models, and not three readings of the test split.
    assert file.protocol["readings"] == "the test split has been read once, for 2 adapted models"
    (accuracy,) = (result for result in file.results if result.metric == "accuracy")
    (variant,) = accuracy.variants
    values = {str(seed): _accuracy(out / f"seed-{seed}") for seed in (0, 7)}
    assert variant.seeds == values
    assert variant.mean == pytest.approx(sum(values.values()) / 2)
    told = (out / "report.md").read_text()
    low, high = sorted(f"{value:.3f}" for value in values.values())
    assert f"[{low} to {high}]" in told
    assert "2 training runs" in told.splitlines()[0]
    assert "one training run" not in told
    # Each run is exactly the run of its seed alone.
    _finetune(recipe_file, tmp_path / "alone", "train.seed=7", *SEEDS[1:])
    weights = [
        (run / "model" / "model.safetensors").read_bytes()
        for run in (out / "seed-7", tmp_path / "alone", out / "seed-0")
    ]
    assert weights[0] == weights[1] != weights[2]
    # A second call is refused, --resume repeats nothing, and an interrupted run goes on from its checkpoint.
    with pytest.raises(RecipeError, match="holds a run already; continue it with --resume"):
        _finetune(recipe_file, out, *SEEDS)
    for name in ("README.md", "results.json", "model/model.safetensors"):
        (out / "seed-7" / name).unlink()
    taken.clear()
    assert _finetune(out / "recipe.yaml", out, resume=True) == page
    assert taken == ["seed-7 resumed"]
    assert (out / "seed-7" / "model" / "model.safetensors").read_bytes() == weights[0]
    again = AblationFile.model_validate_json((out / "report.json").read_bytes())
    assert again.results == file.results
    # The run alone was a second reading, by the same model; to go on is none.
    assert again.protocol["readings"] == "the test split has been read 2 times, for 2 adapted models"
    # The folder has no model of its own, and says which to name.
    with pytest.raises(ModelError) as caught:
        load_model(out)
    assert str(caught.value).endswith(f"a run of 2 seeds, each with its model: name one: {out / 'seed-0'}")
    with pytest.raises(RecipeError, match="seed-0: holds a run of another recipe"):
        _finetune(recipe_file, out, *SEEDS, "train.epochs=2", resume=True)


def _accuracy(run: Path) -> float:
    """Of the adapted model, as the run's own report has it."""
    rows = load_results(run / "results.json").results
    (value,) = (row.adapted.value for row in rows if row.metric == "accuracy" and row.adapted)
    assert value is not None
    return value


def test_a_seed_that_fails_is_named_and_the_others_are_reported(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_in_process(monkeypatch)
    plain = finetune.train_in_stages

    def fails_once(setup, run):  # type: ignore[no-untyped-def]
        if setup.settings.seed == 7:
            raise ModelError("the disk is full")
        return plain(setup, run)

    monkeypatch.setattr(finetune, "train_in_stages", fails_once)
    with pytest.raises(DomainclipError, match="1 of 2 runs failed: seed-7; the others stand in"):
        _finetune(recipe_file, tmp_path / "out", *SEEDS)
    file = json.loads((tmp_path / "out" / "report.json").read_text())
    assert file["variants"][0]["failed"] == {"7": "the disk is full"}
    told = (tmp_path / "out" / "report.md").read_text()
    assert "one training run" in told.splitlines()[0]
    assert "one training run: the intervals hold the luck of the items, and not that of the seed" in told


def test_an_interrupted_run_says_how_to_continue(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise Interrupted("stopped with 1 of 2 runs complete; the same command continues them", ExitCode(130))

    monkeypatch.setattr(finetune_seeds, "run_and_compare", stopped)
    with pytest.raises(Interrupted) as caught:
        _finetune(recipe_file, tmp_path / "out", *SEEDS)
    how = f"continue them with --resume --run-dir {tmp_path / 'out'}"
    assert str(caught.value) == f"stopped with 1 of 2 runs complete; {how}"
    assert caught.value.code == 130


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["train.seeds=1"], "train.seeds"),
        (["train.seeds=[3]"], "seeds names at least two different seeds; for a single run set seed"),
        (["train.seeds=[3, 3]"], "seeds names at least two different seeds; for a single run set seed"),
        (["train.seeds=[3, 4]", "train.seed=2"], "leave seed out, or set seeds to a number"),
    ],
)
def test_seeds_that_make_no_sense(recipe_file: Path, changes: list[str], line: str) -> None:
    with pytest.raises(RecipeError) as caught:
        loading.load_recipe(str(recipe_file), changes)
    assert line in str(caught.value)


def test_seeds_by_number_begin_at_the_seed(recipe_file: Path) -> None:
    def seeds(*changes: str) -> list[int]:
        return loading.load_recipe(str(recipe_file), changes).train.all_seeds()

    assert seeds() == [0]
    assert seeds("train.seed=4") == [4]
    assert seeds("train.seeds=3") == [0, 1, 2]
    assert seeds("train.seeds=3", "train.seed=4") == [4, 5, 6]
    assert seeds("train.seeds=[9, 2]") == [9, 2]
    one = loading.load_recipe(str(recipe_file), ["train.seed=4"])
    several = loading.load_recipe(str(recipe_file), ["train.seed=4", "train.seeds=3"])
    assert one.digest() == several.digest()  # the run of a seed is the same alone and among others


def test_other_commands_take_one_seed(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plan.yaml").write_text(
        f"recipe: {recipe_file.name}\noverrides: [train.seeds=2]\nvariants: {{a: []}}\n"
    )
    with pytest.raises(RecipeError, match=r"plan\.yaml: overrides: train\.seeds: set it under seeds"):
        plan.load(str(tmp_path / "plan.yaml"), [], None)
    recipe_file.write_text(recipe_file.read_text().replace("train: {", "train: {seeds: 2, "))
    (tmp_path / "plan.yaml").write_text(f"recipe: {recipe_file.name}\nvariants: {{a: []}}\n")
    with pytest.raises(RecipeError, match=r"squares\.yaml: train\.seeds: set it under seeds of the plan"):
        plan.load(str(tmp_path / "plan.yaml"), [], None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match=r"train\.seeds: starts the processes of each run itself"):
        _finetune(recipe_file, tmp_path / "run")
