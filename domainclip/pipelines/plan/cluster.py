"""Cost model of many devices: time, memory and traffic of a step on w devices, from measurements on one.

The model is small on purpose; `benchmarks/scale.py` compares it with real processes. Computing and sending
are added, since overlap would only be faster. Reading and decoding images is left out.

Legend: w devices, b pairs of a batch, r = b/w of one device, d embedding width, n bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch
from accelerate import Accelerator
from torch import Tensor

from domainclip.errors import RecipeError
from domainclip.objectives.losses import blockwise
from domainclip.training import micro_batch_size, microbatches, step
from domainclip.training import optimizer as training_optimizer
from domainclip.training.setup import TrainingSetup
from domainclip.training.stage_run import initial_memory
from domainclip.training.timing import seconds_per_call
from domainclip.training.views import StepBatch

_FLOAT = 4  # bytes: weights, gradients, moments and embeddings are fp32
_SCALARS = 8  # small messages of a step: losses, lengths, whether to stop


@dataclass(frozen=True)
class Profile:
    """Measurements of a training on one device, in seconds, bytes and numbers."""

    pair: float  # forward and backward of a pair
    fixed: float  # of a pass, whatever it holds
    encode: float  # forward alone, of a pair
    logit: float  # of one combination in the loss
    update: float  # of the optimizer
    weights: int
    learning: int
    width: int
    saved: float  # bytes of activations that a pair keeps for its backward pass


@dataclass(frozen=True)
class Network:
    """The network between the devices."""

    bandwidth: float  # bytes a second that a device sends
    latency: float  # seconds of a message

    def gather(self, size: float, w: int) -> float:
        """Seconds to gather `size` bytes, of all devices together, on each of w, around a ring."""
        return (w - 1) / w * size / self.bandwidth + (w - 1) * self.latency

    def reduce(self, size: float, w: int) -> float:
        """Seconds to sum `size` bytes of each of w devices on all, around a ring."""
        return 2 * self.gather(size, w)


@dataclass(frozen=True)
class Estimate:
    """One step on w devices, as one of them sees it."""

    memory: float  # bytes
    sent: float  # bytes
    computing: float  # seconds
    sending: float  # seconds
    pairs_per_second: float  # of all devices

    @property
    def seconds(self) -> float:
        """Of a step."""
        return self.computing + self.sending


def estimate(
    profile: Profile,
    network: Network,
    *,
    devices: int,
    batch: int,
    micro_batch: int | None = None,
    shard: bool = False,
    crowded: float = 1.0,
) -> Estimate:
    """The cost of a step.

    `micro_batch` is the number of pairs held at once on a device, None: all; `crowded` is the number of
    devices that share the arithmetic of one.

    Raises: RecipeError when the devices cannot share a batch equally.
    """
    if batch % devices:
        raise RecipeError(
            f"train.batch_size: {batch} cannot be shared equally by {devices} devices: take a multiple of "
            f"{devices}"
        )
    rows = batch // devices
    held = min(micro_batch or rows, rows)
    passes = ceil(rows / held)
    computing = passes * profile.fixed + rows * profile.pair + profile.logit * rows * batch
    # Gradient caching encodes all but one micro-batch twice, the first time without a backward pass.
    computing += (rows - held) * profile.encode
    computing += profile.update / (devices if shard else 1)
    gathered = 2 * batch * profile.width * _FLOAT  # both sides' embeddings; their gradients come back summed
    calls = [(network.gather, gathered), (network.reduce, gathered)]
    if shard:  # weights come whole for each forward and backward pass; gradients go to where they belong
        calls += [(network.gather, profile.weights * _FLOAT)] * (2 * passes + (passes > 1) * (passes - 1))
        calls += [(network.gather, profile.learning * _FLOAT)]
    else:
        calls += [(network.reduce, profile.learning * _FLOAT)]
    sending, sent = 0.0, 0.0
    if devices > 1:
        free = Network(1.0, 0.0)  # whose seconds are bytes
        free_calls = [(free.gather if call == network.gather else free.reduce, size) for call, size in calls]
        sending = sum(call(size, devices) for call, size in calls) + _SCALARS * network.latency
        sent = sum(call(size, devices) for call, size in free_calls)
    fixed = _FLOAT * profile.weights + 3 * _FLOAT * profile.learning
    memory = fixed / (devices if shard else 1) + held * profile.saved + 2 * gathered
    seconds = crowded * computing + sending
    return Estimate(memory, sent, crowded * computing, sending, batch / seconds)


def measure(
    setup: TrainingSetup, accelerator: Accelerator, make_batch: Callable[[int], StepBatch]
) -> Profile:
    """The profile of this device; `make_batch(n)` returns a batch of n pairs. Weights stay as they are."""
    model, terms, memory = setup.model, setup.objectives, initial_memory(setup)
    few, many = (make_batch(count) for count in (4, 16))

    def pass_seconds(batch: StepBatch) -> float:
        def run_pass() -> None:
            step.compute_gradients(model, model, batch, terms, None, 0, accelerator, memory)
            model.zero_grad(set_to_none=True)

        return seconds_per_call(run_pass, accelerator.device)

    (split,) = step.split_batch(model, many, None).inputs
    given = microbatches.on_device(split, accelerator.device)

    @torch.no_grad()
    def encode() -> None:
        with accelerator.autocast():
            model(**given)

    small, large = len(few.keys), len(many.keys)
    kept = [micro_batch_size.activation_bytes(model, batch, accelerator) for batch in (few, many)]
    first, second = pass_seconds(few), pass_seconds(many)
    pair = max((second - first) / max(1, large - small), second / large / 4)
    weights = model.weights()
    return Profile(
        pair=pair,
        fixed=max(0.0, first - small * pair),
        encode=seconds_per_call(encode, accelerator.device) / large,
        logit=_logit_seconds(model.width, accelerator.device),
        update=_update_seconds(setup, accelerator.device),
        weights=sum(weight.numel() for weight in weights.values()),
        learning=sum(weight.numel() for name, weight in weights.items() if setup.factors[name] > 0),
        width=model.width,
        # By two points: copies of the weights in bf16 do not grow with the pairs.
        saved=(kept[1] - kept[0]) / (large - small) if large > small else kept[1] / large,
    )


def _logit_seconds(width: int, device: torch.device) -> float:
    rows, batch = 64, 4096
    image = torch.randn(rows, width, device=device, requires_grad=True)
    text = torch.randn(batch, width, device=device, requires_grad=True)
    scale = torch.ones((), device=device)

    def run_loss() -> None:
        grads: list[Tensor] = [image, text]
        blockwise.mean_over_rows(blockwise.cross_entropy, image, text, scale).backward(inputs=grads)

    # Both directions; the columns' gradients are among them.
    return 2 * seconds_per_call(run_loss, device) / (rows * batch)


def _update_seconds(setup: TrainingSetup, device: torch.device) -> float:
    optimizer = training_optimizer.make_optimizer(setup.model, setup.factors, setup.settings, rate=0.0)
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    seconds = seconds_per_call(optimizer.step, device)
    optimizer.zero_grad(set_to_none=True)
    return seconds
