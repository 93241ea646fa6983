"""Components are found by their file name and refuse wrong options by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from torch import Tensor

from domainclip import registry
from domainclip.errors import ExitCode, RecipeError
from domainclip.objectives.base import Objective, Views


@dataclass(frozen=True, kw_only=True)
class Outside(Objective):
    """A component outside the package."""

    citation: ClassVar[str] = "none"
    width: int = 3

    def __call__(self, views: Views) -> Tensor:
        return views.scale


class NoDataclass(Objective):
    """Its fields could not be options."""

    def __call__(self, views: Views) -> Tensor:
        return views.scale


@dataclass(frozen=True, kw_only=True)
class Abstract(Objective):
    """It computes nothing."""


def test_names_come_from_the_disk() -> None:
    assert {"contrastive", "sigmoid", "anchor"} <= set(registry.names("objectives"))
    assert {"full", "lora", "locked_image", "locked_text"} <= set(registry.names("strategies"))


def test_options_are_typed_and_converted() -> None:
    lora = registry.build(
        "strategies", "lora", {"rank": 4, "dropout": "0.1", "towers": "text"}, "strategy.lora"
    )
    assert (lora.rank, lora.dropout, lora.towers) == (4, 0.1, "text")


def test_a_component_from_outside() -> None:
    assert registry.build("objectives", f"{__name__}:Outside", {"width": 5}, "objectives.x").width == 5


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        (
            "objectives",
            "contrastiv",
            {},
            'objectives: unknown component "contrastiv": did you mean "contrastive"?',
        ),
        ("strategies", "lora", {"rnk": 4}, 'strategy.x.rnk: unknown option: did you mean "rank"?'),
        (
            "strategies",
            "lora",
            {"rank": "four"},
            "strategy.x.rank: input should be a valid integer, unable to parse string as an integer, got 'four'",
        ),
        (
            "strategies",
            "lora",
            {"rank": 0},
            "strategy.x.rank: input should be greater than or equal to 1, got 0",
        ),
        (
            "strategies",
            "lora",
            {"towers": "txt"},
            "strategy.x.towers: input should be 'both', 'image' or 'text', got 'txt'",
        ),
        (
            "strategies",
            "os:system",
            {},
            'strategies: "os:system" does not inherit domainclip.strategies.base.Strategy: make that its base class',
        ),
        (
            "strategies",
            f"{__name__}:Outside",
            {},
            f'strategies: "{__name__}:Outside" does not inherit domainclip.strategies.base.Strategy: make that its base class',
        ),
        (
            "objectives",
            f"{__name__}:NoDataclass",
            {},
            f'objectives: "{__name__}:NoDataclass" is not a dataclass; a component\'s fields are its options',
        ),
        (
            "objectives",
            f"{__name__}:Abstract",
            {},
            f'objectives: "{__name__}:Abstract" does not define __call__, as domainclip.objectives.base.Objective requires',
        ),
        (
            "strategies",
            "no_such_module:X",
            {},
            "strategies: cannot import \"no_such_module:X\": No module named 'no_such_module'",
        ),
        ("strategies", "a b:c", {}, 'strategies: "a b:c" is not of the form package.module:Class'),
        ("strategy", "lora", {}, 'unknown kind of component "strategy": did you mean "strategies"?'),
    ],
)
def test_refused(kind: str, name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        registry.build(kind, name, options, "strategy.x")
    assert str(caught.value) == message
    assert caught.value.code == ExitCode.USAGE == 2
