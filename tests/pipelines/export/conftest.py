"""A tiny run with classes, and a run of any model."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip.data.cards import Prompts
from domainclip.evaluation import run_classes
from domainclip.evaluation.class_decisions import Decisions
from domainclip.evaluation.run_classes import RunClasses
from tests.support.run_folders import made_run

CLASSES = RunClasses(
    corpus="f" * 16,
    classes={
        "effusion": Prompts(positive=["an effusion", "small effusion"], negative=["no effusion"]),
        "normal": Prompts(positive=["normal"], negative=["not normal"]),
    },
    decisions=Decisions(thresholds={"effusion": 0.01}, temperature=2.0),
)


@pytest.fixture(scope="session")
def run_with_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one class an image; read it, never write to it."""
    run = made_run(tmp_path_factory.mktemp("exported") / "run")
    run_classes.save(run / "model", CLASSES)
    return run
