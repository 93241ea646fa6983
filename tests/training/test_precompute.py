"""A run that computes locked parts once gives the weights of one that computes them in every step."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from domainclip import components, disk_cache
from domainclip.config import loading
from domainclip.objectives.base import Objective, Views
from domainclip.pipelines.finetune import finetune
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.training_setup import make_setup
from domainclip.training import micro_batch_size
from domainclip.training.precompute import cache_features
from domainclip.training.run_context import RunOptions
from domainclip.training.setup import TrainingSetup

LAYERS = "strategy={full: {last_layers: 1}}"
ADAPTER = "strategy={lora: {last_layers: 1, rank: 2, dropout: 0.2, targets: attention+mlp}}"
DORA = "strategy={lora: {last_layers: 1, rank: 2, dropout: 0.2, dora: true, rslora: true}}"
ANCHOR = "objectives={contrastive: {}, anchor: {weight: 0.5}}"
QUICK = ("train.epochs=2", "anchor_texts={count: 32, per_step: 4}", "weight_interpolation=null")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


def _job(recipe_file: Path, *changes: str) -> TrainingSetup:
    ready = load_inputs(loading.load_recipe(str(recipe_file), changes), "train")
    return make_setup(ready)


@pytest.mark.parametrize("strategy", [LAYERS, ADAPTER, DORA], ids=["layers", "adapter", "dora"])
def test_hidden_states_give_the_weights_of_the_plain_path(
    recipe_file: Path, tmp_path: Path, strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for name, keep in (("cached", "true"), ("plain", "false")):
        changes = [strategy, ANCHOR, *QUICK, f"train.cache_features={keep}", "train.micro_batch_size=6"]
        finetune(loading.load_recipe(str(recipe_file), changes), RunOptions(folder=tmp_path / name))
        said = capsys.readouterr().err
        assert ("cached: hidden states below layer 2 of 2 of 40 images" in said) == (name == "cached")
        assert ("not cached" in said) is False
        (weights,) = (tmp_path / name / "model").glob("*model.safetensors")
        found[name] = load_file(weights)
    moved = 0
    for name, tensor in found["cached"].items():
        # The bias of keys has no gradient but rounding, of which the optimizer makes whole steps.
        assert name.endswith("k_proj.bias") or torch.allclose(tensor, found["plain"][name], atol=1e-5), name
        moved += "lora_B" in name and bool(tensor.abs().sum())
    assert moved or strategy == LAYERS


def test_the_second_run_finds_again_what_the_first_kept(recipe_file: Path) -> None:
    first, second = (cache_features(_job(recipe_file, LAYERS).stage_inputs()) for _ in range(2))
    assert [note.split(":")[0] for note in first.notes] == ["cached", "cached"]
    assert [note.split(":")[0] for note in second.notes] == ["reused", "reused"]
    assert first.notes[1].endswith(f"in {disk_cache.root()}")
    assert (second.precomputed.image_features == first.precomputed.image_features).all()
    assert second.pairs[0, 3].image is None  # no picture is decoded


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        (
            [LAYERS, "train.augmentation=crop"],
            [
                "cached: hidden states below layer 2 of 2 of 16 texts, 0.00 GB in {cache}",
                "images are not cached: train.augmentation crop changes each in every epoch",
            ],
        ),
        (
            ["strategy=locked_image", "train.feature_cache_gb=0.000001"],
            ["not cached: embeddings of 40 images, 0.00 GB: more than train.feature_cache_gb allows"],
        ),
        (["strategy=locked_text"], ["cached: embeddings of 16 texts, 0.00 GB in {cache}"]),
        (["strategy=full"], []),
        ([LAYERS, "train.cache_features=false"], []),
    ],
)
def test_what_is_kept_and_why_not(recipe_file: Path, changes: list[str], notes: list[str]) -> None:
    stage = cache_features(_job(recipe_file, *changes).stage_inputs())
    assert list(stage.notes) == [note.format(cache=disk_cache.root()) for note in notes]


def test_other_views_in_other_epochs_are_said(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = _job(recipe_file, "strategy=locked_image")
    monkeypatch.setattr(type(setup.pairs), "views_change", property(lambda self: True))
    assert cache_features(setup.stage_inputs()).notes == (
        "images are not cached: each epoch shows a different view of an item; corpus.views=first always shows the first one",
    )


def test_a_family_that_cannot_begin_midway_is_said(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = _job(recipe_file, LAYERS)
    monkeypatch.setattr(type(setup.model), "accepts_hidden_states", ("text",))
    assert cache_features(setup.stage_inputs()).notes[1] == (
        "images are not cached: the image tower of family clip does not accept hidden states"
    )


def test_embeddings_are_not_enough_for_a_term_that_looks_at_tokens(recipe_file: Path) -> None:
    class Tokens(Objective):
        needs = frozenset({"image_tokens"})

        def __call__(self, views: Views) -> Tensor:
            return views.scale

    setup = _job(recipe_file, "strategy=locked_image")
    objectives = components.WeightedObjectives({"tokens": (1.0, Tokens())})
    assert (
        cache_features(replace(setup, objectives=objectives).stage_inputs()).precomputed.image_features
        is None
    )


def test_a_measured_micro_batch_is_written_down_and_not_measured_again(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = ["train.micro_batch_size=auto", "strategy={lora: {rank: 2, dropout: 0.2}}", *QUICK]
    monkeypatch.setattr(micro_batch_size, "find_micro_batch_size", lambda *_: 5)
    finetune(loading.load_recipe(str(recipe_file), changes), RunOptions(folder=tmp_path / "auto", quiet=True))
    finetune(
        loading.load_recipe(str(recipe_file), [*changes, "train.micro_batch_size=5"]),
        RunOptions(folder=tmp_path / "set", quiet=True),
    )
    auto, plain = (
        load_file(tmp_path / name / "model" / "adapter_model.safetensors") for name in ("auto", "set")
    )
    assert all(torch.equal(auto[name], tensor) for name, tensor in plain.items())
    steps = sorted((tmp_path / "auto" / "checkpoints").glob("step-*"))
    assert json.loads((steps[-1] / "state.json").read_text())["micro_batch_size"] == 5
    for file in sorted(steps[-1].glob("*"), reverse=True):
        file.unlink()
    steps[-1].rmdir()

    def never(*_: object) -> int:
        raise AssertionError("it was measured again")

    monkeypatch.setattr(micro_batch_size, "find_micro_batch_size", never)
    finetune(
        loading.load_recipe(str(tmp_path / "auto" / "recipe.yaml")),
        RunOptions(folder=tmp_path / "auto", resume=True, quiet=True),
    )
    again = load_file(tmp_path / "auto" / "model" / "adapter_model.safetensors")
    assert all(torch.equal(auto[name], tensor) for name, tensor in again.items())
