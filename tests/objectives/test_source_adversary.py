"""Source adversary: its value and the sign of its gradient by hand, what it hides, and what it is refused with."""

from __future__ import annotations

import json
from dataclasses import replace
from math import exp, log, sqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from domainclip.components import WeightedObjectives
from domainclip.config import loading
from domainclip.data.batching.extras import ExtraColumns
from domainclip.data.batching.item_sources import SourceNumbers
from domainclip.data.schema import ACQUISITION, SOURCE, features
from domainclip.errors import DataError, RecipeError
from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.source_adversary import SourceAdversary
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.training_setup import make_pairs, make_setup
from domainclip.training import objective_inputs
from tests.data.curation import curation_inputs
from tests.objectives.filled_views import filled_for

NAN = float("nan")
LINEAR = SourceAdversary(given_labels=False, strength=3.0)


def _own(**weights: list[Any]) -> dict[str, Tensor]:
    return {name: torch.tensor(rows, dtype=torch.float64).requires_grad_() for name, rows in weights.items()}


def test_value_and_gradients_by_hand() -> None:
    """d = 2, W = I / √2, so that the logits are x. The first image (1, 0) is of source 1, the second of none.

    p = (e, 1) / (e + 1). The loss is −½ log p₁ = ½ log(1 + e). At the first image its gradient is
    ½ (p₀, p₁ − 1) = ½ p₀ (1, −1), and −3 times that is returned; at W it is ½ (p₀, p₁ − 1)ᵀ √2 x, not reversed.
    """
    image = torch.eye(2, dtype=torch.float64).requires_grad_()
    own = _own(output=[[1 / sqrt(2), 0.0], [0.0, 1 / sqrt(2)]], bias=[0.0, 0.0])
    views = Views(image, image, torch.tensor(1.0), pair_value=torch.tensor([1.0, NAN]), own_weights=own)
    loss = LINEAR(views)
    assert loss.item() == pytest.approx(log(1 + exp(1)) / 2, abs=1e-12)
    at_image, at_output = torch.autograd.grad(loss, [image, own["output"]])
    p = exp(1) / (exp(1) + 1)
    expected = torch.tensor([[-1.5 * p, 1.5 * p], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(at_image, expected, rtol=0, atol=1e-12)
    expected = torch.tensor([[p / sqrt(2), 0.0], [-p / sqrt(2), 0.0]], dtype=torch.float64)
    torch.testing.assert_close(at_output, expected, rtol=0, atol=1e-12)


def test_it_is_a_classifier_of_torch_and_only_the_gradient_at_the_image_is_reversed() -> None:
    objective = SourceAdversary(hidden=5, strength=2.0)
    views = filled_for(objective)
    own, image = views.own_weights, views.image
    assert views.labels is not None
    layer, output = nn.Linear(6, 5).double(), nn.Linear(5 + 2, 2).double()
    weights = {
        layer.weight: own["layer"],
        layer.bias: own["layer_bias"],
        output.weight: torch.cat([own["output"], own["labels"]], dim=1),
        output.bias: own["bias"],
    }
    with torch.no_grad():
        for parameter, weight in weights.items():
            parameter.copy_(weight)
    source = torch.arange(len(image)) % 2
    views = replace(views, pair_value=source.float())
    given = torch.cat([layer(image * sqrt(6)).relu(), views.labels.double()], dim=1)
    expected = F.cross_entropy(output(given), source)
    torch.testing.assert_close(objective(views), expected)
    plain = torch.autograd.grad(expected, [image, output.bias, layer.bias])
    found = torch.autograd.grad(objective(views), [image, own["bias"], own["layer_bias"]])
    torch.testing.assert_close(found[0], -2.0 * plain[0])
    torch.testing.assert_close(found[1:], plain[1:])


@pytest.mark.parametrize("hidden", [0, 4])
def test_at_the_start_nothing_is_known_and_nothing_is_reversed(hidden: int) -> None:
    objective = SourceAdversary(hidden=hidden)
    views = filled_for(objective)
    start = objective.initial_weights(Sizes(6, classes=2, sources=3), 0)
    loss = objective(replace(views, own_weights=start))
    assert loss.item() == pytest.approx(log(3), abs=1e-6)
    assert not torch.autograd.grad(loss, views.image)[0].any()


def _trained(weight: float, tangled: float = 0.5) -> tuple[float, float, float]:
    """What a linear tower of six inputs keeps of the source, of the label, and of the source within a label.

    The first input is the source, the second the label, both with noise, the others noise alone; `tangled` is the
    share of items whose label is their source's. The source is the accuracy of a linear classifier, the others
    the distance between the means of the embeddings.
    """
    draw, n, steps = torch.Generator().manual_seed(0), 300, 150
    source = torch.randint(0, 2, (n,), generator=draw)
    label = torch.where(torch.rand(n, generator=draw) < tangled, source, 1 - source)
    inputs = torch.randn(n, 6, generator=draw)
    inputs[:, :2] = 4 * torch.stack([source, label], dim=1) - 2 + 1.5 * torch.randn(n, 2, generator=draw)
    tower, head = torch.eye(6).requires_grad_(), torch.zeros(6, requires_grad=True)
    objective = SourceAdversary(given_labels=tangled != 0.5)
    own = objective.initial_weights(Sizes(6, classes=2, sources=2), 0)
    groups = [
        {"params": [tower, head], "lr": 0.01},
        {"params": [tensor.requires_grad_() for tensor in own.values()], "lr": 0.05},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    classes = F.one_hot(label).bool()
    for _ in range(steps):
        image = F.normalize(inputs @ tower, dim=-1)
        views = Views(
            image, image, torch.tensor(1.0), pair_value=source.float(), labels=classes, own_weights=own
        )
        loss = F.binary_cross_entropy_with_logits(3 * image @ head, label.float()) + weight * objective(views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    rows = F.normalize(inputs @ tower, dim=-1).detach()
    within = [_distance(rows[label == one], source[label == one]) for one in (0, 1)]
    readable = LogisticRegression().fit(rows.numpy(), source.numpy()).score(rows.numpy(), source.numpy())
    return float(readable), _distance(rows, label), sum(within) / 2


def _distance(rows: Tensor, by: Tensor) -> float:
    return float((rows[by == 1].mean(dim=0) - rows[by == 0].mean(dim=0)).norm())


def test_a_source_that_can_be_read_is_hidden_and_stays_readable_without_it() -> None:
    readable, label, _ = _trained(0.0)
    assert readable > 0.8  # the control: learning the label alone hides nothing
    assert label > 1.2
    readable, label, _ = _trained(1.0)
    assert readable < 0.7
    assert label > 1.2


def test_a_label_that_is_tangled_with_the_source_stays() -> None:
    """Label and source agree in 90 % of the items."""
    _, label, within = _trained(1.0, tangled=0.9)
    _, label_without, within_without = _trained(0.0, tangled=0.9)
    assert within < 0.7 * within_without
    assert label > 0.85 * label_without


def _items(sources: list[str], labels: list[list[str]]) -> Dataset:
    rows = curation_inputs.items([["a"] for _ in sources], labels).to_list()
    for row, source in zip(rows, sources, strict=True):
        row["meta"] = json.dumps({SOURCE: source, ACQUISITION: "PA"})
    return Dataset.from_list(rows, features=features())


def _spec(items: Dataset, **options: Any) -> Any:
    card = SimpleNamespace(name="films", columns=SimpleNamespace(labels="label"), implied_classes={})
    corpus: Any = SimpleNamespace(card=card, classes={}, splits={"train": items})
    terms = WeightedObjectives({"source_adversary": (1.0, SourceAdversary(**options))})
    return objective_inputs.pair_extras(terms, corpus)


def test_sources_are_numbered_and_those_of_another_corpus_are_not() -> None:
    items = _items(["B", "A", "", "B"], [["x"], ["x"], ["x"], ["y"]])
    spec = _spec(items)
    extras = [ExtraColumns(items, spec).extras_of(row, "", 0, 0) for row in range(4)]
    values = [pair.values["source_adversary"] for pair in extras if pair is not None]
    assert np.array_equal(values, [1, 0, NAN, 1], equal_nan=True)
    mixed = objective_inputs.mixed_extras(spec, SimpleNamespace(classes={}, card=None))  # type: ignore[arg-type]
    other = ExtraColumns(items, mixed).extras_of(0, "", 0, 0)
    assert other is not None
    assert np.isnan(other.values["source_adversary"])
    assert SourceNumbers.of(items, "both").numbers == {("", "PA"): 0, ("A", "PA"): 1, ("B", "PA"): 2}


def test_sources_that_cannot_be_told_apart_are_refused() -> None:
    tangled = _items(["A", "B"], [["x"], ["y"]])
    with pytest.raises(DataError) as caught:
        _spec(tangled)
    assert str(caught.value) == (
        "objectives.source_adversary.given_labels: no label occurs in two values of source, so nothing "
        "distinguishes the source from the label: leave source_adversary out; "
        "objectives.source_adversary.given_labels=false would hide the label too"
    )
    assert len(_spec(tangled, given_labels=False).sources["source_adversary"].numbers) == 2
    with pytest.raises(
        DataError, match=r"^objectives.source_adversary.by: the training items of corpus films"
    ):
        _spec(tangled, by="acquisition")


def test_a_run_reads_the_sources_and_refuses_a_locked_image_tower_and_a_stream(recipe_file: Path) -> None:
    changes = ["objectives={contrastive: {}, source_adversary: {}}", "corpus.columns.source=group_id"]
    inputs = load_inputs(loading.load_recipe(str(recipe_file), changes), "train")
    numbers = make_pairs(inputs, pixels=False).extra_spec.sources["source_adversary"].numbers
    assert len(numbers) == len(set(inputs.train_items.items["group"][:]))
    locked = ["strategy={two_stage: {image_lr_factor: 0}}"]  # known when the stages are planned
    with pytest.raises(RecipeError) as caught:
        make_setup(load_inputs(loading.load_recipe(str(recipe_file), [*changes, *locked]), "train"))
    assert str(caught.value) == (
        "objectives.source_adversary: changes the image tower alone, of which strategy.two_stage trains no "
        "weight: leave it out, or take another strategy"
    )
    with pytest.raises(RecipeError, match=r"^objectives.source_adversary: needs all training pairs at once"):
        objective_inputs.check_objectives(inputs.objectives, inputs.model, stream=True)
