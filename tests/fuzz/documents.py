"""Recipes, cards and overrides: correct ones with some keys, values or characters changed."""

from __future__ import annotations

import typing
from typing import Any

import yaml
from hypothesis import strategies as st
from pydantic import BaseModel

from domainclip import registry
from domainclip.config.recipe import Recipe
from domainclip.data.cards import Card

RECIPE: dict[str, Any] = {
    "base": "some/base",
    "corpus": {"path": "squares", "reader": "table", "columns": {"texts": ["caption"], "split": ""}},
    "strategy": {"lora": {"rank": 4}},
    "train": {"epochs": 2, "learning_rate": 0.001},
    "probes": {"zero_shot": {}, "retrieval": {}},
}
CARD: dict[str, Any] = {
    "license": "mit",
    "language": ["en"],
    "pretty_name": "Squares",
    "domainclip": {
        "reader": "table",
        "columns": {"image": "file_name", "texts": ["text"], "labels": "label"},
        "captions": {"template": "{label}. {text}"},
        "classes": {"red": "a red square", "green": ["a green square"]},
        "splits": {"train": 0.8, "validation": 0.1, "test": 0.1},
        "privacy": {"identifiers": "none"},
    },
}
_WORDS = [
    *("12:30:45", "1e-4", "1e5", "12e4567", "010", "0x1F", "1_000", "2024-01-01"),
    *("no", "yes", "off", "on", "~", "null", "Null", "NULL"),
    *(".inf", "-.inf", ".nan", "NaN", "true", "True", "TRUE", "="),
    *("<<", "!", "&&", "{}", "[]", "{text}", "{text", "{label}"),
    *("{}.", "%", "|", ">", "@", "`", "lora", "random:Random"),
    *("os:system", "a.b:C", "domainclip.cli.app:main", "..", "../..", "/etc/passwd", "/dev/zero", "~/x"),
    *("~nobody/x", "C:\\x", "\\\\host\\share", "hf://a/b", "https://x:99999/", "file:///etc", '""', "''"),
    *('"a', "'a", "#", "-", "?", ":", ","),
]
_SPECIAL = (
    "\0",
    "\x1b[31mred",
    "\u2028",
    "\ufeff",
    "é",
    "\u0301",
    "\ud7ff",
    "a\nb",
    "\r",
    "\t",
    " ",
    "x" * 5000,
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([2**31, 2**63, -(2**63), 10**30, 10**400, 1e308, 5e-324, -0.0, 1e-9]),
    st.floats(),
    st.sampled_from(_WORDS),
    st.sampled_from(_SPECIAL),
    st.text(max_size=8),
)
# What many keys accept, so that not every change is refused at once.
_USUAL: list[Any] = [
    *(
        0,
        1,
        2,
        16,
        0.1,
        0.5,
        1.0,
        True,
        False,
        None,
        "",
        "text",
        "a {}",
        "{text}",
        "12e4567",
        "1e5",
        "0x1F",
        "12:30:45",
    ),
    *(
        "no",
        "2024-01-01",
        "= x",
        "é",
        "\u2028",
        ["a {}"],
        ["text", "label"],
        [0.5, 1],
        {"a": "b"},
        {"a": ["b"]},
        {},
        [],
    ),
]
VALUES = st.sampled_from(_USUAL) | st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def _paths(model: type[BaseModel], depth: int = 3) -> list[tuple[str, ...]]:
    """Every key of a model and of the models in it."""
    found: list[tuple[str, ...]] = []
    for name, about in model.model_fields.items():
        found.append((name,))
        for inner in (about.annotation, *typing.get_args(about.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel) and depth:
                found += [(name, *rest) for rest in _paths(inner, depth - 1)]
    return found


def _component_paths() -> list[tuple[str, ...]]:
    found = []
    for key, kind in (
        ("strategy", "strategies"),
        ("objectives", "objectives"),
        ("curation", "curation"),
        ("probes", "probes"),
    ):
        for name in registry.names(kind):
            found.append((key, name))
            found += [(key, name, option) for option in registry.schema(kind, name).get("properties", {})]
    return found


CARD_PATHS = _paths(Card)
RECIPE_PATHS = [*_paths(Recipe), *_component_paths(), *(("corpus", *path) for path in CARD_PATHS)]
RECIPE_PATHS += [("retention", *path) for path in CARD_PATHS[::5]]
_READER_OPTIONS = [
    ("options", option)
    for name in registry.names("readers")
    for option in registry.schema("readers", name).get("properties", {})
]
_FRONT_PATHS = [("domainclip", *path) for path in (*CARD_PATHS, *_READER_OPTIONS)]
_FRONT_PATHS += [("license",), ("language",), ("pretty_name",), ("domainclip",), ("tags",)]


def _set(data: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy with the value at the path."""
    if not path:
        return value
    inside = data if isinstance(data, dict) else {}
    return {**inside, path[0]: _set(inside.get(path[0]), path[1:], value)}


@st.composite
def _changed(draw: st.DrawFn, valid: dict[str, Any], paths: list[tuple[str, ...]]) -> dict[str, Any]:
    data = valid
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        path = draw(st.sampled_from(paths))
        if draw(st.integers(0, 9)) == 0:  # a key that is misspelt, or too deep
            path = (
                *path[:-1],
                draw(st.sampled_from([path[-1] + "s", path[-1][1:], path[-1].upper(), "", "path"])),
            )
        data = _set(data, path, draw(VALUES))
    return data


_PIECES = """
    ?|? {a: 1}\n|? [a]\n|&a |*a|<<: |!!python/object/apply:os.system |!!binary |!x |---\n|...\n|%YAML 9\n|{|}|[|]|,|: |:|
    - |-|\t|\n|\r|\n\n|\x20\x20|#|"|'|\\\\|\\x|\\ud800||>|@|`|\0|\ufeff|\u2028|\x85|\x7f|12:30:45|{a: 1}: 1\n|null|~|
    """.replace("\n    ", "").split("|")
PIECES = st.sampled_from(
    [piece.replace("\\n", "\n") for piece in _PIECES if piece] + ["[" * 400, "{a: " * 400, "a" * 2000]
)


@st.composite
def edited(draw: st.DrawFn, text: str, pieces: st.SearchStrategy[str] = PIECES) -> bytes:
    """The text with pieces put in, cut out or doubled, in UTF-8 or another encoding."""
    for _ in range(draw(st.sampled_from([1, 1, 2, 4]))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 0, 1, 2, 5, 20, 100])))
        text = text[:start] + draw(pieces) + text[end:]
    encoding = draw(st.sampled_from(["utf-8"] * 8 + ["utf-8-sig", "utf-16", "latin-1"]))
    data = text.encode(encoding, "replace")
    return data.replace(b"e", b"\xff", 1) if draw(st.integers(0, 30)) == 0 else data


def dump(data: Any) -> str:
    """YAML in the flow style of half of the world, or in blocks."""
    return yaml.safe_dump(data, allow_unicode=True, sort_keys=False)


def _front(data: Any) -> str:
    return f"---\n{dump(data)}---\n\n# Squares\n"


def _surely_text(text: str) -> bytes:
    return text.encode("utf-8", "replace")


RECIPES = _changed(RECIPE, RECIPE_PATHS).map(dump).map(_surely_text) | edited(dump(RECIPE))
CARDS = _changed(CARD, _FRONT_PATHS).map(_front).map(_surely_text) | edited(_front(CARD))


@st.composite
def _override(draw: st.DrawFn) -> str:
    path = draw(st.sampled_from(RECIPE_PATHS))
    key = ".".join(
        (
            *path,
            *draw(
                st.lists(st.sampled_from(["a", "0", "", "path", "options"]), max_size=1)
                if draw(st.integers(0, 3)) == 0
                else st.just([])
            ),
        )
    )
    if draw(st.integers(0, 12)) == 0:
        key = draw(st.text(max_size=6)) + key
    value = draw(
        st.sampled_from(_USUAL).map(str)
        | st.sampled_from(_WORDS)
        | SCALARS.map(str)
        | PIECES
        | VALUES.map(lambda v: dump(v).strip())
    )
    return key + draw(st.sampled_from(["="] * 9 + ["", "==", " = "])) + value


OVERRIDES = st.lists(_override(), min_size=1, max_size=2)
