"""Evaluation speed: our embedding against the bare forward pass, and the probes against the embedding.

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py [--items 2000] [--suite all]

ViT-B/32 with random weights, JPEG pictures of 400 x 300 points, a caption each. The bare pass runs on tensors
that were prepared before; ours decodes while the tower works, on another core. Both are run in turns on the
same pictures, so that what else the machine does meets both alike; the ratios are what counts.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from domainclip.data.cards import Card, Prompts
from domainclip.data.images.decode import decode_image
from domainclip.data.schema import features
from domainclip.evaluation import suites, verdicts
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.metrics.labelled_examples import labelled_examples
from domainclip.evaluation.probes.linear_probe import LinearProbe
from domainclip.models import loading

_COLOURS = ("red", "green", "blue", "white", "black", "grey", "yellow", "brown", "pink", "orange")
_TOKENISER = Path(__file__).parent.parent / "examples" / "quickstart" / "base"
_TURN = 64  # pictures that one side does before the other has its turn


def checkpoint(folder: Path) -> Path:
    """A CLIP of the size of ViT-B/32, random weights, with the tokeniser that ships."""
    torch.manual_seed(0)
    for file in _TOKENISER.iterdir():
        if "tokenizer" in file.name:
            shutil.copy(file, folder)
    known = json.loads((_TOKENISER / "config.json").read_text())["text_config"]
    ids = {key: value for key, value in known.items() if key.endswith("_token_id")}
    CLIPModel(CLIPConfig(text_config=ids)).save_pretrained(folder)
    processor = json.loads((_TOKENISER / "processor_config.json").read_text())
    processor["image_processor"] |= {
        "size": {"shortest_edge": 224},
        "crop_size": {"height": 224, "width": 224},
    }
    (folder / "processor_config.json").write_text(json.dumps(processor))
    return folder


def pictures(n: int) -> Dataset:
    """JPEG pictures with captions, classes, groups of two and a column for subgroups."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
        stream = io.BytesIO()
        coarse.resize((400, 300), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=85)
        colour = _COLOURS[i % len(_COLOURS)]
        rows.append(
            {
                "id": f"{i:06d}",
                "image": {"path": None, "bytes": stream.getvalue()},
                "texts": [f"a {colour} picture with number {i % 997} in it"],
                "language": ["en"],
                "labels": [colour],
                "group": f"g{i // 2}",
                "truth": f"{i:06d}",
                "meta": json.dumps({"scanner": f"s{i % 4}"}),
                "views": [],
            }
        )
    return Dataset.from_list([{key: row[key] for key in features()} for row in rows], features=features())


def in_turns(model: Any, items: Dataset) -> tuple[float, float]:
    """Seconds of the bare pass and of ours, over the same pictures; its tensors are free."""
    bare = ours = 0.0
    encoder = CachedEncoder(model)
    for start in range(0, len(items), _TURN):
        part = items.select(range(start, min(start + _TURN, len(items))))
        ready = [model.image_preprocessor(decode_image(row["image"]))["pixels"] for row in part]
        tensors = [torch.from_numpy(np.stack(ready[i : i + 32])) for i in range(0, len(ready), 32)]

        def forward(tensors: list[torch.Tensor] = tensors) -> None:
            with torch.inference_mode():
                for chunk in tensors:
                    model.encode_image({"pixels": chunk})

        def embed(part: Dataset = part) -> None:
            encoder.cache.memory.clear()
            encoder.images(part)

        if (start // _TURN) % 2:  # who begins changes, for what comes second finds warm caches
            ours += seconds(embed)
            bare += seconds(forward)
        else:
            bare += seconds(forward)
            ours += seconds(embed)
    return bare, ours


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def probes(encoder: CachedEncoder, data: EvaluationSet, suite: str) -> dict[str, float]:
    """Seconds of each probe with the intervals of all its figures, on embeddings that are there."""
    taken = {}
    for name, probe in suites.load(suite).assemble().items():

        def measure(probe: Any = probe) -> None:
            results = probe(encoder, data)
            for metric in results.metrics:
                verdicts.compare_metric([results, results], metric.name, 2000, 0)

        taken[name] = seconds(measure)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--suite", default="all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--probes-only", action="store_true", help="leave out the race with the bare pass")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = loading.load_model(checkpoint(Path(folder))).to(options.device).eval()
        items = pictures(options.items)
        in_turns(model, items.select(range(32)))  # the first call finds and warms what the others use
        bare, ours = in_turns(model, items) if not options.probes_only else (1.0, 1.0)
        print(f"items {len(items)}, threads {torch.get_num_threads()}, device {options.device}")
        if not options.probes_only:
            print(f"bare forward   {len(items) / bare:8.1f} pictures/s")
            print(
                f"our embedding  {len(items) / ours:8.1f} pictures/s, ratio {bare / ours:.3f} (wanted: 0.95)"
            )
        half = len(items) // 2
        classes = {name: Prompts(positive=[f"a {name} picture"]) for name in _COLOURS}
        data = EvaluationSet("test", items, Card(), classes, train=items.select(range(half)))
        encoder = CachedEncoder(model)
        # A split that probes fit on is a part of what there is to embed, in the order in which they take it.
        texts = [text for own in items["texts"] for text in own]
        embedding = seconds(
            lambda: (
                encoder.images(items),
                labelled_examples(encoder, data.train, sorted(classes), LinearProbe().most),
                encoder.texts(sorted(set(texts))),
            )
        )
        taken = probes(encoder, data, options.suite)
    for name, spent in taken.items():
        print(f"  {name:14} {spent:7.2f} s  {spent / embedding:6.1%}")
    total = sum(taken.values())
    print(
        f"embedding {embedding:.1f} s; suite {options.suite} {total:.1f} s, "
        f"{total / embedding:.1%} (wanted: at most 20 %)"
    )


if __name__ == "__main__":
    main()
