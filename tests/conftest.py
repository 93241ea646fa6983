"""Shared fixtures: one tiny base, one tiny corpus, made once."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from tests.support.tiny_models import tiny_clip

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220), "white": (240, 240, 240)}
ITEMS = 64


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the home of whoever runs it, and none reaches a hub."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp() / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-layer CLIP of random weights; read it, never write to it."""
    return tiny_clip(tmp_path_factory.mktemp("base") / "clip")


def make_corpus(folder: Path, items: int = ITEMS) -> Path:
    """Coloured squares with captions, two pictures a group, classes by colour: a table with its images."""
    (folder / "images").mkdir(parents=True)
    names = sorted(COLOURS)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file_name", "text", "label", "group_id", "split"])
        for i in range(items):
            colour, side = names[i // 2 % 4], 8 + i % 16
            picture = Image.new("RGB", (40, 36), (10, 10, 10))
            ImageDraw.Draw(picture).rectangle((i % 10, 3, i % 10 + side, 3 + side), fill=COLOURS[colour])
            picture.save(folder / "images" / f"{i:03d}.png")
            split = ("train", "train", "train", "val", "test", "train", "train", "test")[i // 8 % 8]
            rows.writerow([f"images/{i:03d}.png", f"a {colour} square {side}", colour, f"g{i // 2}", split])
    return folder


def with_general(recipe_file: Path, folder: Path, items: int) -> Path:
    """The recipe with a general set: the squares as negatives, so that no picture is one of the corpus."""
    for file in (make_corpus(folder, items) / "images").glob("*.png"):
        with Image.open(file) as picture:
            negative = ImageOps.invert(picture)
        negative.save(file)
    columns = "{image: file_name, texts: text, labels: label, group: group_id, split: split}"
    said = f'path: {folder}, columns: {columns}, templates: ["a {{}} square"], min_items: 1'
    with recipe_file.open("a", encoding="utf-8") as stream:
        stream.write(f"retention: {{{said}}}\n")
    return recipe_file


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus; read it, never write to it."""
    return make_corpus(tmp_path_factory.mktemp("corpus") / "squares")


RECIPE = """
base: {{path: {base}}}
corpus:
  path: {corpus}
  columns: {{image: file_name, texts: text, labels: label, group: group_id, split: split}}
  templates: ["a {{}} square"]
  min_items: 1
  privacy: {{identifiers: none, burned_in_text: "no"}}
strategy: full
train: {{epochs: 3, batch_size: 16, learning_rate: 1e-3, save_every: 2, keep_checkpoints: 3}}
evaluate: {{bootstrap_samples: 100}}
roots: [{base}, {corpus}]
"""


@pytest.fixture
def recipe_file(tmp_path: Path, base: Path, corpus: Path) -> Path:
    """A recipe that trains the tiny base on the tiny corpus in a second."""
    file = tmp_path / "squares.yaml"
    file.write_text(RECIPE.format(base=base, corpus=corpus), encoding="utf-8")
    return file
