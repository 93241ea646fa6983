"""The plan of a strategy that trains no weight: what is encoded, and no step, memory or speed of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip.pipelines.plan import make_plan
from domainclip.pipelines.plan.cluster import Network
from tests.support.square_recipes import square_recipe


@pytest.mark.parametrize("strategy", ["training_free", "retrieval_fusion", "backbone_ensemble"])
def test_without_training_no_step_is_planned(strategy: str, base: Path, corpus: Path) -> None:
    members = [f"strategy={{backbone_ensemble: {{members: ['{base}']}}}}"]
    changes = members if strategy == "backbone_ensemble" else []
    recipe = square_recipe(strategy, base, corpus, "probes=[zero_shot]", *changes)
    cluster = make_plan.Cluster(3, Network(1e9, 1e-5))  # which no batch is divided by
    planned = dict(make_plan.plan(recipe, benchmark=True, cluster=cluster).lines)
    assert planned["learns"].startswith("0 of ") or " 0 of " in planned["learns"]
    assert planned["schedule"].startswith("no training: images and texts are encoded")
    assert not {"objectives", "memory", "speed", "a step there"} & planned.keys()


def test_with_training_the_steps_are(base: Path, corpus: Path) -> None:
    recipe = square_recipe("class_folders", base, corpus, "probes=[zero_shot]", "train.batch_size=8")
    planned = dict(make_plan.plan(recipe, benchmark=False).lines)
    assert " steps of 8 pairs" in planned["schedule"]
    assert planned["objectives"] == "1 × contrastive"
    assert "GiB at its peak" in planned["memory"]
