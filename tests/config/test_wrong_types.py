"""Every key of a recipe, a card, a plan and a component, with a value of another type than it takes.

A value is accepted or refused in one line; nothing else may happen.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from domainclip import components, registry
from domainclip.config import loading
from domainclip.config.overrides import apply_override, parse_value
from domainclip.config.recipe import Recipe
from domainclip.data.cards import Card, load_card
from domainclip.errors import RecipeError, one_line
from domainclip.evaluation import suites
from domainclip.pipelines.ablation import plan

VALUES = {
    "list": "[mit]",
    "nested list": "[[1, [2]], {a: [b]}]",
    "list of null": "[null]",
    "list of mapping": "[{a: null}]",
    "empty list": "[]",
    "mapping": "{a: 1}",
    "nested mapping": "{a: {b: {c: [1]}}}",
    "mapping of null": "{a: null}",
    "number as a key": "{1: 2}",
    "number": "3",
    "fraction": "0.5",
    "infinite": "1e999",
    "not a number": "nan",
    "400 digits": "9" * 400,
    "5000 digits": "9" * 5000,
    "truth": "true",
    "null": "null",
    "date": "2024-01-01",
    "time": "12:30:45",
    "empty": '""',
    "long": "x" * 3000,
    "braces": '"{0.__class__} {"',
    "controls": '"\\x1b[31m\\n\\u202e"',
    "path up": "../../x",
}
REFUSED = {
    "mapping as a key": "{? {a: 1} : b}",
    "list as a key": "{? [a] : b}",
    "empty key": "{'': b}",
    "key twice": "{a: 1, a: 2}",
    "alias": "&a [*a]",
    "tag": "!!python/name:os.system",
    "NUL": '"a\\0b"',
    "half a pair": '"\\ud800"',
    "deep": "[" * 60 + "]" * 60,
    "very deep": "[" * 300,
}


def keys(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of a model and of the models in it, as paths."""
    for name, field in model.model_fields.items():
        yield (*at, name)
        for part in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from keys(part, (*at, name))


def nested(path: tuple[str, ...], value: str) -> str:
    """`a: {b: value}` for the path (a, b)."""
    text = f"{path[-1]}: {value}"
    for step in reversed(path[:-1]):
        text = f"{step}: {{{text}}}"
    return text


def check(run: Callable[[], object], where: str) -> bool:
    """Whether it is accepted; a refusal must be one line that can be read."""
    try:
        run()
    except RecipeError as error:
        message = one_line(str(error))
        assert "\n" not in message, where
        assert len(message) < 1500, f"{where}: {message}"
        return False
    return True


def read_recipe(text: str, file: Path) -> None:
    file.write_text(text, encoding="utf-8")
    recipe = loading.load_recipe(str(file))
    components.build_components(recipe)
    load_card(recipe.corpus.card, recipe.corpus.overrides())


def read_card(text: str, file: Path) -> None:
    file.write_text(text, encoding="utf-8")
    card = load_card(str(file))
    registry.build("readers", card.reader, card.options, "corpus.options")


RECIPE = {"base": "base: {path: a/b}", "corpus": "corpus: {path: x.csv}", "strategy": "strategy: full"}


@pytest.mark.parametrize("kind", VALUES)
def test_keys_of_a_recipe(kind: str, tmp_path: Path) -> None:
    for path in keys(Recipe):
        others = [line for key, line in RECIPE.items() if key != path[0]]
        text = "\n".join([*others, nested(path, VALUES[kind])])
        check(lambda text=text: read_recipe(text, tmp_path / "r.yaml"), f"{path} {kind}")


@pytest.mark.parametrize("kind", VALUES)
def test_keys_of_a_card(kind: str, tmp_path: Path) -> None:
    for path in keys(Card):
        front = nested(("domainclip", *path), VALUES[kind])
        check(lambda front=front: read_card(f"---\n{front}\n---\n", tmp_path / "c.md"), f"{path} {kind}")
    for key in ("license", "language", "pretty_name", "domainclip"):
        front = (
            f"domainclip: {{}}\n{key}: {VALUES[kind]}" if key != "domainclip" else f"{key}: {VALUES[kind]}"
        )
        check(lambda front=front: read_card(f"---\n{front}\n---\n", tmp_path / "c.md"), f"{key} {kind}")


@pytest.mark.parametrize("kind", VALUES)
def test_options_of_components(kind: str) -> None:
    value = parse_value(VALUES[kind])
    for group in registry.KINDS:
        for name in registry.names(group):
            for field in dataclasses.fields(registry.find(group, name)):
                where = f"{group} {name}.{field.name} {kind}"
                if field.init:
                    check(lambda o={field.name: value}, g=group, n=name: registry.build(g, n, o, n), where)


@pytest.mark.parametrize("kind", VALUES)
def test_keys_of_plans_suites_and_classes(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"

    def read(text: str, reader: Callable[[str], object]) -> None:
        file.write_text(text, encoding="utf-8")
        check(lambda: reader(str(file)), f"{reader} {text[:40]}")

    for path in keys(plan.Plan):
        others = {"recipe": "quickstart", "variants": "{a: []}", "seeds": "[0]"}
        text = "\n".join(f"{key}: {value}" for key, value in others.items() if key != path[0])
        read(f"{text}\n{nested(path, VALUES[kind])}", lambda name: plan.load(name, [], tmp_path))
    read(f"recipe: quickstart\nvariants: {{a: {VALUES[kind]}}}", lambda name: plan.load(name, [], tmp_path))
    for path in keys(suites.Suite):
        others = "" if path[0] == "probes" else "probes: [retrieval]\n"
        read(others + nested(path, VALUES[kind]), suites.load)
    read(f"sets: {{a: {VALUES[kind]}}}\nprobes: [retrieval]", suites.load)
    read(VALUES[kind], suites.parse_classes)
    read(f"a: {VALUES[kind]}", suites.parse_classes)


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_key_takes(kind: str, tmp_path: Path) -> None:
    value = REFUSED[kind]
    recipe = "\n".join([*RECIPE.values(), f"name: {value}"])
    assert not check(lambda: read_recipe(recipe, tmp_path / "r.yaml"), kind)
    assert not check(lambda: read_card(f"---\ndomainclip: {value}\n---\n", tmp_path / "c.md"), kind)
    (tmp_path / "f.yaml").write_text(value)
    for reader in (suites.load, suites.parse_classes, lambda name: plan.load(name, [], None)):
        assert not check(lambda reader=reader: reader(str(tmp_path / "f.yaml")), kind)


@pytest.mark.parametrize("kind", sorted({*VALUES, *REFUSED} - {"very deep"}))
def test_overrides_of_every_key(kind: str) -> None:
    text = {**VALUES, **REFUSED}[kind]
    for path in keys(Recipe):
        data: dict[str, Any] = {}
        check(lambda path=path, data=data: apply_override(data, f"{'.'.join(path)}={text}"), f"{path} {kind}")
    for key in ("", ".", "a.", ".a", "a..b", "a b", "a\n"):
        assert not check(lambda key=key: apply_override({}, f"{key}={text}"), repr(key))


FILES = {
    "empty": b"",
    "bytes": b"\x89PNG\r\n\x1a\n\x00\x00",
    "latin-1": "name: caf\xe9".encode("latin-1"),
    "UTF-16": "name: a".encode("utf-16"),
    "NUL": b"name: a\0b",
    "a list": b"- a\n- b",
    "a word": b"word",
    "two documents": b"a: 1\n---\nb: 2",
    "tabs": b"a:\n\tb: 1",
    "5 MB": b"a: " + b"x" * 5_000_000,
    "no front matter": b"# Title\n",
    "open front matter": b"---\ndomainclip: {}\n",
    "number": b"---\n3\n---\n",
    "no mapping": b"---\ndomainclip: [a]\n---\n",
}
READERS: dict[str, Callable[[str], object]] = {
    "recipe": loading.load_recipe,
    "card": load_card,
    "plan": lambda name: plan.load(name, [], None),
    "suite": suites.load,
}


@pytest.mark.parametrize("reader", READERS)
def test_files_that_are_none(reader: str, tmp_path: Path) -> None:
    file = tmp_path / "file.yaml"
    for kind, content in FILES.items():
        file.write_bytes(content)
        assert not check(lambda: READERS[reader](str(file)), kind)
    for name in (tmp_path, tmp_path / "none", "x" * 5000, "a\0b", "", "\ud800", file / "x", "/dev/null"):
        assert not check(lambda name=name: READERS[reader](str(name)), repr(name)) or name == ""


@pytest.mark.skipif(os.name == "nt", reason="no pipes there")
def test_a_recipe_from_a_pipe(tmp_path: Path) -> None:
    """`--recipe <(command)` of bash is the name of a pipe."""
    text = "\n".join(RECIPE.values())
    read, write = os.pipe()
    os.write(write, text.encode())
    os.close(write)
    assert loading.load_recipe(f"/dev/fd/{read}").base.path == "a/b"
    os.close(read)


def test_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    recipe = "\r\n".join(RECIPE.values())
    (tmp_path / "r.yaml").write_bytes(b"\xef\xbb\xbf" + recipe.encode())
    assert loading.load_recipe(str(tmp_path / "r.yaml")).base.path == "a/b"
    (tmp_path / "c.md").write_bytes(b"\xef\xbb\xbf---\r\nlicense: mit\r\ndomainclip: {}\r\n---\r\nText.\r\n")
    assert load_card(str(tmp_path / "c.md")).license == "mit"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("license: [mit]", "c.md: license: input should be a valid string, got ['mit']"),
        ("license: {a: 1}", "c.md: license: input should be a valid string, got {'a': 1}"),
        ("license: 3", 'c.md: license: input should be a valid string, got 3, in quotes it is a text: "3"'),
        ("language: 3", "c.md: language: input should be a valid list, got 3"),
    ],
)
def test_the_message_for_a_key_of_the_hub(key: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read_card(f"---\n{key}\ndomainclip: {{}}\n---\n", tmp_path / "c.md")
    assert str(caught.value) == message
