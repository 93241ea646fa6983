"""What each probe costs: its own seconds, those of its intervals, and what more it asks of the towers.

    python benchmarks/probes.py [--items 2000] [--probes gap knn …] [--skip-towers]

Seconds are of the processor, so that other work on the machine does not count. Embeddings are random
vectors of width 512, so that only the probes work; 2,000 resamples, one model. The towers are a ViT-B/32
with random weights on this machine: its rates, measured here, turn the texts and pictures that a probe asks
for beyond the items' own into seconds. The last lines give the whole suite as a share of the time that
embedding the items takes, with one caption each.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from datasets import Dataset
from PIL import Image

from domainclip import registry
from domainclip.data.cards import Card
from domainclip.data.interfaces import Encoder
from domainclip.data.schema import features
from domainclip.evaluation.base import EvaluationSet, ProbeResult
from domainclip.evaluation.verdicts import compare_metric
from domainclip.seeding import stable

WIDTH, RESAMPLES = 512, 2000
SINGLE = [f"kind{i}" for i in range(10)]
SEVERAL = [f"finding{i}" for i in range(14)]


class Counting(Encoder):
    """Random vectors, half of them the class's own; counts the texts and pictures that are new to it."""

    scale, bias = 100.0, None
    has_raw_texts = True

    def __init__(self) -> None:
        self.kept: dict[str, np.ndarray] = {}
        self.pictures: set[str] = set()
        self.spent = 0.0  # of making vectors up, which no tower would

    def images(self, items: Dataset) -> np.ndarray:
        start = time.process_time()
        if items._fingerprint not in self.kept:
            ids, labels = list(items["id"]), list(items["labels"])
            rows = [_vector(name) + sum(map(_vector, held)) for name, held in zip(ids, labels, strict=True)]
            self.kept[items._fingerprint] = _unit(rows)
            self.pictures |= set(ids)
        self.spent += time.process_time() - start
        return self.kept[items._fingerprint]

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        start = time.process_time()
        for text in texts:
            if text not in self.kept:
                self.kept[text] = _unit([_vector(text)])[0]
        found = np.stack([self.kept[text] for text in texts])
        self.spent += time.process_time() - start
        return found

    raw_texts = texts

    @property
    def asked(self) -> tuple[int, int]:
        """Texts and pictures so far."""
        return sum(one.ndim == 1 for one in self.kept.values()), len(self.pictures)


def _vector(name: str) -> np.ndarray:
    drawn: np.ndarray = np.random.default_rng(stable(name)).normal(size=WIDTH).astype(np.float32)
    return drawn


def _unit(rows: Sequence[np.ndarray]) -> np.ndarray:
    vectors = np.asarray(rows, dtype=np.float32)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(
        file, "PNG"
    )
    return file.getvalue()


def made_set(items: int, several: bool) -> EvaluationSet:
    """A test split of so many items, a training split as large, a validation split of a quarter."""
    names, picture = (SEVERAL if several else SINGLE), _picture()

    def split(name: str, n: int) -> Dataset:
        made = []
        for i in range(n):
            held = sorted(
                {names[i % len(names)], names[(i // 3) % len(names)]} if several else {names[i % 10]}
            )
            said = f"A picture {name}{i} of {held[0]}. It shows things beside one another on a plain ground, "
            said += "some of them large and some of them small, as they were found on that day."
            texts = [
                said,
                f"here is {held[0]} as picture {name}{i} has it",
                f"ein Bild {name}{i} von {held[0]}",
            ]
            made.append(
                {
                    "id": f"{name}{i:06d}",
                    "image": {"path": None, "bytes": picture},
                    "views": [],
                    "texts": texts,
                    "language": ["en", "en", "de"],
                    "labels": held,
                    "group": f"{name}{i // 2}",
                    "truth": f"{name}{i:06d}",
                    "meta": json.dumps({"sex": "FM"[i % 2], "age": i % 80}),
                }
            )
        return Dataset.from_list(made, features=features())

    classes = {name: {"positive": [f"a {name}"], "negative": [f"no {name}"]} for name in names}
    single = {name: one["positive"] for name, one in classes.items()}
    card = Card.model_validate({"classes": classes if several else single, "multi_label": several})
    data = EvaluationSet("test", split("t", items), card, card.classes)
    return replace(data, train=split("r", items), validation=split("v", items // 4))


def intervals(results: ProbeResult) -> float:
    """Seconds for the intervals of all figures."""
    start = time.process_time()
    for metric in results.metrics:
        compare_metric([results], metric.name, RESAMPLES, 0)
    return time.process_time() - start


def tower_rates() -> tuple[float, float]:
    """Images and texts a second of a ViT-B/32 with random weights, on batches of 32."""
    import torch
    import transformers

    model = transformers.CLIPModel(transformers.CLIPConfig()).eval()
    pixels, ids = torch.randn(32, 3, 224, 224), torch.randint(0, 49000, (32, 20))
    ids[:, -1] = 49407
    rates = []
    with torch.inference_mode():
        for work in (lambda: model.get_image_features(pixels), lambda: model.get_text_features(ids)):
            work()
            start = time.process_time()
            for _ in range(3):
                work()
            rates.append(96 / (time.process_time() - start))
    return rates[0], rates[1]


def main() -> None:
    """Print one line a probe and set, then the share of the embedding time."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--items", type=int, default=2000)
    options.add_argument("--skip-towers", action="store_true")
    options.add_argument("--probes", nargs="*", default=registry.names("probes"))
    given = options.parse_args()
    per_image, per_text = (float("inf"),) * 2 if given.skip_towers else tower_rates()
    print("| probe | classes | figures | probe s | intervals s | texts more | pictures more | towers s |")
    print("|---|---|---|---|---|---|---|---|")
    for several in (False, True):
        data = made_set(given.items, several)
        whole = 0.0
        for name in given.probes:
            encoder = Counting()
            for rows in (data.items, data.train, data.validation):
                encoder.images(rows)
            encoder.texts([text for texts in data.items["texts"] for text in texts])
            before, encoder.spent = encoder.arguments, 0.0
            start = time.process_time()
            results = registry.build("probes", name, {}, name)(encoder, data)
            spent = time.process_time() - start - encoder.spent
            after = intervals(results)
            texts, pictures = (new - old for new, old in zip(encoder.arguments, before, strict=True))
            model = texts / per_text + pictures / per_image
            whole += spent + after + model
            kind = "several" if several else "one"
            print(
                f"| {name} | {kind} | {len(results.metrics)} | {spent:.2f} | {after:.2f} "
                f"| {texts} | {pictures} | {model:.1f} |",
                flush=True,
            )
        embedding = given.items * (1 / per_image + 1 / per_text)
        print(f"\n{given.items} items and captions: embedding {embedding:.1f} s, all probes {whole:.1f} s")
        if embedding:
            print(f"the suite adds {whole / embedding:.0%} of the embedding time\n")


if __name__ == "__main__":
    main()
