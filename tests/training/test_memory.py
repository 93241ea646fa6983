"""The memory of objectives: averages of the weights, queues, and a resumed run that ends bit-equal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from domainclip.components import WeightedObjectives
from domainclip.config import loading as loading_config
from domainclip.data.batching.matches import MatchKeys
from domainclip.models import dual_encoder, loading
from domainclip.objectives.base import Objective, ObjectiveInputs, Sizes, Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.pipelines import finetune
from domainclip.strategies.lora import Lora
from domainclip.training import step
from domainclip.training.checkpointing import checkpoint
from domainclip.training.memory import Memory
from domainclip.training.run_context import RunOptions
from domainclip.training.views import StepBatch
from tests.support.processes import finetuned
from tests.support.tiny_models import noise, stack


@dataclass(frozen=True, kw_only=True)
class Watching(Objective):
    """Remembers the momentum embeddings of the batch."""

    citation: ClassVar[str] = "none"
    needs: ClassVar[frozenset[str]] = frozenset({"momentum_image", "momentum_text", "image_2"})

    @property
    def inputs(self) -> ObjectiveInputs:
        return ObjectiveInputs(momentum=0.75)

    def initial_memory(self, sizes: Sizes, seed: int) -> dict[str, Tensor]:
        return {"image": torch.zeros(0, sizes.width), "text": torch.zeros(0, sizes.width)}

    def update_memory(self, views: Views) -> dict[str, Tensor]:
        assert views.momentum_image is not None
        assert views.momentum_text is not None
        return {"image": views.momentum_image, "text": views.momentum_text}

    def __call__(self, views: Views) -> Tensor:
        assert views.momentum_image is not None
        assert not views.momentum_image.requires_grad
        return (views.image * views.momentum_image).sum(dim=-1).mean()


CPU = torch.device("cpu")
TERMS = WeightedObjectives({"contrastive": (1.0, Contrastive()), "watching": (1.0, Watching())})


def _model(base: Path) -> tuple[dual_encoder.DualEncoder, dict[str, torch.nn.Parameter]]:
    loaded = loading.load_model(base)
    torch.manual_seed(0)
    factors = Lora(rank=2, dropout=0.5).learning_rates(loaded)
    return loaded.train(), {name: w for name, w in loaded.weights().items() if factors[name] > 0}


def test_the_average_follows_the_weights_by_hand(base: Path) -> None:
    _, weights = _model(base)
    memory = Memory.initial(TERMS, Sizes(16), 0, weights, CPU)
    name = next(name for name in weights if ".lora_A." in name)
    before = weights[name].detach().clone()
    with torch.no_grad():
        weights[name].add_(1.0)
    memory.update(weights, {})
    assert torch.allclose(memory.averages[name], before + 0.25)
    memory.update(weights, {})
    assert torch.allclose(memory.averages[name], before + 0.25 + 0.75 * 0.25)
    plain = WeightedObjectives({"contrastive": (1.0, Contrastive())})
    assert Memory.initial(plain, Sizes(16), 0, weights, CPU).groups() == {}


@pytest.mark.parametrize("micro", [None, 2])
def test_the_batch_is_encoded_with_the_averages_and_without_dropout(base: Path, micro: int | None) -> None:
    loaded, weights = _model(base)
    memory = Memory.initial(TERMS, Sizes(loaded.width), 0, weights, CPU)
    draw = torch.Generator().manual_seed(1)
    for average in memory.averages.values():
        average.add_(0.2 * torch.randn(average.shape, generator=draw))
    kept = {name: weight.detach().clone() for name, weight in loaded.weights().items()}
    averages = {name: average.clone() for name, average in memory.averages.items()}
    pixels = stack(loaded.image_preprocessor(noise(40, 36, seed=i)) for i in range(10))  # with second views
    texts = [f"a red circle {i % 3}" for i in range(5)]
    keys = MatchKeys.of_groups(torch.arange(5))
    batch = StepBatch(pixels, None, texts, None, keys, None, groups=("image_2",))
    output = step.compute_gradients(loaded, loaded, batch, TERMS, micro, 0, Accelerator(cpu=True), memory)
    assert all(torch.equal(weight, kept[name]) for name, weight in loaded.weights().items())
    assert all(torch.equal(average, averages[name]) for name, average in memory.averages.items())
    assert any(module.training for module in loaded.modules())
    loaded.eval()
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(averages[name])
        image = loaded.encode_image({name: value[:5] for name, value in pixels.items()})
        text = loaded.encode_text(loaded.text_tokenizer(texts))
    found = output.memory["watching"]
    assert torch.allclose(found["image"], image, atol=1e-6)
    assert torch.allclose(found["text"], text, atol=1e-6)


def test_what_was_saved_is_restored(base: Path) -> None:
    _, weights = _model(base)
    memory = Memory.initial(TERMS, Sizes(16), 0, weights, CPU)
    memory.update(weights, {"watching": {"image": torch.ones(3, 16), "text": torch.ones(2, 16)}})
    for average in memory.averages.values():
        average.mul_(3)
    saved = {name: tensor.clone() for name, tensor in memory.groups()["memory"].items()}
    fresh = Memory.initial(TERMS, Sizes(16), 0, weights, CPU)
    assert not torch.equal(fresh.groups()["memory"]["watching/image"], saved["watching/image"])
    fresh.restore(saved)
    assert saved.keys() == fresh.groups()["memory"].keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in fresh.groups()["memory"].items())


# --- whole runs ----------------------------------------------------------------------------------------

STATEFUL = (
    "objectives={contrastive: {}, momentum_queue: {size: 24, momentum: 0.9}, neighbours: {size: 24}, "
    "self_distillation: {momentum: 0.9, count: 8}, prototypes: {count: 8}, mixing: {}, tags: {min_items: 1}, "
    "masked_patches: {momentum: 0.9, count: 8}, cluster_labels: {count: 6, per_image: 2}, "
    "captioning: {layers: 1, width: 8, heads: 2, parallel: 0.5}, caption_diversity: {count: 2}, "
    "episodic_prototypes: {count: 4, size: 24, episode: 3}}"
)
CHANGES = [STATEFUL, "strategy={lora: {rank: 2}}", "train.micro_batch_size=5", "probes=[zero_shot]"]


def _finetune(file: Path, folder: Path, *changes: str, resume: bool = False) -> None:
    finetune.finetune(
        loading_config.load_recipe(str(file), list(changes)),
        RunOptions(folder=folder, resume=resume, quiet=True),
    )


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _groups(folder: Path, number: int = 8) -> Mapping[str, Mapping[str, Tensor]]:
    return checkpoint.load(folder / "checkpoints" / f"step-{number:06d}")[0]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))


@pytest.mark.usefixtures("cache")
def test_a_run_resumed_with_queues_and_averages_ends_bit_equal(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _finetune(recipe_file, folder, *CHANGES)
    end = _groups(folder)
    assert len(end["memory"]["momentum_queue/text"]) == 24
    own = "extra/objectives.prototypes.directions"
    assert end["weights"][own].shape == (8, 16)
    assert not torch.equal(end["memory"][f"averages/{own}"], end["weights"][own])
    saved = folder / "model" / "adapter_model.safetensors"
    model = saved.read_bytes()
    assert not [name for name in load_file(saved) if "objectives" in name]  # none of it is in the model
    shutil.rmtree(folder / "checkpoints" / "step-000008")
    _finetune(folder / "recipe.yaml", folder, resume=True)
    assert saved.read_bytes() == model
    again = _groups(folder)
    assert end.keys() == again.keys()
    for group in end:
        assert all(torch.equal(tensor, again[group][name]) for name, tensor in end[group].items()), group


@pytest.mark.usefixtures("cache")
def test_two_processes_remember_what_one_does(recipe_file: Path, tmp_path: Path) -> None:
    _finetune(recipe_file, tmp_path / "alone", *CHANGES)
    finetuned(recipe_file, tmp_path / "together", *CHANGES)
    one, two = ([line["terms"] for line in _lines(tmp_path / name)] for name in ("alone", "together"))
    for number, (alone, together) in enumerate(zip(one, two, strict=True)):
        # Rounding decides between two neighbours, or centres, that are equally near, once the runs differ in it.
        near = {"neighbours", "episodic_prototypes"} if number > 1 else set[str]()
        for name in alone.keys() - near:
            assert together[name] == pytest.approx(alone[name], abs=2e-3), (number, name)
    first, second = (_groups(tmp_path / name)["memory"] for name in ("alone", "together"))
    assert torch.equal(first["momentum_queue/caption"], second["momentum_queue/caption"])
    assert torch.allclose(first["momentum_queue/text"], second["momentum_queue/text"], atol=1e-3)
