"""Pairs a second of a training step, beside other projects', at equal loss. See README.md.

python benchmarks/training.py                              # ViT-B/32, 32 pairs, all modes
python benchmarks/training.py --device cuda --model ViT-L/14 --batch 128
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks import bases, peers
from domainclip.components import WeightedObjectives
from domainclip.config.recipe import AnchorTexts
from domainclip.config.training import TrainConfig
from domainclip.data.batching.batch import Batch
from domainclip.data.batching.loader import batches
from domainclip.data.batching.matches import MatchKeys
from domainclip.models import onednn
from domainclip.objectives.contrastive import Contrastive
from domainclip.strategies.base import Stage
from domainclip.strategies.full import Full
from domainclip.strategies.locked_image import LockedImage
from domainclip.strategies.lora import Lora
from domainclip.training import optimizer as training_optimizer
from domainclip.training import step, views
from domainclip.training.precompute import cache_features
from domainclip.training.setup import Precomputed, StageInputs, TrainingSetup, to_step_batch

MODES = ("full", "locked_image", "lora_last_quarter")
OURS, BOUND = "domainclip", "domainclip, tensors ready"


@dataclass
class Contender:
    """One way to take a step."""

    name: str
    take: Callable[[int], float]  # the step's number in, its loss out
    as_it_ships: bool = True  # False: helped by us to do what that project does not do by itself
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak: int = 0  # bytes on the accelerator


def main() -> None:
    """Prints one table a mode."""
    arguments = _arguments()
    device = torch.device(arguments.device)
    if arguments.one_library:
        os.environ[onednn.SWITCH] = "0"
    print(f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}", end="; ")
    print(
        f"products by {'oneDNN' if onednn.is_faster() else 'torch as it is'}",
        end="; ",
    )
    print(f"load {os.getloadavg()[0]:.1f}")
    for mode in arguments.modes:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["DOMAINCLIP_CACHE"] = str(Path(folder, "cache"))
            contenders, flops = _contenders(arguments, mode, Path(folder), device)
            contenders = contenders[:2] if arguments.bound else contenders
            _race(
                contenders,
                arguments.rounds,
                device,
                time.process_time if arguments.cpu_time else time.perf_counter,
            )
            _print_table(arguments, mode, contenders, flops)
        del contenders


def _processor() -> str:
    cpu = Path("/proc/cpuinfo")
    names = (
        [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
        if cpu.is_file()
        else []
    )
    return names[0].split(":")[1].strip() if names else platform.machine()


def _race(contenders: list[Contender], rounds: int, device: torch.device, clock: Callable[[], float]) -> None:
    """A step of each in turn, so that whatever else the machine does falls on all; the first is not timed."""
    for number in range(rounds + 1):
        for one in contenders:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            began = clock()
            loss = one.take(number)
            if device.type == "cuda":
                torch.cuda.synchronize()
                one.peak = max(one.peak, torch.cuda.max_memory_allocated())
            one.losses.append(loss)
            if number:
                one.seconds.append(clock() - began)


def _contenders(
    arguments: argparse.Namespace, mode: str, folder: Path, device: torch.device
) -> tuple[list[Contender], int]:
    base = bases.make_base(arguments.model, folder / "base").to(device)
    depth = base.depth("image")
    strategy = {
        "full": Full(),
        "locked_image": LockedImage(),
        "lora_last_quarter": Lora(last_layers=max(1, depth // 4), targets="attention+mlp"),
    }[mode]
    factors = strategy.learning_rates(base)
    reference = peers.copied(base.hf_base)
    micro = min(arguments.micro, arguments.batch)
    options = {"batch_size": arguments.batch, "micro_batch_size": micro, "weight_decay": 0.0}
    pairs = bases.make_pairs(base, 2 * arguments.batch)
    rounds = arguments.rounds + 1
    shown = list(batches(pairs, 0, rounds, arguments.batch, workers=0))
    setup = TrainingSetup(
        settings=TrainConfig.model_validate(options),
        strategy="full",
        model=base,
        stages=(Stage(1.0, factors),),
        factors=factors,
        objectives=WeightedObjectives({"contrastive": (1.0, Contrastive())}),
        peak_rate=peers.RATE,
        pairs=pairs,
        digests={id: id for id in pairs.ids},
        precomputed=Precomputed(),
        anchor_settings=AnchorTexts(),
    )
    stage = cache_features(setup.stage_inputs())
    print(*stage.notes, sep="\n")
    mixed = functools.partial(torch.autocast, "cuda", torch.bfloat16)
    autocast = mixed if device.type == "cuda" else nullcontext
    ours = list(_ours(stage, rounds, device))
    theirs, flops = _peers(arguments, mode, reference, shown, setup, autocast, device)
    return [*ours, *theirs], flops


def _ours(stage: StageInputs, rounds: int, device: torch.device) -> Iterator[Contender]:
    """The loop's own hands, from the loader on; and the same with everything ready in memory."""
    mixed = "bf16" if device.type == "cuda" else "no"
    accelerator = Accelerator(mixed_precision=mixed, cpu=device.type == "cpu")
    setup, settings = stage.setup, stage.setup.settings
    optimizer = training_optimizer.make_optimizer(setup.model, setup.factors, settings, peers.RATE)
    idle = training_optimizer.make_optimizer(setup.model, setup.factors, settings, 0.0)
    learning = [weight for weight in setup.model.parameters() if weight.requires_grad]
    setup.model.set_train_mode({"image", "text"})

    def go(batch: views.StepBatch, optimizer: torch.optim.Optimizer) -> float:
        # No pair is left out of another's denominator: the peers know no groups.
        batch = replace(batch, keys=MatchKeys.of_groups(torch.arange(len(batch.keys), device=device)))
        held = settings.micro_batch_size if settings.batch_size > (settings.micro_batch_size or 0) else None
        taken = step.compute_gradients(
            setup.model, setup.model, batch, setup.objectives, held, 0, accelerator
        )
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        setup.model.clamp_scale()
        return taken.loss

    loader = batches(stage.pairs, 0, rounds, settings.batch_size, workers=0)
    yield Contender(OURS, lambda number: go(to_step_batch(stage, next(loader), number, device), optimizer))
    ready = [
        to_step_batch(stage, rows, number, device)
        for number, rows in enumerate(batches(stage.pairs, 0, rounds, settings.batch_size, workers=0))
    ]
    # The same weights, which a rate of 0 leaves to the other.
    yield Contender(BOUND, lambda number: go(ready[number], idle))


def _peers(
    arguments: argparse.Namespace,
    mode: str,
    reference: Any,
    shown: list[Batch],
    setup: TrainingSetup,
    autocast: Any,
    device: torch.device,
) -> tuple[list[Contender], int]:
    def given(length: int | None) -> list[dict[str, Tensor]]:
        tensors = []
        for rows in shown:
            assert rows.image is not None
            pixels = setup.model.pixel_inputs({name: value.to(device) for name, value in rows.image.items()})
            tensors.append({**pixels, "input_ids": _ids(setup, rows.texts, length).to(device)})
        return tensors

    padded, trimmed = given(setup.model.max_tokens), given(None)
    # Name, whether the project does so by itself, its step, its batches. What each does with the length of
    # texts was read in its own source; see `peers`.
    named: list[tuple[str, bool, peers.Step, list[dict[str, Tensor]]]] = []
    for helped, tensors in ((False, padded), (True, trimmed)):
        how = "trimmed for it" if helped else f"{setup.model.max_tokens} tokens"
        step_of = peers.transformers_step(peers.copied(reference), autocast)
        named.append((f"transformers, {how}", not helped, step_of, tensors))
        if mode != "lora_last_quarter" and _installed("open_clip"):  # which has no adapters
            step_of = peers.open_clip_step(reference, mode == "locked_image", helped, autocast, device)
            named.append((f"open_clip, {how}", not helped, step_of, tensors))
    micro = min(arguments.micro, arguments.batch)
    if _installed("sentence_transformers"):
        cached = peers.sentence_transformers_step(peers.copied(reference), micro, autocast)
        named.append(("sentence-transformers, cached, trims", True, cached, trimmed))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        reference(**trimmed[0])
    contenders = [
        Contender(name, lambda number, take=take, given=given: take(given[number]), ships)  # type: ignore[misc]
        for name, ships, take, given in named
    ]
    return contenders, 3 * counter.get_total_flops()


def _installed(library: str) -> bool:
    """Whether a peer can be measured; one that is not installed is named in its place."""
    if importlib.util.find_spec(library) is not None:
        return True
    print(f"{library} is not installed, and is not measured")
    return False


def _ids(setup: TrainingSetup, texts: list[str], length: int | None) -> Tensor:
    ids = setup.model.text_tokenizer(texts)["input_ids"]
    if length is None:
        return ids
    pad = int(setup.model.text_tokenizer.hf_tokenizer.pad_token_id)
    return torch.nn.functional.pad(ids, (0, length - ids.shape[1]), value=pad)


def _print_table(arguments: argparse.Namespace, mode: str, contenders: list[Contender], flops: int) -> None:
    ours = contenders[0]
    print(
        f"\n{arguments.model}, {mode}, {arguments.batch} pairs a step, median of {arguments.rounds} steps, "
        "interleaved\n"
    )
    print(
        "| | as it ships | pairs/s | ours against it | loss, first and last step | apart, relative |", end=""
    )
    gpu = arguments.device == "cuda"
    print(" peak memory | share of peak arithmetic |" if gpu else "")
    print("|---|---|---|---|---|---|" + ("---|---|" if gpu else ""))
    for one in contenders:
        rate = arguments.batch / statistics.median(one.seconds)
        # Round by round, because what else the machine does changes from one to the next.
        ratio = statistics.median(a / b for a, b in zip(one.seconds, ours.seconds, strict=True))
        apart = max(abs(a - b) / abs(b) for a, b in zip(one.losses, ours.losses, strict=True))
        loss = f"{one.losses[0]:.5f} … {one.losses[-1]:.5f} | {apart:.1e}" if one.name != BOUND else " | "
        ships = "yes" if one.as_it_ships else "no"
        line = f"| {one.name} | {ships} | {rate:.2f} | {ratio:.2f} × | {loss} |"
        if gpu:
            done = flops / statistics.median(one.seconds) / (arguments.peak_tflops * 1e12)
            line += f" {one.peak / 2**30:.1f} GiB (all loaded) | {done:.1%} |"
        print(line)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-B/32", choices=list(bases.SIZES))
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--micro", type=int, default=32, help="pairs held at once by those that cache gradients"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each, after one that is not")
    parser.add_argument(
        "--cpu-time", action="store_true", help="seconds of the processor, for a machine that others use too"
    )
    parser.add_argument("--bound", action="store_true", help="ours and its bound alone, without peers")
    parser.add_argument(
        "--one-library", action="store_true", help="ours multiplies with the library that the peers use"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="dense bf16, of an H100 or H200")
    return parser.parse_args()


if __name__ == "__main__":
    main()
