"""Every objective on the disk beside `contrastive`, one real step of a tiny model with LoRA: whole and in micro-batches."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from domainclip import components, registry
from domainclip.data.batching.extras import BatchExtras
from domainclip.data.batching.matches import MatchKeys
from domainclip.data.cards import Prompts
from domainclip.data.text.training_pair import TrainingPair
from domainclip.models import dual_encoder, loading
from domainclip.models.patch_embeddings import patch_grid
from domainclip.objectives.base import Sizes, Teacher
from domainclip.strategies.lora import Lora
from domainclip.training import step
from domainclip.training.further_images import patch_pixels
from domainclip.training.memory import Memory
from domainclip.training.views import StepBatch
from tests.objectives.filled_views import _some_rows
from tests.objectives.test_composition import NAMES, options
from tests.support.tiny_models import tiny_clip

PAIRS, PROSE = 20, 4  # more pairs than dimensions, so that all directions are there
SAID = [
    "a red circle on the left", "two small squares. no dots", "a line in the upper part", "nothing at all to see here",
    "three yellow dots on the right", "a white cat and a black dog", "chest xray. no effusion. normal heart", "a star",
]  # fmt: skip
TEXTS = [f"{SAID[i % 8]} {i}" for i in range(PAIRS)]
CLASSES = {name: Prompts(positive=[name]) for name in ("cat", "dog")}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("base") / "clip")


def _adapted(base: Path) -> dual_encoder.DualEncoder:
    torch.manual_seed(0)
    loaded = loading.load_model(base)
    factors = Lora(rank=2).learning_rates(loaded)
    with torch.no_grad():  # an adapter starts as nothing: give it something to say
        for name, weight in loaded.weights().items():
            weight.requires_grad_(factors[name] > 0)
            if ".lora_B." in name:
                weight.normal_(0, 0.05)
    return loaded.train()


def _batch(loaded: dual_encoder.DualEncoder, name: str, objective: Any) -> StepBatch:
    """What the loop would bring for this one objective."""
    draw = torch.Generator().manual_seed(3)
    height, width = loaded.image_size
    needs = objective.needs
    groups = [name for name in ("image_2", "mixed_image", "masked_tokens") if name in needs]
    anchors = 3 if "anchor_image" in needs else 0
    shape = ((1 + len(groups)) * PAIRS + anchors, height, width, 3)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)
    rows = F.normalize(torch.randn(4, PAIRS, loaded.width, generator=draw), dim=-1)
    said = [
        objective.extra_texts(TrainingPair(text, (text, f"here: {TEXTS[i - 1]}"), ("en", "en"), ("cat",), _meta(text), i, CLASSES))
        for i, text in enumerate(TEXTS)
    ] if "extra_text" in needs else []  # fmt: skip
    patches = prod(patch_grid(loaded))
    prose = [f"the word {i}" for i in range(PROSE)] if "anchor_text" in needs else []
    return StepBatch(
        {"pixels": pixels},
        None,
        TEXTS + prose,
        None,
        MatchKeys.of_groups(torch.tensor([0, 0, *range(2, PAIRS)])),
        rows[0][:PROSE] if prose else None,
        extras=BatchExtras(
            {name: said} if said else {},
            {name: torch.rand(PAIRS, generator=draw)} if "pair_value" in needs else {},
            torch.rand(PAIRS, 3, generator=draw) > 0.5 if "labels" in needs else None,
            torch.rand(PAIRS, 3, generator=draw) > 0.5 if "tags" in needs else None,
        ),
        groups=tuple(groups),
        mixed_share=torch.rand(PAIRS, generator=draw) if "mixed_image" in needs else None,
        patch_mask=torch.arange(patches).expand(PAIRS, patches) % 2 == 1
        if "masked_tokens" in needs
        else None,
        patch_pixels=patch_pixels(pixels[:PAIRS], loaded) if "patch_pixels" in needs else None,
        caption_ids=loaded.text_tokenizer.word_ids(TEXTS) if "caption_ids" in needs else None,
        base_anchor_image=rows[2][:anchors] if anchors else None,
        base_scale=10.0,
        base_image=rows[1] if "base_image" in needs else None,
        third_tower=rows[1] if "third_tower" in needs else None,
        teachers={name: (Teacher(rows[2], rows[3], 5.0),)} if "teachers" in needs else {},
    )


def _meta(text: str) -> dict[str, Any]:
    """Something under whatever key an objective made with the least options looks for."""
    return {"some": f"{text} as well"}


def _gradients(loaded: dual_encoder.DualEncoder) -> dict[str, Tensor]:
    found = {n: w.grad.clone() for n, w in loaded.weights().items() if w.grad is not None}
    loaded.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_one_step_whole_and_in_micro_batches(base: Path, name: str) -> None:
    objective = registry.build("objectives", name, options(name), f"objectives.{name}")
    loss = registry.build("objectives", "contrastive", {}, "objectives.contrastive")
    terms = components.WeightedObjectives({"contrastive": (1.0, loss), name: (0.5, objective)})
    loaded, accelerator = _adapted(base), Accelerator(cpu=True)
    ids = loaded.text_tokenizer.word_ids(TEXTS)
    vocabulary = ids[ids >= 0].unique().numpy()
    rows = _some_rows(loaded.width)
    sizes = Sizes(loaded.width, loaded.width, 3, 3, rows, vocabulary, loaded.max_tokens, sources=2)
    if own := objective.initial_weights(sizes, 0):
        loaded.add_objective_weights(name, own)
    batch = _batch(loaded, name, objective)
    memory = Memory.initial(terms, sizes, 0, loaded.weights(), torch.device("cpu"))
    if any(memory.objectives.values()):  # a step before, of other pairs
        before = step.compute_gradients(
            loaded,
            loaded,
            replace(batch, keys=batch.keys.map(lambda key: key + 1000)),
            terms,
            None,
            0,
            accelerator,
            memory,
        )
        memory.update(loaded.weights(), before.memory)
        loaded.zero_grad(set_to_none=True)
    whole = step.compute_gradients(loaded, loaded, batch, terms, None, 0, accelerator, memory)
    expected = _gradients(loaded)
    held = step.compute_gradients(loaded, loaded, batch, terms, 7, 0, accelerator, memory)
    found = _gradients(loaded)
    assert held.figures.terms == pytest.approx(whole.figures.terms, rel=1e-4, abs=1e-5)
    assert whole.figures.terms[name] != 0
    assert expected.keys() == found.keys()
    assert sum(".lora_B." in weight for weight in expected) > 3
    largest = max(grad.abs().max().item() for grad in expected.values())
    assert largest > 0
    for weight, grad in expected.items():
        assert (grad - found[weight]).abs().max().item() <= 1e-4 * max(1.0, largest), weight
