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
PASS_SECONDS = 5.0  # up to which passes of more pairs are measured
_FIRST_PAIRS = 4  # of the first pass
_GROWTH = 4  # from one to the next


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
    rows = pairs_of_device(batch, devices)
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


def pairs_of_device(batch: int, devices: int) -> int:
    """The pairs of a batch that each device has.

    Raises: RecipeError when the devices cannot share it equally.
    """
    if batch % devices:
        raise RecipeError(
            f"train.batch_size: {batch} cannot be shared equally by {devices} devices: take a multiple of "
            f"{devices}"
        )
    return batch // devices


def measure(
    setup: TrainingSetup, accelerator: Accelerator, make_batch: Callable[[int], StepBatch], held: int
) -> Profile:
    """The profile of this device; `make_batch(n)` returns a batch of n pairs. Weights stay as they are.

    Passes of `held` pairs, as many as a device will hold at once, and of a quarter of them are timed: a pair
    costs more in a large pass, whose activations no cache of the processor holds. Fewer are taken where they
    would not fit into memory, or where a pass would last longer than PASS_SECONDS.
    """
    model, terms, memory = setup.model, setup.objectives, initial_memory(setup)

    def pass_seconds(batch: StepBatch, calls: int = 5) -> float:
        def run_pass() -> None:
            step.compute_gradients(model, model, batch, terms, None, 0, accelerator, memory)
            model.zero_grad(set_to_none=True)

        return seconds_per_call(run_pass, accelerator.device, calls)

    many = _largest_batch(setup, accelerator, make_batch, held, lambda batch: pass_seconds(batch, calls=1))
    large = len(many.keys)
    few = many.first(max(1, large // 4))
    small = len(few.keys)
    (split,) = step.split_batch(model, many, None).inputs
    inputs = microbatches.on_device(split, accelerator.device)

    @torch.no_grad()
    def encode() -> None:
        with accelerator.autocast():
            model(**inputs)

    saved = [micro_batch_size.activation_bytes(model, batch, accelerator) for batch in (few, many)]
    first, second = pass_seconds(few), pass_seconds(many)
    # The line through both passes; where it would cost nothing to begin one, the mean of the larger.
    pair = min(max((second - first) / max(1, large - small), second / large / 4), second / large)
    weights = model.weights()
    return Profile(
        pair=pair,
        fixed=second - large * pair,
        encode=seconds_per_call(encode, accelerator.device) / large,
        logit=_logit_seconds(model.width, accelerator.device),
        update=_update_seconds(setup, accelerator.device),
        weights=sum(weight.numel() for weight in weights.values()),
        learning=sum(weight.numel() for name, weight in weights.items() if setup.factors[name] > 0),
        width=model.width,
        # By two points: copies of the weights in bf16 do not grow with the pairs.
        saved=(saved[1] - saved[0]) / (large - small) if large > small else saved[1] / large,
    )


def _largest_batch(
    setup: TrainingSetup,
    accelerator: Accelerator,
    make_batch: Callable[[int], StepBatch],
    held: int,
    pass_seconds: Callable[[StepBatch], float],
) -> StepBatch:
    """A batch of `held` pairs, or of as many as memory and PASS_SECONDS allow."""
    size = min(held, _FIRST_PAIRS)
    batch = make_batch(size)
    bytes_of_pair = micro_batch_size.activation_bytes(setup.model, batch, accelerator) / size
    free = micro_batch_size.MEMORY_SHARE * micro_batch_size.available_memory(accelerator.device)
    held = min(held, max(size, int(free // bytes_of_pair)))
    while size < held and _GROWTH * pass_seconds(batch) <= PASS_SECONDS:
        size = min(held, _GROWTH * size)
        batch = make_batch(size)
    return batch


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
