"""Pseudo-labels: two ways of naming a class, no caption or label of the corpus, and what cannot be learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainclip.data.cards import Prompts
from domainclip.errors import DataError, DomainclipError
from domainclip.models import loading
from domainclip.pipelines.finetune import finetune
from domainclip.pipelines.inputs import load_inputs
from domainclip.report.results_file import load as load_results
from domainclip.strategies.self_training import SelfTraining
from domainclip.training.run_context import RunOptions
from tests.evaluation.probes.array_encoder import ArrayEncoder, items
from tests.support.square_recipes import square_recipe

_CLASSES = {"a": Prompts(positive=["an a"]), "b": Prompts(positive=["a b"])}


def test_what_all_classes_share_is_left_out() -> None:
    # T = ((2, 1), (2, −1)) / √5: the first right singular vector is (1, 0), and what is left is the sign of y.
    texts = np.array([[2.0, 1.0], [2.0, -1.0]]) / 5**0.5
    images = np.array([[0.9, 0.1], [-0.9, 0.2], [0.9, -0.1], [0.0, -0.2]])
    labels, agree = SelfTraining(neighbours=2).pseudo_labels(texts, images)
    assert labels.tolist() == [0, 0, 1, 1]
    assert agree.all()


def test_the_propagation_is_the_closed_form() -> None:
    """Parity: F = (I − σ S)^−1 Y on the graph of the docstring, solved densely."""
    generator = np.random.default_rng(0)
    texts = generator.normal(size=(3, 6))
    images = np.concatenate([texts[i % 3][None] + generator.normal(size=(1, 6)) for i in range(40)])
    strategy = SelfTraining(neighbours=4, power=2.0, spread=0.9)
    labels, agree = strategy.pseudo_labels(texts, images)
    directions = np.linalg.svd(texts, full_matrices=False)[2][1:]
    nodes = np.concatenate(
        [rows - rows.mean(axis=0) for rows in (texts @ directions.T, images @ directions.T)]
    )
    nodes /= np.linalg.norm(nodes, axis=1, keepdims=True)
    cosines = nodes @ nodes.T
    np.fill_diagonal(cosines, -np.inf)
    graph = np.zeros_like(cosines)
    for row, near in enumerate(np.argsort(-cosines, axis=1)[:, :4]):
        graph[row, near] = np.maximum(cosines[row, near], 0) ** 2
    graph = graph + graph.T
    scale = graph.sum(axis=1) ** -0.5
    answers = np.linalg.inv(np.eye(43) - 0.9 * scale[:, None] * graph * scale)[3:, :3]
    expected = np.where(answers.sum(axis=1) > 0, answers.argmax(axis=1), -1)  # −1: no class reaches it
    assert (labels == expected).mean() >= 0.95  # of 40; the iteration stops at a tolerance
    assert np.array_equal(agree, labels == (nodes[3:] @ nodes[:3].T).argmax(axis=1))
    assert 0 < agree.sum() < 40  # the two ways differ somewhere, or agreement would choose nothing


def test_the_gap_between_the_towers_and_the_order_of_the_classes_decide_nothing() -> None:
    generator = np.random.default_rng(1)
    texts, images = generator.normal(size=(3, 6)), generator.normal(size=(30, 6))
    labels, agree = SelfTraining(neighbours=5).pseudo_labels(texts, images)
    shifted, agree_shifted = SelfTraining(neighbours=5).pseudo_labels(texts, images + 7.0)
    assert np.array_equal(labels, shifted)
    assert np.array_equal(agree, agree_shifted)
    turned, _ = SelfTraining(neighbours=5).pseudo_labels(texts[[1, 2, 0]], images)
    assert np.array_equal(np.where(labels < 0, -1, (labels - 1) % 3), turned)


def test_items_are_shown_with_the_prompts_of_their_pseudo_label_and_nothing_of_their_own() -> None:
    vectors = {"1": [2.0, 0.9], "2": [2.0, -0.9], "3": [1.0, 0.8], "4": [1.0, -0.8]}
    encoder = ArrayEncoder(vectors, {"an a": [2.0, 1.0], "a b": [2.0, -1.0]})
    rows: list[dict[str, Any]] = [{"id": i, "texts": ["a wrong caption"], "labels": ["b"]} for i in vectors]
    shown = SelfTraining(neighbours=1).relabelled(items(rows), encoder, _CLASSES)
    assert shown["labels"][:] == [["a"], ["b"], ["a"], ["b"]]
    assert shown["texts"][:] == [["an a"], ["a b"], ["an a"], ["a b"]]
    other = [row | {"texts": [], "labels": []} for row in rows]
    again = SelfTraining(neighbours=1).relabelled(items(other), encoder, _CLASSES)
    assert again["texts"][:] == shown["texts"][:]


def test_a_base_that_distinguishes_no_class_is_refused() -> None:
    encoder = ArrayEncoder({"1": [2.0, 0.9], "2": [2.0, 0.9]}, {"an a": [2.0, 1.0], "a b": [2.0, -1.0]})
    with pytest.raises(DataError, match="have a pseudo-label, of fewer than two classes"):
        SelfTraining(neighbours=1).relabelled(items([{"id": "1"}, {"id": "2"}]), encoder, _CLASSES)


def test_the_layer_norms_learn(base: Path) -> None:
    factors = SelfTraining().learning_rates(loading.load_model(base))
    learning = {name for name, factor in factors.items() if factor > 0}
    assert "image/vision_model.encoder.layers.0.layer_norm1.weight" in learning
    assert all("norm" in name or "layrnorm" in name for name in learning)
    assert len(learning) == 2 * (4 * 2) + 2 * 3  # two in each of four layers, and those around the layers
    factors = SelfTraining(weights="all", train_logit_scale=True).learning_rates(loading.load_model(base))
    assert all(factor == 1.0 for factor in factors.values())


def test_a_run_of_the_recipe_learns_from_pseudo_labels_alone(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    recipe = square_recipe(
        "self_training", base, corpus, "train.epochs=1", "train.batch_size=8", "probes=[zero_shot]"
    )
    inputs = load_inputs(recipe, "train")
    assert {text for texts in inputs.train_items.items["texts"][:] for text in texts} <= {
        f"a {name} square" for name in inputs.corpus.classes
    }
    finetune(recipe, RunOptions(folder=tmp_path / "run", quiet=True))
    results = load_results(tmp_path / "run" / "results.json")
    assert results.run["steps"] > 0
    assert any("no caption and no label of theirs is read" in text for text in results.warnings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["corpus.multi_label=true"], "strategy.self_training: needs classes that exclude each other"),
        (["corpus.templates=[]"], "strategy.self_training: names classes, and the corpus has 0"),
    ],
)
def test_what_is_refused(base: Path, corpus: Path, changes: list[str], message: str) -> None:
    with pytest.raises(DomainclipError) as caught:
        load_inputs(square_recipe("self_training", base, corpus, *changes), "train")
    assert str(caught.value).startswith(message)
