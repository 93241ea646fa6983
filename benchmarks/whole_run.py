"""From a folder of JPEG files to an evaluated model: domainclip beside transformers alone.

    python benchmarks/whole_run.py                       # minutes; wall times count on a quiet machine only
    python benchmarks/whole_run.py --modes full --rounds 3

Ours is `domainclip finetune` with an empty cache: its checks, the intervals and the report included. The
peer (`whole_run_peer.py`) trains with transformers' Trainer as its example run_clip.py does, then measures
base and adapted model in another process as CLIP_benchmark does. Equal base, pairs, epochs, batch and items.
The two take turns. Processor time is that of the whole process tree, so what else the machine does counts
less.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
EPOCHS = {"locked_image": 5, "lora": 3, "full": 1}
TARGETS = {"locked_image": 0.2, "lora": 0.4, "full": 0.7}
BATCH = 128
COLOURS = ("red", "green", "blue", "white", "black", "grey", "yellow", "brown", "pink", "orange")

_CARD = """\
pretty_name: Images of the benchmark
license: unknown
language: [en]
domainclip:
  reader: table
  columns: {image: file_name, texts: [text], labels: label, group: file_name, truth: file_name, split: split}
  templates: ["a {}"]
  privacy: {identifiers: none, burned_in_text: "no"}
  obtain: made by the benchmark
"""
_RECIPE = """\
name: whole_run
base: {base}
corpus: {{card: {card}, path: {corpus}}}
strategy: {{{mode}: {{}}}}
objectives: {{contrastive: {{}}}}
train: {{epochs: {epochs}, batch_size: {batch}, learning_rate: 1e-4}}
probes: {{zero_shot: {{}}, retrieval: {{}}}}
"""


def main() -> None:
    """Prints a table with a line for each mode."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        base, corpus = _shared(place) if _has_shared() else _generated(place, arguments.images)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start; {corpus}")
        print(
            "\n| | epochs | ours, wall | peer, wall | ratio | ours, processor | peer, processor | ratio "
            "| wanted |\n|---|---|---|---|---|---|---|---|---|"
        )
        for mode in arguments.modes:
            print(_line(mode, base, corpus, place, arguments), flush=True)


def _line(mode: str, base: Path, corpus: Path, place: Path, arguments: argparse.Namespace) -> str:
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "peer": []}
    for number in range(arguments.rounds):
        for side in sorted(times, reverse=bool(number % 2)):  # each begins in every second round
            shutil.rmtree(place / "work", ignore_errors=True)
            (place / "work").mkdir()
            commands = (
                _ours(mode, base, corpus, place) if side == "ours" else _peer(mode, base, corpus, place)
            )
            times[side].append(_run(commands, place, arguments.threads, arguments.verbose))
    ours, peer = times["ours"], times["peer"]
    cells = [mode, str(EPOCHS[mode])]
    for which in (0, 1):
        ours_values, peer_values = ([pair[which] for pair in runs] for runs in (ours, peer))
        ratio = statistics.median(a / b for a, b in zip(ours_values, peer_values, strict=True))
        cells += [
            f"{statistics.median(ours_values):.0f} s",
            f"{statistics.median(peer_values):.0f} s",
            f"**{ratio:.2f}**",
        ]
    return f"| {' | '.join([*cells, str(TARGETS[mode])])} |"


def _ours(mode: str, base: Path, corpus: Path, place: Path) -> list[list[str]]:
    card, recipe = place / "work" / "card.md", place / "work" / "recipe.yaml"
    card.write_text(f"---\n{_CARD}---\n\n# Images\n")
    values = {"base": base, "card": card, "corpus": corpus, "mode": mode}
    recipe.write_text(_RECIPE.format(**values, epochs=EPOCHS[mode], batch=BATCH))
    run = [sys.executable, "-m", "domainclip", "finetune", "--recipe", str(recipe), "--run-dir"]
    return [[*run, str(place / "work" / "run")]]


def _peer(mode: str, base: Path, corpus: Path, place: Path) -> list[list[str]]:
    script, adapted = str(Path(__file__).with_name("whole_run_peer.py")), str(place / "work" / "adapted")
    script_command = [sys.executable, script]
    schedule = ["--mode", mode, "--epochs", str(EPOCHS[mode]), "--batch", str(BATCH)]
    return [
        [*script_command, "train", str(corpus), str(base), adapted, *schedule],
        [*script_command, "evaluate", str(corpus), str(base), adapted],
    ]


def _run(commands: Sequence[Sequence[str]], place: Path, threads: int, verbose: bool) -> tuple[float, float]:
    """Seconds on the clock, and of the processor in the whole process tree."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "DOMAINCLIP_CACHE": str(place / "work" / "cache"),
        "DOMAINCLIP_SECRET": "benchmark",
        "HF_HUB_OFFLINE": "1",
    }
    began, before = time.perf_counter(), _processor_seconds()
    for command in commands:
        result = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True)
        if verbose:
            print(result.stdout[-4000:], result.stderr[-4000:])
        if result.returncode:
            raise SystemExit(f"{' '.join(command)}\n{result.stderr[-4000:]}")
    return time.perf_counter() - began, _processor_seconds() - before


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _has_shared() -> bool:
    return "DOMAINCLIP_SHARED" in os.environ


def _shared(place: Path) -> tuple[Path, Path]:
    shared = Path(os.environ["DOMAINCLIP_SHARED"])
    return shared / "weights" / "vit-tiny-clip", shared / "corpora" / "art"


def _generated(place: Path, images: int) -> tuple[Path, Path]:
    """A small CLIP, and photographs of 640 by 480 pixels in ten colours."""
    from benchmarks import bases

    bases.make_base("small", place / "base")
    folder = place / "corpus"
    (folder / "images").mkdir(parents=True)
    draw = np.random.default_rng(0)
    with (folder / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", "text", "label", "split"])
        for i in range(images):
            colour = COLOURS[i % len(COLOURS)]
            tint = np.array(Image.new("RGB", (16, 12), colour), dtype=np.int16)
            noise = draw.integers(-60, 60, tint.shape)
            image = Image.fromarray(np.clip(tint + noise, 0, 255).astype(np.uint8))
            name = f"images/{i:05d}.jpg"
            image.resize((640, 480), Image.Resampling.BICUBIC).save(folder / name, quality=85)
            split = ("test", "val", *["train"] * 8)[i // len(COLOURS) % 10]
            table.writerow([name, f"a {colour} picture with number {i}", colour, split])
    return place / "base", folder


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--modes", nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--images", type=int, default=2000, help="of a generated corpus")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--verbose", action="store_true", help="print what each command prints")
    return parser.parse_args()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
