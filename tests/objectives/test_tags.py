"""Tags: the cross-entropy of each by hand and as torchmetrics' library has it; which words are tags."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from sklearn.metrics import log_loss

from domainclip.components import WeightedObjectives
from domainclip.data.batching.extras import ExtraColumns, join_extras, stack_extras
from domainclip.data.text.tags import frequent_words, item_words, named_words
from domainclip.errors import DataError
from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.tags import Tags
from domainclip.training import objective_inputs
from tests.objectives.filled_views import check_gradients, filled_for


def test_a_value_worked_by_hand() -> None:
    eye = torch.eye(2, dtype=torch.float64)
    own = {"directions": 0.5 * eye[:1], "offsets": torch.tensor([-0.25], dtype=torch.float64)}
    views = Views(eye, eye, torch.tensor(4.0), own_weights=own, tags=torch.tensor([[True], [False]]))
    # z = 4 (0.5 − 0.25) = 1 for the first image, which has the tag, and 4 (0 − 0.25) = −1 for the second.
    assert Tags()(views).item() == pytest.approx(log(1 + exp(-1)), abs=1e-12)
    wrong = replace(views, tags=torch.tensor([[False], [True]]))
    assert Tags()(wrong).item() == pytest.approx(log(1 + exp(1)), abs=1e-12)


def test_at_the_start_every_tag_is_a_coin() -> None:
    views = filled_for(Tags())
    start = Tags().initial_weights(Sizes(6, tags=3), 0)
    assert Tags()(replace(views, own_weights=start)).item() == pytest.approx(log(2), abs=1e-6)


@pytest.mark.parametrize("source", ["captions", "labels"])
def test_parity_with_scikit_learn(source: str) -> None:
    objective = Tags(source=source)  # type: ignore[arg-type]
    views = filled_for(objective)
    right = views.tags if source == "captions" else views.labels
    assert right is not None
    own = views.own_weights
    chance = (views.scale * (views.image @ own["directions"].T + own["offsets"])).sigmoid().detach()
    expected = [log_loss(right[:, t], chance[:, t], labels=[False, True]) for t in range(right.shape[1])]
    assert objective(views).item() == pytest.approx(sum(expected) / len(expected), abs=1e-10)
    check_gradients(objective, replace(views, scale=views.scale.detach()))  # which no tag changes


def test_words_after_a_negation_are_not_there() -> None:
    assert named_words("Small effusion. No pneumothorax or mass.") == {"small", "effusion"}
    assert named_words("A cat without a dog") == {"cat"}
    assert named_words("Kein Erguss, keine Stauung. Herz vergrößert.", "de") == {"herz", "vergrössert"}
    assert item_words(["no mass", "a mass, 3 cm"], ["en", "en"]) == {"mass", "cm"}


def test_the_most_frequent_words_are_tags() -> None:
    captions = ["a red square", "a red circle", "a red cat", "a blue circle", "one blue square on a circle"]
    items = [([caption], ["en"]) for caption in captions]
    assert frequent_words(items, 9, 2) == ("circle", "red", "blue", "square")
    assert frequent_words(items, 2, 1) == ("circle", "red")
    every = [([f"photo of a {name}"], ["en"]) for name in ("cat", "dog")]
    assert frequent_words(every, 9, 1) == ("cat", "dog")  # "photo" tells none apart


def test_a_run_takes_the_words_of_its_training_items() -> None:
    captions = {"texts": [["a red square"], ["a blue square", "a dot"]], "language": [["en"], ["en", "en"]]}
    items = Dataset.from_dict(captions | {"labels": [["cat"], ["cat"]], "meta": ["{}", "{}"]})
    card = SimpleNamespace(name="squares", columns=SimpleNamespace(labels="label"))
    corpus: Any = SimpleNamespace(card=card, classes={}, splits={"train": items})
    spec = objective_inputs.pair_extras(WeightedObjectives({"tags": (1.0, Tags(min_items=1))}), corpus)
    assert spec.tags == ("blue", "dot", "red")  # all items name the square
    with pytest.raises(DataError) as caught:
        objective_inputs.pair_extras(WeightedObjectives({"tags": (1.0, Tags(min_items=9))}), corpus)
    assert str(caught.value) == (
        "objectives.tags.min_items: corpus squares has no word that the captions of 9 training items name, and "
        "not those of all: lower it, or leave tags out"
    )
    extras = [ExtraColumns(items, spec).extras_of(row, "", 0, 0) for row in (0, 1)]
    assert [pair.tags.tolist() for pair in extras if pair is not None and pair.tags is not None] == [
        [False, False, True],
        [True, True, False],
    ]
    assert stack_extras(extras).first(1).tags.tolist() == [[False, False, True]]  # type: ignore[union-attr]
    assert join_extras([stack_extras(extras)] * 2).tags.shape == (4, 3)  # type: ignore[union-attr]
