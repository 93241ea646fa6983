"""Embeddings refined with what they retrieve: the layer and the loss by hand, what it learns, and a run."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from domainclip.errors import DataError, DomainclipError, RecipeError
from domainclip.evaluation.scorer_choice import choose_scorer
from domainclip.inference.adapted_model import load_model
from domainclip.models import fusion_layer, fusion_training, loading, saved_scorer
from domainclip.models.fusion_scorer import FusionScorer
from domainclip.models.hyperbolic_space import HyperbolicSpace
from domainclip.pipelines.finetune import finetune
from domainclip.pipelines.inputs import load_inputs
from domainclip.report.results_file import load as load_results
from domainclip.strategies.base import Support, SupportPairs
from domainclip.strategies.retrieval_fusion import RetrievalFusion
from domainclip.training.run_context import RunOptions
from tests.support.square_recipes import square_recipe

CLASSES, WIDTH, ITEMS = 4, 16, 64


def _unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled.astype(np.float32)


def test_the_layer_by_hand_and_the_identity_at_the_start() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    zero = torch.zeros(2, 2, dtype=torch.float64)
    weights = {
        "kinds": zero,
        "attention_in": torch.stack([zero, zero, eye]),  # equal attention to all tokens
        "attention_out": eye,
        "mlp_in": torch.zeros(8, 2, dtype=torch.float64),
        "mlp_out": torch.zeros(2, 8, dtype=torch.float64),
    }
    query, retrieved = eye[:1], eye[1:].expand(1, 2, 2)
    # Behind the norm the tokens are (1, −1), (−1, 1), (−1, 1): their mean is (−1, 1) / 3.
    expected = torch.tensor([[2.0, 1.0]], dtype=torch.float64) / 5**0.5
    assert torch.allclose(fusion_layer.refine(weights, query, retrieved, 1), expected, atol=1e-4)
    start = fusion_layer.initial_weights(2, torch.Generator().manual_seed(0))
    assert torch.allclose(fusion_layer.refine(start, query.float(), retrieved.float(), 1), query.float())


def test_the_attention_is_that_of_torch_and_the_gradients_are_right() -> None:
    draw = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(weight.shape, generator=draw, dtype=torch.float64) / 2
        for name, weight in fusion_layer.initial_weights(4, draw).items()
    }
    query, retrieved = (
        torch.randn(3, *shape, generator=draw, dtype=torch.float64) for shape in ((4,), (5, 4))
    )
    attention = nn.MultiheadAttention(4, 2, bias=False, batch_first=True, dtype=torch.float64)
    attention.in_proj_weight.data = weights["attention_in"].flatten(0, 1)
    attention.out_proj.weight.data = weights["attention_out"]
    tokens = torch.cat([query[:, None] + weights["kinds"][0], retrieved + weights["kinds"][1]], dim=1)
    rows = nn.functional.layer_norm(tokens, (4,))
    plain = {**weights, "mlp_out": torch.zeros_like(weights["mlp_out"])}
    expected = nn.functional.normalize(query + attention(rows[:, :1], rows, rows)[0][:, 0], dim=-1)
    assert torch.allclose(fusion_layer.refine(plain, query, retrieved, 2), expected)

    def loss(*values: torch.Tensor) -> torch.Tensor:
        refined = fusion_layer.refine(dict(zip(weights, values, strict=True)), query, retrieved, 2)
        return fusion_training.fusion_loss((query, query), (refined, refined), torch.eye(3) < 0, 2.0)

    assert torch.autograd.gradcheck(loss, [weight.requires_grad_() for weight in weights.values()])


def test_the_loss_by_hand() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    none = torch.zeros(2, 2, dtype=torch.bool)
    # Refined images against plain texts are exchanged: log(1 + e^2); the two others agree: log(1 + e^−2).
    found = fusion_training.fusion_loss((eye.flip(0), eye), (eye.flip(0), eye.flip(0)), none, 2.0)
    assert found.item() == pytest.approx((2 * log(1 + exp(-2)) + log(1 + exp(2))) / 3)
    same = ~torch.eye(2, dtype=torch.bool)  # of one caption: no negative is left
    assert fusion_training.fusion_loss((eye, eye), (eye, eye), same, 2.0).item() == 0.0


def test_nothing_of_its_group_is_retrieved() -> None:
    rows = _unit(np.array([[1, 0], [1, 0.01], [1, 0.1], [0, 1.0]]))
    found = fusion_training.nearest_of_other_groups(rows, np.array([0, 0, 1, 2]), 2)
    assert found.tolist() == [[2, 3], [2, 3], [1, 0], [2, 1]]
    with pytest.raises(DataError, match="are of one group"):
        _scorers(group=np.zeros(ITEMS, np.int64))


def _corpus(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, captions and classes: the text of a class says nothing about where its images lie."""
    draw = np.random.default_rng(seed)
    centres, texts = (np.linalg.qr(np.random.default_rng(s).normal(size=(WIDTH, WIDTH)))[0] for s in (1, 2))
    classes = np.arange(count) % CLASSES
    images = centres[classes] + 0.1 * draw.normal(size=(count, WIDTH))
    captions = texts[classes] + 0.1 * draw.normal(size=(count, WIDTH))
    return _unit(images), _unit(captions), classes


def _scorers(
    wrong_captions: bool = False, steps: tuple[int, ...] = (5, 40), **changes: Any
) -> tuple[FusionScorer, ...]:
    images, captions, _ = _corpus(3, ITEMS)
    if wrong_captions:
        captions = captions[np.random.default_rng(0).permutation(ITEMS)]
    each = np.arange(ITEMS)
    pairs = replace(SupportPairs(captions, each, each), **changes)
    prompts = np.linalg.qr(np.random.default_rng(2).normal(size=(WIDTH, WIDTH)))[0][:CLASSES]
    support = Support(
        list("abcd"), images, np.zeros((0, CLASSES)), prompts.astype(np.float32), 10.0, False, pairs
    )
    strategy = RetrievalFusion(neighbours=4, heads=2, steps=steps, batch_size=32, rate=3e-3)
    return tuple(strategy.class_scorers(support))


def _accuracy(scorer: FusionScorer) -> float:
    images, _, classes = _corpus(4, 80)
    return float((scorer.evidence(images).argmax(axis=1) == classes).mean())


def test_what_is_retrieved_classifies_new_images_and_wrong_captions_do_not(tmp_path: Path) -> None:
    early, late = _scorers()
    assert (early.settings.steps, late.settings.steps) == (5, 40)
    assert _accuracy(late) > 0.9
    images, _, classes = _corpus(5, 80)
    scores = (
        images.astype(np.float64) @ np.linalg.qr(np.random.default_rng(2).normal(size=(WIDTH, WIDTH)))[0].T
    )
    labels = np.eye(CLASSES)[classes]
    choice = choose_scorer((early, late), (0.3, 3.0), images, scores[:, :CLASSES], labels, multi_label=False)
    assert choice.scorer is not None
    assert choice.chosen > choice.base + 0.3
    assert choice.facts()["class_scorer"].startswith("retrieval fusion after ")
    # Negative control: captions of other images.
    assert _accuracy(_scorers(wrong_captions=True)[1]) < 0.6
    # The same again, from the same seed and from the saved files.
    assert np.array_equal(_scorers(steps=(5,))[0].evidence(images), early.evidence(images))
    late.weighted(0.3).save(tmp_path)
    again = saved_scorer.load_scorer(tmp_path)
    assert isinstance(again, FusionScorer)
    assert again.fingerprint == late.weighted(0.3).fingerprint != late.fingerprint
    assert np.array_equal(again.evidence(images), late.evidence(images))
    assert np.allclose(again.evidence(images[:1]), late.evidence(images)[:1], atol=1e-12)


def test_widths_and_spaces_that_do_not_fit_are_refused(base: Path) -> None:
    model = loading.load_model(base)
    with pytest.raises(
        RecipeError, match=r"strategy.retrieval_fusion.heads: 7 heads cannot share .*: take 4"
    ):
        RetrievalFusion(heads=7).learning_rates(model)
    assert not any(RetrievalFusion(heads=4).learning_rates(model).values())
    model.space = HyperbolicSpace({}, 1.0)
    with pytest.raises(RecipeError, match=r"strategy.retrieval_fusion: the base has a hyperbolic space"):
        RetrievalFusion(heads=4).learning_rates(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objectives={contrastive: {}}"], "objectives: strategy retrieval_fusion trains no weight"),
        (["corpus.templates=[]"], "strategy.retrieval_fusion: scores classes, and the corpus has 0"),
    ],
)
def test_what_is_refused(base: Path, corpus: Path, changes: list[str], message: str) -> None:
    with pytest.raises(DomainclipError) as caught:
        load_inputs(square_recipe("retrieval_fusion", base, corpus, *changes), "train")
    assert str(caught.value).startswith(message)


def test_a_run_of_the_recipe_classifies_as_it_was_measured(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    changes = ("strategy.retrieval_fusion.steps=[100]", "strategy.retrieval_fusion.heads=4")
    recipe = square_recipe("retrieval_fusion", base, corpus, *changes, "probes=[zero_shot]")
    assert finetune(recipe, RunOptions(folder=tmp_path / "run", quiet=True)) is not None
    results = load_results(tmp_path / "run" / "results.json")
    row = next(row for row in results.results if row.metric == "accuracy" and row.dataset == "test")
    assert row.adapted is not None
    assert "by macro recall on validation" in (tmp_path / "run" / "report.md").read_text()
    images = [corpus / "images" / f"{i:03d}.png" for i in range(64) if i // 8 % 8 in (4, 7)]
    truth = [("blue", "green", "red", "white")[i // 2 % 4] for i in range(64) if i // 8 % 8 in (4, 7)]
    answers = [answer.label for answer in load_model(tmp_path / "run").classify(images)]
    assert np.mean([a == t for a, t in zip(answers, truth, strict=True)]) == pytest.approx(row.adapted.value)
