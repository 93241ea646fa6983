"""Objectives that ask for further texts, in a real run: what they ask for is encoded, and gradients are exact."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from domainclip.config import loading
from domainclip.errors import DataError
from domainclip.pipelines import finetune
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.training_setup import make_setup
from domainclip.training.run_context import RunOptions
from domainclip.training.setup import TrainingSetup
from tests.conftest import COLOURS, make_corpus
from tests.support.processes import finetuned

RECIPE = """
base: {{path: {base}}}
corpus:
  path: {corpus}
  columns:
    image: file_name
    texts: [text, text_de]
    languages: {{text: en, text_de: de}}
    meta: [negatives, paraphrase]
    labels: label
    group: group_id
    split: split
  captions: {{rewrites: [rewrite], rewrite_share: 0.2}}
  templates: ["a {{}} square"]
  min_items: 1
  privacy: {{identifiers: none, burned_in_text: "no"}}
strategy: full
objectives:
  negative_captions: {{column: negatives, per_pair: 2, shared: true}}
  report_sentences: {{max_sentences: 2, weight: 0.5, patches: true}}
  caption_rewrites: {{agreement: 2}}
  paraphrases: {{column: paraphrase}}
  text_pairs: {{captions: other_language}}
  text_self_supervision: {{weight: 0.1}}
  two_views: {{second_text: true}}
  image_self_supervision: {{}}
  token_alignment: {{mode: filip}}
train: {{epochs: 1, batch_size: 16, learning_rate: 1e-3}}
probes: {{retrieval: {{}}}}
evaluate: {{bootstrap_samples: 100}}
"""


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The coloured squares with a translation, and for some a rewrite, a paraphrase or a negative."""
    folder = make_corpus(tmp_path_factory.mktemp("spoken") / "squares")
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    german = {"red": "rotes", "green": "grünes", "blue": "blaues", "white": "weißes"}
    for number, row in enumerate(rows):
        colour, side = row["label"], row["text"].split()[-1]
        other = sorted(COLOURS)[(sorted(COLOURS).index(colour) + 1) % 4]
        row["text_de"] = f"ein {german[colour]} Quadrat, {side}. Es ist links."
        row["rewrite"] = f"one square of {side} in {colour}" if number % 3 else ""
        row["paraphrase"] = f"{colour} square of size {side}" if number % 2 else ""
        row["negatives"] = f"['a {other} square {side}']" if number % 5 else ""
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def _run(folder: Path, base: Path, corpus: Path, *changes: str) -> Path:
    folder.mkdir()
    (folder / "said.yaml").write_text(RECIPE.format(base=base, corpus=corpus), encoding="utf-8")
    finetune.finetune(
        loading.load_recipe(str(folder / "said.yaml"), changes),
        RunOptions(folder=folder / "run", resume=False, quiet=True),
    )
    return folder / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, base: Path, spoken: Path) -> Path:
    """A run by one process, whose batches are not cut."""
    return _run(tmp_path_factory.mktemp("alone") / "whole", base, spoken)


def _job(folder: Path, base: Path, corpus: Path, *changes: str) -> TrainingSetup:
    (folder / "said.yaml").write_text(RECIPE.format(base=base, corpus=corpus), encoding="utf-8")
    ready = load_inputs(loading.load_recipe(str(folder / "said.yaml"), changes), "train")
    return make_setup(ready)


def _terms(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["terms"] for line in lines if "terms" in line]


def test_all_of_them_train_together_and_in_chunks(
    tmp_path: Path, base: Path, spoken: Path, whole: Path
) -> None:
    chunks = _run(tmp_path / "chunks", base, spoken, "train.micro_batch_size=5")
    terms = [_terms(folder) for folder in (whole, chunks)]
    assert len(terms[0]) >= 2
    for found, again in zip(*terms, strict=True):
        assert len(found) == 9
        assert all(value > 0 for value in found.values())  # each had something to say
        assert again == pytest.approx(found, rel=1e-3)
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (whole, chunks))
    for name, weight in one.items():
        if "k_proj.bias" not in name:  # which changes no attention: Adam follows the sign of its rounding
            torch.testing.assert_close(other[name], weight, rtol=1e-3, atol=1e-4)


def test_how_many_pairs_have_texts_is_said_before_training(tmp_path: Path, base: Path, spoken: Path) -> None:
    assert _job(tmp_path, base, spoken).notes == (
        "objectives.negative_captions: 40 of 40 training pairs have texts for it",
        "objectives.report_sentences: 40 of 40 training pairs have texts for it",
        "objectives.caption_rewrites: 27 of 40 training pairs have texts for it",
        "objectives.paraphrases: 20 of 40 training pairs have texts for it",
        "objectives.text_pairs: 40 of 40 training pairs have texts for it",
        "objectives.text_self_supervision: 40 of 40 training pairs have texts for it",
        "objectives.two_views: 40 of 40 training pairs have texts for it",
    )


def test_texts_that_no_pair_has_are_refused(tmp_path: Path, base: Path, spoken: Path) -> None:
    with pytest.raises(DataError) as caught:
        _job(tmp_path, base, spoken, "objectives={text_pairs: {column: title}}")
    assert (
        str(caught.value)
        == "objectives.text_pairs: none of 40 training pairs has a text that it asks for: list the column that holds some under columns.meta of the card, and name it here (rewrites: under captions.rewrites of the card), or leave it out"
    )


def test_two_processes_find_what_one_finds(tmp_path: Path, base: Path, spoken: Path, whole: Path) -> None:
    (tmp_path / "said.yaml").write_text(RECIPE.format(base=base, corpus=spoken), encoding="utf-8")
    finetuned(tmp_path / "said.yaml", tmp_path / "pair")
    for found, wanted in zip(_terms(tmp_path / "pair"), _terms(whole), strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)


def test_a_locked_text_tower_says_them_too(tmp_path: Path, base: Path, spoken: Path) -> None:
    # The two that change the text tower alone would be refused with a weight.
    alone = {"text_pairs", "text_self_supervision"}
    changes = ["strategy=locked_text", "train.epochs=0.5", *(f"objectives.{name}.weight=0" for name in alone)]
    for terms in _terms(_run(tmp_path / "locked", base, spoken, *changes)):
        assert {name for name, value in terms.items() if value > 0} == terms.keys() - alone
