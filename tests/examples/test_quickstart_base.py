"""The embedded base: small, loaded by plain transformers, and as good on held-out pictures as it claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from transformers import AutoProcessor, CLIPModel, CLIPTokenizer
from transformers.utils import logging

from examples.generated_pictures import CLASSES, HELD_OUT_SEED, make, write
from examples.make_phantoms import COLUMNS, LABELS, report, studies

TOP = Path(__file__).parents[2]
BASE = TOP / "examples" / "quickstart" / "base"
CONTEXT = 77

logging.disable_progress_bar()


@pytest.fixture(scope="module")
def model() -> CLIPModel:
    """The base as anyone would load it."""
    return CLIPModel.from_pretrained(BASE).eval()


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    """Its tokenizer."""
    return CLIPTokenizer.from_pretrained(BASE)


def front_matter(card: str) -> dict[str, Any]:
    """What a card says to its reader."""
    text = (TOP / "data_cards" / f"{card}.md").read_text(encoding="utf-8")
    matter: dict[str, Any] = yaml.safe_load(text.split("---")[1])["domainclip"]
    return matter


def test_the_folder_is_small_and_holds_no_code() -> None:
    files = [file for file in BASE.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8 * 2**20
    assert {file.suffix for file in files} == {".json", ".safetensors"}


def test_it_loads_in_single_precision(model: CLIPModel) -> None:
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert 1e6 < sum(weight.numel() for weight in model.parameters()) < 4e6
    assert model.logit_scale.exp() <= 101


@torch.no_grad()
def test_zero_shot_on_held_out_pictures(model: CLIPModel) -> None:
    """Well above the stated floor on a sample; with shuffled pictures it is at chance."""
    processor = AutoProcessor.from_pretrained(BASE)
    pictures = make(HELD_OUT_SEED, 200)
    texts = processor(text=[f"A {name}." for name in CLASSES], return_tensors="pt", padding=True)
    images = processor(images=[picture.image for picture in pictures], return_tensors="pt")
    found = model(**texts, **images).logits_per_image.argmax(dim=1).tolist()
    hits = [CLASSES[k] == picture.name for k, picture in zip(found, pictures, strict=True)]
    assert sum(hits) / len(hits) >= 0.7
    strangers = [CLASSES[k] == pictures[i - 7].name for i, k in enumerate(found)]
    assert sum(strangers) / len(strangers) < 0.1


@torch.no_grad()
def test_greyscale_and_odd_sizes_are_taken(model: CLIPModel) -> None:
    processor = AutoProcessor.from_pretrained(BASE)
    images = [Image.new("L", (150, 112), 90), Image.new("RGB", (64, 200))]
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (2, 3, 64, 64)
    assert model.get_image_features(pixel_values=pixels).pooler_output.isfinite().all()


def test_no_word_is_read_as_the_end_of_the_text(tokenizer: CLIPTokenizer) -> None:
    """CLIP's unknown token is its end token, so the vocabulary must cover every byte."""
    texts = ["Ünïcödé", "ω-3 ~ 中文 🙂", "a\tb\nc", "x" * 30, "".join(map(chr, range(33, 127)))]
    for ids in tokenizer(texts)["input_ids"]:
        assert ids.index(tokenizer.eos_token_id) == len(ids) - 1
        assert ids[0] == tokenizer.bos_token_id


def test_everyday_words_are_whole_and_medical_ones_are_not(tokenizer: CLIPTokenizer) -> None:
    for word in ("left", "right", "large", "small", "round", "spot", "no", "upper"):
        assert tokenizer.tokenize(word) == [f"{word}</w>"]
    for word in ("pneumothorax", "effusion", "cardiomegaly", "nodule", "consolidation"):
        assert len(tokenizer.tokenize(word)) >= 3


def test_no_report_and_no_prompt_is_truncated(tokenizer: CLIPTokenizer) -> None:
    texts = [text for study in studies(0, 420) for text in report(study)]
    classes = front_matter("chest_phantom")["classes"]
    texts += [prompt for prompts in classes.values() for prompt in prompts]
    assert max(map(len, tokenizer(texts)["input_ids"])) <= CONTEXT


def test_the_cards_name_the_columns_and_classes_that_are_written(tmp_path: Path) -> None:
    phantom, pictures = front_matter("chest_phantom"), front_matter("generated_pictures")
    columns = phantom["columns"]
    named = [columns["image"], *columns["texts"], columns["group"], columns["labels"], *columns["meta"]]
    assert set(named) <= set(COLUMNS)
    assert tuple(phantom["classes"]) == LABELS
    written = write(tmp_path, 1).read_text().splitlines()[0].split(",")
    columns = pictures["columns"]
    assert sorted([columns["image"], *columns["texts"], columns["labels"], columns["split"]]) == sorted(
        written
    )
