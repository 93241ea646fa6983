"""Matryoshka by hand, against sentence-transformers, and what it hands on from the objective inside."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from domainclip import registry
from domainclip.config import loading
from domainclip.data.text.training_pair import TrainingPair
from domainclip.errors import RecipeError
from domainclip.objectives.base import Objective, ObjectiveInputs, Views
from domainclip.objectives.contrastive import Contrastive
from domainclip.objectives.matryoshka import Matryoshka
from domainclip.pipelines.inputs import load_inputs
from domainclip.pipelines.training_setup import make_setup
from tests.objectives.filled_views import check_gradients, check_processes, filled, gradients


@dataclass(frozen=True, kw_only=True)
class AsksForMore(Objective):
    """An objective from outside the package that wants everything a run can give to one objective."""

    citation: ClassVar[str] = "none"
    needs: ClassVar[frozenset[str]] = frozenset({"extra_text", "pair_value", "teachers"})

    column: str = "stars"

    @property
    def inputs(self) -> ObjectiveInputs:
        return ObjectiveInputs(value_column=self.column, teachers=("one/teacher",))

    def extra_texts(self, pair: TrainingPair) -> list[str]:
        return [pair.text.upper()]

    def __call__(self, views: Views) -> Tensor:
        assert views.extra_text is not None
        return views.extra_text.sum()


def _build(**options: Any) -> Matryoshka:
    built: Matryoshka = registry.build("objectives", "matryoshka", options, "objectives.matryoshka")
    return built


def test_by_hand() -> None:
    # In one dimension the first text is the right one for both images; in two, each has its own.
    image = torch.tensor([[0.6, 0.8], [0.6, -0.8]], dtype=torch.float64)
    views = Views(image, image, torch.tensor(1.0, dtype=torch.float64))
    narrow, wide = log(2), log(1 + exp(0.36 - 0.64 - 1))
    assert _build(widths=[1, 2])(views).item() == pytest.approx((narrow + wide) / 2, abs=1e-12)
    assert _build(widths=[1, 2], weights=[3, 0.5])(views).item() == pytest.approx(
        3 * narrow + wide / 2, abs=1e-12
    )


def test_the_full_width_alone_is_the_inner_objective() -> None:
    views = filled(d=6)
    assert _build(widths=[6])(views).item() == pytest.approx(Contrastive()(views).item(), abs=1e-12)


@pytest.mark.slow  # the library takes seconds to import
def test_equal_to_sentence_transformers() -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    views = filled(b=7, d=6, grouped=False)

    class Model(nn.Module):
        def get_embedding_dimension(self) -> int:
            return 6

        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"sentence_embedding": features["rows"]}

    class Clip(nn.Module):
        """A loss that asks its model for two sides, as theirs do."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, features: list[dict[str, Tensor]], labels: Tensor) -> Tensor:
            image, text = (self.model(side)["sentence_embedding"] for side in features)
            logits = views.scale * image @ text.T
            return (
                nn.functional.cross_entropy(logits, labels) + nn.functional.cross_entropy(logits.T, labels)
            ) / 2

    model = Model()
    theirs = losses.MatryoshkaLoss(
        model, Clip(model), matryoshka_dims=[6, 3, 2], matryoshka_weights=[1, 0.5, 2]
    )
    expected = theirs([{"rows": views.image}, {"rows": views.text}], torch.arange(7))
    found = _build(widths=[6, 3, 2], weights=[1, 0.5, 2])(views)
    assert found.item() == pytest.approx(expected.item(), abs=1e-10)
    for mine, other in zip(gradients(found, views), gradients(expected, views), strict=True):
        assert torch.allclose(mine, other, atol=1e-10)


def test_the_first_dimensions_learn_to_stand_alone() -> None:
    # What tells the pairs apart lies in the last dimensions: plain contrast sees no need to move it.
    eye = torch.eye(4, dtype=torch.float64)
    image = torch.cat([0.1 * torch.ones(4, 2, dtype=torch.float64), eye], 1).requires_grad_()
    text = torch.cat([0.1 * torch.ones(4, 2, dtype=torch.float64), eye], 1)
    text[:, 0] += torch.linspace(-0.05, 0.05, 4, dtype=torch.float64)
    views = Views(image, text, torch.tensor(30.0, dtype=torch.float64))
    (plain,) = torch.autograd.grad(Contrastive()(views), image)
    (nested,) = torch.autograd.grad(_build(widths=[2, 6])(views), image)
    assert plain[:, :2].abs().max() < 1e-9
    assert nested[:, :2].abs().max() > 1e-2


def test_hands_on_what_the_inner_objective_wants() -> None:
    nested = _build(widths=[2], objective={f"{__name__}:AsksForMore": {"column": "likes"}})
    assert nested.needs == {"extra_text", "pair_value", "teachers"}
    assert nested.inputs == ObjectiveInputs(value_column="likes", teachers=("one/teacher",))
    assert nested.extra_texts(TrainingPair("a cat", ("a cat",), ("en",), (), {}, 0)) == ["A CAT"]
    plain = _build(widths=[2])
    assert plain.needs == frozenset()
    assert plain.inputs == ObjectiveInputs()


def test_teachers_keep_their_width() -> None:
    options = {"distillation": {"teachers": ["one", "two"]}}
    views = filled(frozenset({"teachers"}), teachers=2)
    assert _build(widths=[2, 6], objective=options)(views).item() > 0
    assert views.truncate(2).teachers[0].image.shape == (8, 9)


def test_a_width_that_the_base_does_not_have_is_refused() -> None:
    said = "objectives.matryoshka.widths: 768 is more than the 512 dimensions that the base's embeddings have: name smaller ones"
    with pytest.raises(RecipeError) as caught:
        _build(widths=[64, 768]).check_model(512)
    assert str(caught.value) == said
    with pytest.raises(RecipeError, match="8 is more than the 6 dimensions"):
        _build(widths=[8])(filled(d=6))


def test_such_a_width_is_refused_before_training(recipe_file: Path) -> None:
    ready = load_inputs(
        loading.load_recipe(
            str(recipe_file), ["objectives={contrastive: {}, matryoshka: {widths: [4, 32]}}"]
        ),
        "train",
    )
    with pytest.raises(RecipeError) as caught:
        make_setup(ready)
    assert str(caught.value) == (
        "objectives.matryoshka.widths: 32 is more than the 16 dimensions that the base's embeddings have: name smaller ones"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": []}, "objectives.matryoshka.widths: list should have at least 1 item after validation, not 0, got []"),
        ({"widths": [4, 4]}, "objectives.matryoshka: widths: name each once"),
        ({"widths": [4], "weights": [1, 2]}, "objectives.matryoshka: weights: 2 for 1 widths"),
        ({"widths": [4], "objective": {}}, "objectives.matryoshka: objective: name exactly one objective, not 0"),
        ({"widths": [4], "objective": {"matryoshka": {"widths": [2]}}}, "objectives.matryoshka: objective: matryoshka cannot hold itself: name another objective"),
        ({"widths": [4], "objective": {"contrastiv": {}}}, 'objectives: unknown component "contrastiv": did you mean "contrastive"?'),
        ({"widths": [4], "objective": {"contrastive": {"target": "soft"}}}, 'objectives.matryoshka.objective.contrastive.target: unknown option: did you mean "targets"?'),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_when_the_recipe_is_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _build(**options)
    assert str(caught.value) == message


def test_exact() -> None:
    objective = _build(widths=[2, 3], weights=[0.3, 2])
    check_gradients(objective, filled(b=5, d=3))
    check_processes(objective, filled(b=12))
