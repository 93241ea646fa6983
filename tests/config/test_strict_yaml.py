"""What YAML must not do to a recipe."""

from __future__ import annotations

import pytest

from domainclip.config.overrides import parse_value
from domainclip.config.strict_yaml import dump_yaml, load_yaml, parse_scalar
from domainclip.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2.5", -2.5),
        (".5", 0.5),
        ("3", 3),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("010", "010"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("'3'", "3"),
        ("~", None),
        ("", None),
        ("1.2.3", "1.2.3"),
        ("0x10", "0x10"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    assert load_yaml(f"a: {text}", "r.yaml") == {"a": value}
    assert type(load_yaml(f"a: {text}", "r.yaml")["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: !!python/object/apply:os.system ['true']",
            "r.yaml, line 1: tag tag:yaml.org,2002:python/object/apply:os.system: tags are not allowed here",
        ),
        ("a: &x [1]\nb: *x", "r.yaml, line 2: alias *x: write the value out instead"),
        ("a: 1\nb: {c: 1, c: 2}", 'r.yaml, line 2: key "c" occurs twice: remove one of them'),
        ("a: [1", "r.yaml: not valid YAML: line 1: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\n---\nb: 2", "r.yaml: not valid YAML: line 2: but found another document"),
        ("[" * 100_000, "r.yaml, line 1: more than 50 levels of nesting: write fewer"),
        ("a: " + "9" * 5000, "r.yaml: a number of thousands of digits: write a shorter one"),
        ("a" * 1_000_001, "r.yaml: 1000001 characters; a recipe or card has at most 1000000"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_yaml(text, "r.yaml")
    assert str(caught.value) == message


def test_alias_bomb_is_refused_at_its_first_alias() -> None:
    bomb = "a: &a [x, x]\n" + "\n".join(
        f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(RecipeError, match="alias \\*a"):
        load_yaml(bomb, "bomb.yaml")


def test_scalars_alone() -> None:
    assert parse_scalar("1e-4") == 1e-4
    assert parse_scalar("") is None
    assert parse_scalar("*star") == "*star"
    assert parse_scalar("[1, 2]") == "[1, 2]"


@pytest.mark.parametrize(
    "value",
    [
        *(
            "12e4567",
            "1e5",
            "+.5",
            "1.e5",
            "010",
            "0x1F",
            "1_000",
            "no",
            "null",
            "True",
            ".inf",
            "12:30:45",
            "2024-01-01",
        ),
        *(
            "=",
            "<<",
            "- a",
            "a\x85b",
            "\x85",
            "a\u2028b",
            "\ufeffa",
            "a\tb",
            " a ",
            "a\n\nb\n",
            "é",
            "",
            "x" * 200,
        ),
        *(1e-9, 1e308, -0.0, 10**40, True, None, [], {}, ["1e5", {"1e5": [1e5]}]),
    ],
)
def test_what_is_written_is_read_back_unchanged(value: object) -> None:
    assert load_yaml(dump_yaml({"a": value}), "r.yaml") == {"a": value}
    assert parse_value(dump_yaml(value, one_line=True)) == value


def test_a_value_that_occurs_twice_is_written_twice() -> None:
    shared = ["a"]
    assert load_yaml(dump_yaml([shared, shared]), "r.yaml") == [["a"], ["a"]]
