"""What a run on a device waits for, loses by precision, and gains by cached features. See README.md.

    python benchmarks/device.py waiting --device cuda --model ViT-B/16 --images 4096 --batch 256
    python benchmarks/device.py precision --device cuda --model ViT-B/16 --batch 256
    python benchmarks/device.py features --device cuda --model ViT-B/16 --images 4096 --batch 256

Bases have random weights and images are noise in JPEG files: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from benchmarks import bases
from domainclip.config import loading
from domainclip.pipelines import finetune
from domainclip.training.run_context import RunOptions

_SIDE = 512  # of the generated files, larger than the model's input as real ones are
_SETTLED = 3  # first steps that are left out: kernels are chosen, workers start


def main() -> None:
    """Prints the table of one question."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["DOMAINCLIP_CACHE"] = str(folder / "cache")
        bases.make_base(arguments.model, folder / "base")
        {"waiting": _waiting, "precision": _precision, "features": _features}[arguments.question](
            arguments, folder
        )


def _waiting(arguments: argparse.Namespace, folder: Path) -> None:
    """The share of a step in which the device has no batch, by number of workers, decoding every image."""
    _write_corpus(folder, arguments.images)
    print("| workers | pairs/s | waited for images |\n|---|--:|--:|")
    for workers in (0, "auto"):
        options = [f"train.workers={workers}", "train.pixel_cache_gb=0", "strategy=full"]
        records = _settled(_train(arguments, folder, f"waiting-{workers}", options))
        waited = float(np.mean([record["waited"] for record in records]))
        print(f"| {workers} | {_rate(records):,.0f} | {waited:.1%} |", flush=True)


def _precision(arguments: argparse.Namespace, folder: Path) -> None:
    """Losses of the same steps in other precisions against fp32, and their speed."""
    _write_corpus(folder, 4 * arguments.batch)
    kinds = ["fp32", "tf32", "bf16", "fp16"] if arguments.device == "cuda" else ["fp32", "bf16"]
    runs = {
        kind: _train(arguments, folder, kind, [f"train.precision={kind}", "strategy=full"]) for kind in kinds
    }
    print("| precision | pairs/s | largest relative difference of a loss from fp32 |\n|---|--:|--:|")
    for kind, records in runs.items():
        pairs = zip(records, runs["fp32"], strict=True)
        apart = max(abs(one["loss"] - other["loss"]) / abs(other["loss"]) for one, other in pairs)
        print(f"| {kind} | {_rate(_settled(records)):,.0f} | {apart:.1e} |", flush=True)


def _features(arguments: argparse.Namespace, folder: Path) -> None:
    """Seconds of a run of three epochs with a locked image tower, its embeddings cached or computed again."""
    _write_corpus(folder, arguments.images)
    print("| cached features | seconds of the run | pairs/s of a step |\n|---|--:|--:|")
    for cached in ("true", "false"):
        began = time.perf_counter()
        options = [f"train.cache_features={cached}", "strategy=locked_image", "train.epochs=3"]
        records = _train(arguments, folder, f"cached-{cached}", options)
        rate = _rate(_settled(records))
        print(f"| {cached} | {time.perf_counter() - began:.1f} | {rate:,.0f} |", flush=True)


def _train(
    arguments: argparse.Namespace, folder: Path, name: str, options: list[str]
) -> list[dict[str, Any]]:
    """The steps of a run without evaluation, as in metrics.jsonl."""
    recipe = folder / "recipe.yaml"
    corpus = {"path": str(folder / "corpus.csv"), "checks": {"near_duplicates": "warning"}}
    recipe.write_text(json.dumps({"base": str(folder / "base"), "corpus": corpus}))
    common = [f"train.batch_size={arguments.batch}", "train.epochs=1"]
    common += ["objectives=contrastive", "probes=[retrieval]"]
    run = folder / "runs" / name
    AcceleratorState._reset_state(reset_partial_state=True)  # the precision of the run before
    finetune.finetune(
        loading.load_recipe(str(recipe), [*common, *options]), RunOptions(folder=run, quiet=True)
    )
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if "loss" in record]


def _settled(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return records[min(_SETTLED, len(records) - 1) :]


def _rate(records: list[dict[str, Any]]) -> float:
    return float(np.median([record["pairs_per_second"] for record in records])) if records else float("nan")


def _write_corpus(folder: Path, count: int) -> None:
    """JPEG files with a caption each, 16 of them for evaluation."""
    images = folder / "images"
    images.mkdir()
    draw = np.random.default_rng(0)
    seeds = draw.integers(0, 2**31, count)

    def write(number: int) -> None:
        noise = np.random.default_rng(int(seeds[number])).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((_SIDE, _SIDE)).save(images / f"{number}.jpg", quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(count)))
    with (folder / "corpus.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "text", "split"])
        for number in range(count):
            words = " ".join(draw.choice(bases.WORDS, 12))
            writer.writerow([f"images/{number}.jpg", f"{words} {number}", "test" if number < 16 else "train"])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("question", choices=["waiting", "precision", "features"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="tiny", choices=list(bases.SIZES))
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no GPU")
    return arguments


if __name__ == "__main__":
    main()
