"""Class scores from support items: the evidence of each form, the choice on validation, and a run without training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from domainclip.errors import DomainclipError, HubError
from domainclip.evaluation.scorer_choice import choose_scorer
from domainclip.hub.allowlist import files_to_push
from domainclip.inference.adapted_model import load_model
from domainclip.models import loading
from domainclip.models.support_scorer import SupportScorer
from domainclip.pipelines.export.source import open_source
from domainclip.pipelines.finetune import finetune
from domainclip.pipelines.inputs import load_inputs
from domainclip.report.results_file import load as load_results
from domainclip.report.usage import ModelUse, blocks
from domainclip.strategies.base import Support
from domainclip.strategies.training_free import TrainingFree
from domainclip.training.run_context import RunOptions
from tests.support.square_recipes import square_recipe


def _unit(*shape: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def _support(**changes: Any) -> Support:
    given: dict[str, Any] = {
        "classes": ["a", "b"],
        "features": np.eye(3, dtype=np.float32),
        "labels": np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        "class_texts": np.eye(3, dtype=np.float32)[:2],
        "scale": 1.0,
        "multi_label": False,
    }
    return Support(**(given | changes))


def _evidence(strategy: TrainingFree, support: Support, images: Any) -> np.ndarray:
    (scorer,) = strategy.class_scorers(support)
    return scorer.evidence(np.asarray(images, np.float32))


def test_the_mean_of_a_class_by_hand() -> None:
    # μ_a = (1, 1, 0) / √2, μ_b = (0, 0, 1)
    found = _evidence(TrainingFree(), _support(), [[1, 0, 0], [0, 0.6, 0.8]])
    assert found == pytest.approx(np.array([[0.5**0.5, 0.0], [0.6 * 0.5**0.5, 0.8]]), abs=1e-6)


def test_where_classes_may_hold_together_the_mean_of_the_others_counts_against() -> None:
    labels = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, np.nan]])  # an unknown label is on neither side
    support = _support(labels=labels, multi_label=True)
    found = _evidence(TrainingFree(), support, [[0, 0, 1], [1, 0, 0]])
    assert found == pytest.approx(np.array([[-1.0, 0.0], [0.5**0.5, -1.0]]), abs=1e-6)
    found = _evidence(TrainingFree(form="cache", betas=(2.0,)), support, [[1, 0, 0]])
    e = np.exp(-2.0)
    assert found == pytest.approx(np.array([[(1 + e) / 2 - e, e - 1]]), abs=1e-6)


def test_the_cache_is_tip_adapter() -> None:
    """Parity with the published formula, sums over equal shots, in torch."""
    shots, beta, alpha = 4, 5.5, 1.5
    keys, images, texts = _unit(12, 8, seed=0), _unit(5, 8, seed=1), _unit(3, 8, seed=2)
    one_hot = np.eye(3)[np.arange(12) % 3]
    support = _support(classes=["a", "b", "c"], features=keys, labels=one_hot, class_texts=texts, scale=100.0)
    (scorer,) = TrainingFree(form="cache", betas=(beta,)).class_scorers(support)
    x, k = torch.from_numpy(images).double(), torch.from_numpy(keys).double()
    expected = 100 * x @ torch.from_numpy(texts).double().T
    expected += alpha * (-(beta - beta * (x @ k.T))).exp() @ torch.from_numpy(one_hot)
    ours = scorer.weighted(alpha * shots / 100).rescored(
        images, images.astype(float) @ texts.T, ["a", "b", "c"]
    )
    assert 100 * ours == pytest.approx(expected.numpy(), abs=1e-4)


def test_the_divergence_is_that_of_torch() -> None:
    keys, images, texts = _unit(6, 8, seed=0), _unit(4, 8, seed=1), _unit(3, 8, seed=2)
    one_hot = np.eye(3)[np.arange(6) % 3]
    support = _support(classes=["a", "b", "c"], features=keys, labels=one_hot, class_texts=texts, scale=10.0)
    found = _evidence(TrainingFree(form="kl", betas=(3.0,)), support, images)
    w = torch.from_numpy(texts).double()
    p, q = ((10 * torch.from_numpy(rows).double() @ w.T).log_softmax(1) for rows in (images, keys))
    divergence = F.kl_div(q[None], p[:, None].expand(-1, 6, -1), log_target=True, reduction="none").sum(-1)
    assert found == pytest.approx(((-3 * divergence).exp() @ torch.from_numpy(one_hot / 2)).numpy(), abs=1e-6)


def test_the_nearest_captions_answer_by_their_confidence() -> None:
    texts = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)
    support = _support(
        features=texts, labels=np.zeros((0, 2)), class_texts=np.eye(2, dtype=np.float32), scale=2.0
    )
    # Of (1, 0), the two nearest captions are the first two, whose mean is (3, 1) / √10.
    found = _evidence(TrainingFree(form="captions", neighbours=2), support, [[1, 0]])
    t = np.array([3, 1]) / 10**0.5

    def entropy(logits: np.ndarray) -> float:
        p = np.exp(logits) / np.exp(logits).sum()
        return float(-(p * np.log(p)).sum())

    assert found == pytest.approx(np.exp(entropy(np.array([2.0, 0])) - entropy(2 * t)) * t[None], abs=1e-6)


def test_other_classes_keep_the_scores_of_their_prompts() -> None:
    (scorer,) = TrainingFree().class_scorers(_support())
    image, scores = np.eye(3, dtype=np.float32)[:1], np.array([[0.1, 0.2]])
    assert np.array_equal(scorer.weighted(1.0).rescored(image, scores, ["a", "c"]), scores)
    assert scorer.weighted(1.0).rescored(image, scores[:, :1], ["b"]) == pytest.approx(np.array([[0.1]]))


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_choice_is_that_of_validation_and_the_base_where_nothing_helps(multi_label: bool) -> None:
    support = _support(multi_label=multi_label)
    images = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.6, 0.8]], np.float32)
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1.0]])
    wrong = np.array([[0.0, 0.2], [0.0, 0.2], [0.2, 0.0], [0.2, 0.0]])
    scorers, alphas = TrainingFree().class_scorers(support), (0.01, 1.0, 3.0)
    choice = choose_scorer(scorers, alphas, images, wrong, labels, multi_label)
    assert choice.scorer is not None
    assert (choice.scorer.settings.alpha, choice.base, choice.chosen) == (1.0, 0.0, 1.0)
    # Negative controls: nothing to gain, and evidence against the labels.
    assert choose_scorer(scorers, alphas, images, -wrong, labels, multi_label).scorer is None
    choice = choose_scorer(scorers, alphas, images, wrong, labels[::-1], multi_label)
    assert choice.scorer is None
    assert "none" in choice.facts()["class_scorer"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, base: Path, corpus: Path) -> Path:
    """The run of the shipped recipe on the squares, with the form that stores single items."""
    folder = tmp_path_factory.mktemp("training_free") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOMAINCLIP_CACHE", str(folder.parent / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        recipe = square_recipe(
            "training_free", base, corpus, "strategy.training_free.form=cache", "probes=[zero_shot]"
        )
        assert finetune(recipe, RunOptions(folder=folder, quiet=True)) is not None
    return folder


def test_a_run_scores_better_with_the_weights_of_the_base(run: Path, base: Path, corpus: Path) -> None:
    results = load_results(run / "results.json")
    row = next(row for row in results.results if row.metric == "accuracy" and row.dataset == "test")
    assert row.adapted is not None
    assert row.adapted.value > row.base.value + 0.2
    assert "best of 40 by macro recall on validation" in (run / "report.md").read_text()
    assert results.run["steps"] == 0
    model, before = loading.load_model(run / "model"), loading.load_model(base)
    assert model.fingerprint("image") == before.fingerprint("image")
    assert model.fingerprint("all") != before.fingerprint("all")
    # `classify` answers as it was measured; without the scorer, as the base.
    images = [corpus / "images" / f"{i:03d}.png" for i in range(64) if i // 8 % 8 in (4, 7)]
    truth = [("blue", "green", "red", "white")[i // 2 % 4] for i in range(64) if i // 8 % 8 in (4, 7)]
    adapted = load_model(run)
    answers = [answer.label for answer in adapted.classify(images)]
    assert np.mean([a == t for a, t in zip(answers, truth, strict=True)]) == pytest.approx(row.adapted.value)
    adapted.model.scorer = None
    answers = [answer.label for answer in adapted.classify(images)]
    assert np.mean([a == t for a, t in zip(answers, truth, strict=True)]) == pytest.approx(row.base.value)


def test_what_cannot_use_the_scorer_refuses_or_names_domainclip(run: Path, corpus: Path) -> None:
    assert "domainclip.load_model" in blocks(ModelUse.of(run / "model", "clip"), None, None).code
    with pytest.raises(DomainclipError, match="scored with features of support items, which no export holds"):
        open_source(run)
    with pytest.raises(DomainclipError, match="has a class scorer of its frozen weights"):
        load_inputs(
            square_recipe(
                "training_free", run, corpus, "strategy={full: {}}", "objectives={contrastive: {}}"
            ),
            "train",
        )


def test_embeddings_of_single_items_are_pushed_only_if_nobody_is_identified(run: Path) -> None:
    assert {"scorer.json", "scorer.safetensors"} <= {file.path for file in files_to_push(run)}
    recipe = run / "recipe.yaml"
    text = recipe.read_text()
    try:
        recipe.write_text(text.replace("identifiers: none", "identifiers: unknown"))
        assert recipe.read_text() != text
        with pytest.raises(HubError, match="has embeddings of single items"):
            files_to_push(run)
    finally:
        recipe.write_text(text)


def test_a_scorer_of_another_version_is_refused(run: Path, tmp_path: Path) -> None:
    for name in ("scorer.json", "scorer.safetensors"):
        (tmp_path / name).write_bytes((run / "model" / name).read_bytes())
    assert SupportScorer.load(tmp_path).fingerprint == loading.load_model(run / "model").scorer.fingerprint
    data = json.loads((tmp_path / "scorer.json").read_text())
    (tmp_path / "scorer.json").write_text(json.dumps(data | {"form": "oracle"}))
    with pytest.raises(ValueError, match="form has a value"):
        SupportScorer.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objectives={contrastive: {}}"], "objectives: strategy training_free trains no weight"),
        (["weight_interpolation={}"], "weight_interpolation: strategy training_free trains no weight"),
        (["corpus.templates=[]"], "strategy.training_free: scores classes, and the corpus has 0"),
        (
            ["corpus.multi_label=true", "strategy.training_free.form=captions"],
            "strategy.training_free.form: captions needs classes that exclude each other",
        ),
    ],
)
def test_what_is_refused(base: Path, corpus: Path, changes: list[str], message: str) -> None:
    with pytest.raises(DomainclipError) as caught:
        load_inputs(square_recipe("training_free", base, corpus, *changes), "train")
    assert str(caught.value).startswith(message)
