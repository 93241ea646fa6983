"""The overfit check: the steps of a training must teach the built-in base 32 pairs by heart, in seconds.

Decoding, tokenizer, model, loss, gradient caching and optimizer are those of a run.
"""

from __future__ import annotations

import io
import time
from itertools import product
from math import log

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from domainclip.components import build_objectives
from domainclip.config import builtin
from domainclip.config.training import TrainConfig
from domainclip.data.batching.matches import MatchKeys
from domainclip.data.images.decode import decode_image
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from domainclip.pipelines.doctor.check import Check
from domainclip.training import optimizer as training_optimizer
from domainclip.training import step as training_step
from domainclip.training.views import StepBatch

_PAIRS, _STEPS, _RATE = 32, 40, 1e-3
_LIMIT = 1.0  # nats, of ln 32 = 3.47 by guessing
_WORDS = (("red", "green", "blue", "white"), ("small", "large"), ("circle", "square", "cross", "line"))


def overfit_check(micro_batch_size: int | None = 16, steps: int = _STEPS) -> Check:
    """Train on 32 random images and 32 captions, on the fastest device of this machine."""
    started = time.monotonic()
    accelerator = Accelerator()
    base = builtin.builtin_folder("examples") / "quickstart" / "base"
    model = load_model(base).to(accelerator.device)
    losses = _train(model, accelerator, micro_batch_size, steps)
    seconds = time.monotonic() - started
    text = (
        f"loss {losses[0]:.2f} to {losses[-1]:.2f} in {steps} steps on {_PAIRS} pairs "
        f"(chance {log(_PAIRS):.2f}), {seconds:.0f} s on {accelerator.device.type}"
    )
    if losses[-1] < _LIMIT:  # False for a loss that is not a number
        return Check("overfit", "ok", text)
    return Check(
        "overfit",
        "fault",
        f"{text}: it must fall below {_LIMIT:g}",
        "install torch anew, and report this with domainclip doctor --bundle FILE if it stays",
    )


def _train(
    model: DualEncoder, accelerator: Accelerator, micro_batch_size: int | None, steps: int
) -> list[float]:
    """The loss of each step; all weights learn."""
    batch, objectives = _batch(model), build_objectives({model.objective: {}})
    factors = dict.fromkeys(model.weights(), 1.0)
    optimizer = training_optimizer.make_optimizer(model, factors, TrainConfig(), _RATE)
    model.set_train_mode({name.split("/")[0] for name in factors})
    losses = []
    for step in range(steps):
        output = training_step.compute_gradients(
            model, model, batch, objectives, micro_batch_size, step, accelerator
        )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(output.loss)
    return losses


def _batch(model: DualEncoder) -> StepBatch:
    """32 images of random blocks, as PNG files, each with a caption of its own."""
    draws = np.random.default_rng(0)
    inputs = []
    for _ in range(_PAIRS):
        blocks = Image.fromarray(draws.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        stream = io.BytesIO()
        blocks.resize((64, 64), Image.Resampling.NEAREST).save(stream, "PNG")
        inputs.append(model.image_preprocessor(decode_image({"path": None, "bytes": stream.getvalue()})))
    pixels = {name: torch.from_numpy(np.stack([one[name] for one in inputs])) for name in inputs[0]}
    captions = [f"a {' '.join(words)}" for words in product(*_WORDS)]
    return StepBatch(pixels, None, captions, None, MatchKeys.of_groups(torch.arange(_PAIRS)), None)
