"""Recipes, cards and overrides through `validate`: one line for each fault, and what is valid stays so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from domainclip.cli import plan
from domainclip.config import loading
from tests.fuzz import documents
from tests.fuzz.oracle import Room

MakeRoom = Callable[[str], Room]


def _validate(room: Room, given: object, overrides: list[str] | None = None) -> None:
    """Valid or refused; a valid recipe is the same after it was written with all its defaults."""

    def call() -> bool:
        plan.validate("recipe.yaml", overrides)
        return True

    # People write recipes and overrides themselves, so their values may be shown to them.
    if not room.observe(call, given, secret=None):
        return
    recipe = loading.load_recipe("recipe.yaml", overrides or [])
    Path("resolved.yaml").write_text(recipe.resolved(), encoding="utf-8")
    again = room.observe(lambda: loading.load_recipe("resolved.yaml"), given, secret=None)
    room.inputs, room.accepted = room.inputs - 1, room.accepted - (again is not None)
    room.require(again == recipe, "silent loss", "the resolved recipe is another one", given)


def test_recipes(room: MakeRoom) -> None:
    here = room("recipes")

    @here.each(0.02, data=documents.RECIPES)
    def _(data: bytes) -> None:
        Path("recipe.yaml").write_bytes(data)
        _validate(here, data)


def test_cards(room: MakeRoom) -> None:
    here = room("cards")
    Path("recipe.yaml").write_text(
        documents.dump({**documents.RECIPE, "corpus": {"path": "squares", "card": "card.md"}})
    )

    @here.each(0.015, data=documents.CARDS)
    def _(data: bytes) -> None:
        Path("card.md").write_bytes(data)
        _validate(here, data)


def test_overrides(room: MakeRoom) -> None:
    here = room("overrides")
    Path("recipe.yaml").write_text(documents.dump(documents.RECIPE))

    @here.each(0.02, texts=documents.OVERRIDES)
    def _(texts: list[str]) -> None:
        _validate(here, texts, texts)
