"""Many devices on paper: what a step costs on one of w, from what one device was measured to do.

The model is small on purpose, and `benchmarks/scale.py` says how far off it is. Time is what a device
computes, plus what it sends, one after the other: overlap would only make it faster. Reading pictures is not
in it.

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
from domainclip.training import micro_batch_size, step
from domainclip.training import optimizer as training_optimizer
from domainclip.training.setup import TrainingSetup
from domainclip.training.timing import seconds_per_call
from domainclip.training.views import StepBatch

_FLOAT = 4  # bytes: weights, gradients, moments and embeddings are fp32
_SCALARS = 8  # small messages of a step: losses, lengths, whether to stop


@dataclass(frozen=True)
class Profile:
    """What one device was measured to do with a job, in seconds, bytes and numbers."""

    pair: float  # forward and backward of a pair
    fixed: float  # of a pass, whatever it holds
    encode: float  # forward alone, of a pair
    logit: float  # of one combination in the loss
    update: float  # of the optimizer
    weights: int
    learning: int
    width: int
    saved: float  # bytes that a pair's forward keeps for its backward


@dataclass(frozen=True)
class Network:
    """What lies between the devices."""

    bandwidth: float  # bytes a second that a device sends
    latency: float  # seconds of a message

    def gather(self, size: float, w: int) -> float:
        """Seconds until `size` bytes of all devices together stand on each, around a ring."""
        return (w - 1) / w * size / self.bandwidth + (w - 1) * self.latency

    def reduce(self, size: float, w: int) -> float:
        """Seconds until `size` bytes of each device are summed everywhere, around a ring."""
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
    held: int | None = None,
    shard: bool = False,
    crowded: float = 1.0,
) -> Estimate:
    """`held` pairs at once on each device, None: all; `crowded`: devices that share one device's arithmetic.

    Raises: RecipeError when the devices cannot share a batch equally.
    """
    if batch % devices:
        raise RecipeError(
            f"train.batch_size: {batch} cannot be shared equally by {devices} devices: take a multiple of "
            f"{devices}"
        )
    rows = batch // devices
    held = min(held or rows, rows)
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


def measure(setup: TrainingSetup, accelerator: Accelerator, bring: Callable[[int], StepBatch]) -> Profile:
    """A profile of this device; `bring(n)` gives a batch of n pairs. Weights stay as they are."""
    model, terms = setup.model, setup.objectives
    few, many = (bring(count) for count in (4, 16))

    def whole(batch: StepBatch) -> float:
        def go() -> None:
            step.compute_gradients(model, model, batch, terms, None, 0, accelerator)
            model.zero_grad(set_to_none=True)

        return seconds_per_call(go, accelerator.device)

    (given,) = step.chunked(model, many, None).inputs

    @torch.no_grad()
    def encode() -> None:
        with accelerator.autocast():
            model(**given)

    small, large = len(few.group), len(many.group)
    first, second = whole(few), whole(many)
    pair = max((second - first) / max(1, large - small), second / large / 4)
    weights = model.weights()
    return Profile(
        pair=pair,
        fixed=max(0.0, first - small * pair),
        encode=seconds_per_call(encode, accelerator.device) / large,
        logit=_of_a_combination(model.width, accelerator.device),
        update=_of_the_optimizer(setup, accelerator.device),
        weights=sum(weight.numel() for weight in weights.values()),
        learning=sum(weight.numel() for name, weight in weights.items() if setup.factors[name] > 0),
        width=model.width,
        saved=micro_batch_size.activation_bytes(model, many) / large,
    )


def _of_a_combination(width: int, device: torch.device) -> float:
    rows, batch = 64, 4096
    image = torch.randn(rows, width, device=device, requires_grad=True)
    text = torch.randn(batch, width, device=device, requires_grad=True)
    scale = torch.ones((), device=device)

    def go() -> None:
        grads: list[Tensor] = [image, text]
        blockwise.mean_over_rows(blockwise.softmax, image, text, scale).backward(inputs=grads)

    # Both directions; the columns' gradients are among them.
    return 2 * seconds_per_call(go, device) / (rows * batch)


def _of_the_optimizer(setup: TrainingSetup, device: torch.device) -> float:
    optimizer = training_optimizer.make_optimizer(setup.model, setup.factors, setup.settings, rate=0.0)
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    taken = seconds_per_call(optimizer.step, device)
    optimizer.zero_grad(set_to_none=True)
    return taken
