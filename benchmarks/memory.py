"""Peak memory of a step against the contrastive batch, at one micro-batch. See README.md.

    python benchmarks/memory.py [--batches 128 512 2048 8192] [--micro 64] [--device cuda]

Each step runs in a process of its own, whose peak is what the operating system counted; on a GPU, what torch
allocated. The uncached loss is shown where it fits, and a loss that holds the whole logit matrix beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

UNCACHED_UP_TO = 512  # pairs whose activations are held all at once, for comparison


def main() -> None:
    """Prints the table; with --one, takes one step and prints what it found as JSON."""
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(_step(arguments)))
        return
    print(f"{arguments.model}, {arguments.micro} pairs held at once, {arguments.device}\n")
    print(
        "| contrastive batch | peak | against the first | of it pixels | loss | uncached | logits whole | s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    first = 0.0
    for batch in arguments.batches:
        found = _child(arguments, batch, arguments.micro, whole=False)
        first = first or found["peak"]
        whole = _child(arguments, batch, arguments.micro, whole=True)
        plain = _child(arguments, batch, batch, whole=False)["loss"] if batch <= UNCACHED_UP_TO else None
        print(
            f"| {batch:,} | {found['peak'] / 2**20:,.0f} MiB | {found['peak'] / first:.2f} × "
            f"| {found['pixels'] / 2**20:,.0f} MiB | {found['loss']:.6f} "
            f"| {'' if plain is None else f'{plain:.6f}'} | {whole['peak'] / 2**20:,.0f} MiB "
            f"| {found['seconds']:.1f} |",
            flush=True,
        )


def _child(arguments: argparse.Namespace, batch: int, micro: int, whole: bool) -> dict[str, Any]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        __file__,
        "--one",
        "--batches",
        str(batch),
        "--micro",
        str(micro),
    ]
    command += ["--model", arguments.model, "--device", arguments.device, *(["--whole"] if whole else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _step(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch
    from accelerate import Accelerator

    from benchmarks import bases
    from domainclip.components import WeightedObjectives
    from domainclip.data.batching.matches import MatchKeys
    from domainclip.objectives.contrastive import Contrastive
    from domainclip.objectives.losses import blockwise
    from domainclip.training import step, views

    if arguments.whole:
        blockwise.MAX_LOGITS = 2**62
    device, (pairs,) = torch.device(arguments.device), arguments.batches
    with tempfile.TemporaryDirectory() as folder:
        model = bases.make_base(arguments.model, Path(folder)).to(device)
    model.set_train_mode({"image", "text"})
    draw = torch.Generator().manual_seed(0)
    side = model.image_size[0]
    pixels = torch.randint(0, 256, (pairs, side, side, 3), dtype=torch.uint8, generator=draw)
    texts = [f"a photo of a {'red circle ' * (1 + i % 4)}{i}" for i in range(pairs)]
    keys = MatchKeys.of_groups(torch.arange(pairs, device=device))
    batch = views.StepBatch({"pixels": pixels}, None, texts, None, keys, None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    accelerator = Accelerator(cpu=arguments.device == "cpu")
    began = time.perf_counter()
    micro = None if arguments.micro >= pairs else arguments.micro
    terms = WeightedObjectives({"contrastive": (1.0, Contrastive())})
    taken = step.compute_gradients(model, model, batch, terms, micro, 0, accelerator)
    optimizer.step()
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if arguments.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    seconds = time.perf_counter() - began
    return {"peak": peak, "pixels": pixels.numel(), "loss": taken.loss, "seconds": seconds}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512, 2048, 8192])
    parser.add_argument("--micro", type=int, default=64)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
