"""Class captions: the loss by hand, whose prompts are no negatives, and what a pair without a class does."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch
from torch import Tensor

from domainclip.data.cards import Prompts
from domainclip.objectives.base import Views
from domainclip.objectives.class_captions import ClassCaptions
from domainclip.objectives.contrastive import Contrastive
from tests.support.text_objectives import assert_gradients, assert_shares_add_up, batch, shown, unit

CLASSES = {
    "Cubism": Prompts(positive=["a Cubism painting", "Cubism"]),
    "Baroque": Prompts(positive=["Baroque"]),
}
# Cubism, Baroque, both, none, none, Baroque
LABELS = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0], [0, 0], [0, 1]]).bool()


def _views(labels: Tensor = LABELS, group: list[int] | None = None) -> Views:
    counts = [int(row.any()) for row in labels]
    return replace(batch(counts, group, seed=2), labels=labels)


def test_hand_worked() -> None:
    """Scale 2: x₁ = p₁ = (1, 0), x₂ = p₂ = (0, 1), of two classes: log(1 + e⁻²) both ways."""
    eye = torch.eye(2, dtype=torch.float64)
    views = Views(
        eye, eye.flip(0), torch.tensor(2.0), extra_text=eye[:, None], extra_text_mask=torch.ones(2, 1).bool()
    )
    loss = ClassCaptions()(replace(views, labels=torch.eye(2).bool()))
    assert loss.item() == pytest.approx(log(1 + exp(-2)), abs=1e-12)
    # One class: neither is a negative of the other, so nothing is left to tell apart.
    assert ClassCaptions()(replace(views, labels=torch.ones(2, 1).bool())).item() == 0


def test_pairs_that_share_a_class_or_a_group_are_no_negatives() -> None:
    views = _views(group=[0, 1, 2, 3, 3, 4])
    assert views.extra_text is not None
    prompts = torch.stack([views.extra_text[i, 0] if LABELS[i].any() else views.text[i] for i in range(6)])
    negatives = {0: [1, 5], 1: [0], 2: [], 3: [], 4: [], 5: [0]}  # 3 and 4 are of one group
    nats = []
    for rows, columns in ((views.image, prompts), (prompts, views.image)):
        logits = views.scale * rows @ columns.T
        nats += [-torch.log_softmax(logits[i, [i, *negatives[i]]], dim=0)[0] for i in range(6)]
    torch.testing.assert_close(ClassCaptions()(views), torch.stack(nats).mean(), rtol=1e-12, atol=0)


def test_without_classes_it_is_the_contrastive_objective_of_the_captions() -> None:
    views = _views(torch.zeros(6, 2).bool(), group=[0, 1, 2, 3, 3, 4])
    torch.testing.assert_close(ClassCaptions()(views), Contrastive()(views), rtol=1e-12, atol=0)
    # Negative control: with classes it is another.
    assert abs(ClassCaptions()(_views()).item() - Contrastive()(_views()).item()) > 1e-3


def test_one_prompt_of_one_class_is_drawn_anew_in_each_epoch() -> None:
    def texts(*labels: str) -> set[str]:
        pairs = [replace(shown("a caption", labels=labels, seed=s), classes=CLASSES) for s in range(20)]
        drawn = [ClassCaptions().extra_texts(pair) for pair in pairs]
        assert drawn == [ClassCaptions().extra_texts(pair) for pair in pairs]
        assert {len(one) for one in drawn} <= {0, 1}
        return {text for one in drawn for text in one}

    assert texts("Cubism") == {"a Cubism painting", "Cubism"}
    assert texts("Cubism", "Baroque") == {"a Cubism painting", "Cubism", "Baroque"}
    assert texts() == texts("rare style without a prompt") == set()


@pytest.mark.parametrize("world", [2, 3])
def test_the_mean_over_processes_is_exact(world: int) -> None:
    assert_shares_add_up(ClassCaptions(), _views(group=[0, 1, 2, 3, 3, 4]), world)


def test_gradients() -> None:
    views = replace(_views(), image=unit(6, 5, seed=8))
    assert_gradients(ClassCaptions(), views, ("image", "text", "extra_text", "scale"))
