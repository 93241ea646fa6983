"""Every way of drawing captions, through a whole run on a tiny base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainclip.config import loading
from domainclip.pipelines import finetune
from domainclip.report.results_file import load as load_results
from domainclip.training.run_context import RunOptions


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        (
            "locked_text",
            ["policy=sentence"],
        ),  # what the locked tower says is computed once, for every sentence
        ("locked_text", ['templates=["a {}", "the {}"]', "template_share=0.9", "languages=balanced"]),
        ("locked_image", ["overlong=window", "max_tokens=5"]),
    ],
)
def test_a_run_draws_what_the_card_says(
    strategy: str, changes: list[str], recipe_file: Path, tmp_path: Path
) -> None:
    said = [f"strategy={strategy}", "train.epochs=1", *(f"corpus.captions.{change}" for change in changes)]
    finetune.finetune(
        loading.load_recipe(str(recipe_file), said), RunOptions(folder=tmp_path / "run", quiet=True)
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if line.get("loss", 0) > 0]
    assert load_results(tmp_path / "run" / "results.json").valid
