"""Run folders and pages for the tests of `explore`, made in a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from domainclip.config import loading
from domainclip.data.cards import load_card
from domainclip.data.corpus import load_corpus
from domainclip.evaluation import run_classes
from domainclip.inference.explorer.answers import Answers
from domainclip.models.saving import save_model
from tests.conftest import RECIPE
from tests.support.run_folders import adapted


def squares_run(folder: Path, base: Path, corpus: Path, *changes: str) -> Path:
    """A run folder of the tiny base on the corpus of squares, with weights that chance has moved."""
    folder.mkdir(parents=True)
    file = folder / "typed.yaml"
    file.write_text(RECIPE.format(base=base, corpus=corpus), encoding="utf-8")
    recipe = loading.load_recipe(str(file), list(changes))
    (folder / "recipe.yaml").write_text(recipe.resolved(), encoding="utf-8")
    save_model(adapted(base, lora=False), folder / "model")
    read = load_corpus(load_card(recipe.corpus.card, recipe.corpus.overrides()), str(corpus))
    run_classes.save(folder, run_classes.of_corpus(read))
    return folder


def made_answers(hits: Sequence[float], keys: Sequence[int] = (), ranks: Sequence[float] = ()) -> Answers:
    """Answers that are right as stated; NaN where the truth is not known."""
    nothing = np.full(len(hits), np.nan)
    return Answers(
        np.array(hits, float),
        np.array(ranks, float) if ranks else nothing,
        np.array(keys) if keys else np.arange(len(hits)),
        lambda rows: [f"answer {row}" for row in rows],
        nothing,
    )
