"""Two stages: which weights learn in which, and that the refusals name what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip.errors import RecipeError
from domainclip.models import loading
from domainclip.strategies.full import Full
from domainclip.strategies.locked_image import LockedImage
from domainclip.strategies.locked_text import LockedText
from domainclip.strategies.two_stage import TwoStage


def test_the_second_stage_frees_what_the_first_locked(base: Path) -> None:
    loaded = loading.load_model(base)
    one, two = TwoStage(first_stage_share=0.25, stage_lr_factors=(2.0, 0.5), image_lr_factor=0.1).stages(
        loaded
    )
    assert (one.share, two.share) == (0.25, 0.75)
    assert one.learning_rates == {
        name: 2 * factor for name, factor in LockedImage().learning_rates(loading.load_model(base)).items()
    }
    assert two.learning_rates == {
        name: factor / 2
        for name, factor in Full(image_lr_factor=0.1).learning_rates(loading.load_model(base)).items()
    }


def test_the_text_tower_may_be_the_locked_one(base: Path) -> None:
    strategy = TwoStage(
        order="text_locked_first", stage_lr_factors=(1.0, 1.0), last_layers=1, train_logit_scale=False
    )
    one, two = strategy.stages(loading.load_model(base))
    assert one.learning_rates == LockedText(train_logit_scale=False).learning_rates(loading.load_model(base))
    assert two.learning_rates == Full(last_layers=1, train_logit_scale=False).learning_rates(
        loading.load_model(base)
    )


def test_what_learns_in_some_stage_is_told(base: Path) -> None:
    loaded = loading.load_model(base)
    factors = TwoStage().learning_rates(loaded)
    assert {factor for name, factor in factors.items() if name.startswith("image/")} == {0.1}
    assert {factor for name, factor in factors.items() if not name.startswith("image/")} == {1.0}
    assert all(weight.requires_grad for weight in loaded.weights().values())


@pytest.mark.parametrize(("first", "same"), [(0.0, Full()), (1.0, LockedImage())])
def test_one_stage_alone_is_the_plain_strategy(base: Path, first: float, same: Full | LockedImage) -> None:
    loaded, plain = loading.load_model(base), loading.load_model(base)
    factors = TwoStage(first_stage_share=first, stage_lr_factors=(1.0, 1.0)).learning_rates(loaded)
    assert factors == same.learning_rates(plain)
    assert [w.requires_grad for w in loaded.parameters()] == [w.requires_grad for w in plain.parameters()]


def test_a_stage_in_which_nothing_learns_is_refused(base: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        TwoStage(image_lr_factor=0, text_lr_factor=0, train_logit_scale=False).learning_rates(
            loading.load_model(base)
        )
    assert str(caught.value) == (
        "strategy.two_stage: with these options no weight learns in one of its stages"
    )
