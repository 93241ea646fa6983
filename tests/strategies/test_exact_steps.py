"""One step of the strategies that change what the towers read: cached and shared out, the same gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip import components
from domainclip.data.batching.extras import BatchExtras
from domainclip.data.batching.matches import MatchKeys
from domainclip.models import dual_encoder, loading
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.short_captions import ShortCaptions
from domainclip.strategies.any_resolution import AnyResolution
from domainclip.strategies.long_text import LongText
from domainclip.strategies.multi_frame import MultiFrame
from domainclip.strategies.prompt_learning import PromptLearning
from domainclip.training import step
from domainclip.training.dropped_patches import with_patches_read
from domainclip.training.views import StepBatch
from tests.support.processes import started

PAIRS, FRAMES = 8, 3
TAIL = "and small dots on the left of a large round circle with stripe and cross " * 8
STRATEGIES: dict[str, Any] = {
    "long_text": LongText(),
    "patches": AnyResolution(patch_dropout=0.5),
    "mean": MultiFrame(frames=FRAMES),
    "weighted": MultiFrame(frames=FRAMES, pooling="weighted", image_lr_factor=0),
    "temporal": MultiFrame(frames=FRAMES, pooling="temporal", image_lr_factor=0, text_lr_factor=0),
    "words": PromptLearning(context_tokens=3),
    "each_class": PromptLearning(
        context_tokens=2,
        per_class=True,
        learn_class_names=True,
        classes=["red", "dog"],
        train_logit_scale=True,
    ),
}


def _model(base: Path, name: str) -> dual_encoder.DualEncoder:
    torch.manual_seed(0)
    loaded = loading.load_model(base)
    STRATEGIES[name].learning_rates(loaded)
    for weight in loaded.added_modules.parameters():  # zeros say nothing
        weight.data += 0.3 * torch.randn_like(weight)
    return loaded


def _batch(loaded: dual_encoder.DualEncoder, rows: slice) -> StepBatch:
    draw = torch.Generator().manual_seed(3)
    shape = (PAIRS, FRAMES) if loaded.frames > 1 else (PAIRS,)
    pixels = torch.randint(0, 256, (*shape, *loaded.image_size, 3), dtype=torch.uint8, generator=draw)
    image = {"pixels": pixels[rows]}
    if loaded.frames > 1:
        image["shown"] = (torch.arange(FRAMES) <= torch.arange(PAIRS)[:, None] % FRAMES)[rows]
    image = with_patches_read(image, loaded, 0, 0, range(PAIRS)[rows])
    texts = [
        f"a {('red', 'blue')[i % 2]} {('dog', 'cat')[i // 2 % 2]} {i}. {TAIL if i % 3 else ''}"
        for i in range(PAIRS)
    ]
    said = {"short": [[text.split(".")[0]] for text in texts[rows]]}
    group = torch.arange(PAIRS)
    group[5] = 2
    return StepBatch(
        image, None, texts[rows], None, MatchKeys.of_groups(group[rows]), None, extras=BatchExtras(said)
    )


def _taken(base: Path, name: str, rows: slice, micro: int | None) -> tuple[float, dict[str, Tensor]]:
    loaded = _model(base, name)
    accelerator = Accelerator(cpu=True)
    model: Any = accelerator.prepare(loaded)
    terms = components.WeightedObjectives(
        {"contrastive": (1.0, Contrastive()), "short": (0.5, ShortCaptions(components=3))}
    )
    taken = step.compute_gradients(model, loaded, _batch(loaded, rows), terms, micro, 0, accelerator)
    grads = {n: w.grad.clone() for n, w in loaded.weights().items() if w.grad is not None}
    return taken.loss, grads


def _half(base: Path) -> dict[str, tuple[float, dict[str, Tensor]]]:
    """What one of two processes finds."""
    each = PAIRS // 2
    rank = torch.distributed.get_rank()
    return {name: _taken(base, name, slice(rank * each, (rank + 1) * each), 3) for name in STRATEGIES}


def _assert_same(found: tuple[float, dict[str, Tensor]], expected: tuple[float, dict[str, Tensor]]) -> None:
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    assert found[1].keys() == expected[1].keys()
    largest = max(grad.abs().max().item() for grad in expected[1].values())
    assert largest > 1e-4
    for name, grad in expected[1].items():
        assert (found[1][name] - grad).abs().max().item() <= 1e-5 * max(1.0, largest), name


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("micro", [1, 3])
def test_cached(base: Path, name: str, micro: int) -> None:
    expected = _taken(base, name, slice(None), None)
    _assert_same(_taken(base, name, slice(None), micro), expected)
    learning = {n for n, w in _model(base, name).weights().items() if w.requires_grad}
    assert expected[1].keys() == learning


def test_two_processes(base: Path, tmp_path: Path) -> None:
    for found in started(2, tmp_path, _half, base):
        for name in STRATEGIES:
            _assert_same(found[name], _taken(base, name, slice(None), None))
