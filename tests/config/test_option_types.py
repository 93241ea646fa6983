"""Options of components in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip import registry
from domainclip.config.option_types import describe_options, field_comments


class _Base:
    inherited: int = 1  # of the base


class _Own(_Base):
    # On two
    # lines.
    above: int = 1
    beside: int = 2  # at the end
    inside: tuple[int, ...] = (
        4,  # in
        5,  # brackets
    )
    without: int = 3


def test_the_meaning_of_an_option_is_the_comment_beside_or_above_it() -> None:
    assert field_comments(_Own) == {
        "inherited": "of the base",
        "above": "On two lines.",
        "beside": "at the end",
        "inside": "in brackets",
        "without": "",
    }


def test_a_default_that_is_a_list_is_shown_and_not_called_required() -> None:
    (rules,) = [one for one in describe_options("objectives", "negative_captions") if one.name == "rules"]
    assert rules.default == '["swap", "numbers", "laterality", "negation", "order"]'
    (widths,) = [one for one in describe_options("objectives", "matryoshka") if one.name == "widths"]
    assert widths.default == "required"


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_option_of_every_component_has_a_meaning(kind: str) -> None:
    missing = [
        f"{name}.{option.name}"
        for name in registry.names(kind)
        for option in describe_options(kind, name)
        if not option.meaning
    ]
    assert missing == []


def test_every_key_of_a_recipe_has_a_meaning() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "recipe-keys.md"
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(rows) > 300
    assert [row for row in rows if row.endswith("|  |")] == []
