"""Values of overrides as a shell delivers them, which has taken the quotes away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from domainclip.config import builtin, loading
from domainclip.config.overrides import apply_override, as_mapping, parse_value
from domainclip.data.cards import load_card
from domainclip.errors import RecipeError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        (" ", " "),
        ("\t", "\t"),
        ("null", None),
        ("~", None),
        ("1e-4", 1e-4),
        (" 3 ", 3),
        ("007", "007"),
        ("true", True),
        ("no", "no"),
        ('"3"', "3"),
        ("'true'", "true"),
        ('""', ""),
        ("/data/cxr", "/data/cxr"),
        ("~/data", "~/data"),
        ("*star", "*star"),
        ("&star", "&star"),
        ("!important", "!important"),
        ("trial #2", "trial #2"),
        ("Fig. 3: a dog", "Fig. 3: a dog"),
        ("a: {text}", "a: {text}"),
        ("- a", "- a"),
        ("-", "-"),
        ("?", "?"),
        ("|", "|"),
        (";", ";"),
        ("{text}", "{text}"),
        ("{main finding}", "{main finding}"),
        ("{style} painting, {text}", "{style} painting, {text}"),
        ("{label}: {text}", "{label}: {text}"),
        ("a photo of a {}", "a photo of a {}"),
        ("{}", {}),
        ("[]", []),
        ("[1, 2]", [1, 2]),
        ("[a, b]", ["a", "b"]),
        ("[{}]", ["{}"]),
        ("[{}, a {}]", ["{}", "a {}"]),
        ("[{text}]", ["{text}"]),
        ("[a photo of a {}, a scan of {}]", ["a photo of a {}", "a scan of {}"]),
        ('["a, {}", b]', ["a, {}", "b"]),
        ("{lora: {rank: 2}}", {"lora": {"rank": 2}}),
        ("{a: null}", {"a": None}),
        ("{a, b}", {"a": None, "b": None}),
        ("[1", "[1"),
        ("{a: 1", "{a: 1"),
        ("'a' and 'b'", "'a' and 'b'"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_values(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize(
    ("value", "mapping"),
    [
        ("lora", {"lora": {}}),
        ("{lora}", {"lora": {}}),
        ("", {}),
        (["a"], {"a": {}}),
        ({"a": None}, {"a": {}}),
    ],
)
def test_short_forms_of_components(value: Any, mapping: Any) -> None:
    assert as_mapping(value) == mapping


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(RecipeError, match="not UTF-8 text"):
        apply_override({}, "corpus.path=/data/\udcff")


def test_nothing_means_none() -> None:
    keys = ["corpus.card=", "train.validate_every=", "weight_interpolation=", "curation=", "retention="]
    recipe = loading.load_recipe("quickstart", keys)
    assert (recipe.train.validate_every, recipe.weight_interpolation, recipe.retention) == (None, None, None)
    columns = ["split=", "texts=", "meta=", "labels=", "group="]
    recipe = loading.load_recipe("quickstart", [f"corpus.columns.{text}" for text in columns])
    card = load_card(None, {"columns": recipe.corpus.overrides()["columns"], "captions": {"template": ""}})
    assert card.columns.model_dump(include={"split", "texts", "meta", "labels", "group"}) == {
        "split": "",
        "texts": [],
        "meta": [],
        "labels": "",
        "group": "",
    }
    assert card.captions.template is None


def test_a_text_for_a_list_of_one() -> None:
    card = load_card(None, {"templates": "a photo of a {}", "columns": {"meta": "age", "texts": "caption"}})
    assert (card.templates, card.columns.meta, card.columns.texts) == (
        ["a photo of a {}"],
        ["age"],
        ["caption"],
    )


def test_through_a_shell(tmp_path: Path) -> None:
    """The words of messages and cards, as a shell splits and unquotes them."""
    script = "import sys; from domainclip.config.overrides import apply_override; d = {}\n"
    script += "for word in sys.argv[1:]: apply_override(d, word)\nprint(d)"
    line = 'a="{text}" b="" c={text} d= e="a {}" f=["a {}","b {}"] g={} h="[a {}, b {}]" i="x #1" j="a b: c"'
    command = f"'{sys.executable}' -c '{script}' {line}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "{'a': '{text}', 'b': '', 'c': '{text}', 'd': '', 'e': 'a {}', 'f': ['a {}', 'b {}'], 'g': {}, "
        "'h': ['a {}', 'b {}'], 'i': 'x #1', 'j': 'a b: c'}\n"
    )


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            "recipes",
            "dicom_studies",
            'recipes: "dicom_studies" is a data card: use it with --card dicom_studies, or as corpus.card=dicom_studies',
        ),
        (
            "data_cards",
            "dicom_series",
            'data_cards: "dicom_series" is a recipe: use it with --recipe dicom_series',
        ),
        ("recipes", "core", 'recipes: "core" is a suite: use it with domainclip eval --suite core'),
        (
            "suites",
            "dicom_series.yaml",
            'suites: "dicom_series.yaml" is a recipe: use it with --recipe dicom_series',
        ),
        (
            "data_cards",
            "dicom_serie",
            'data_cards: no file or built-in name "dicom_serie": did you mean "dicom_studies"?',
        ),
    ],
)
def test_a_built_in_name_of_another_kind(kind: str, name: str, message: str) -> None:
    suffix = ".md" if kind == "data_cards" else ".yaml"
    with pytest.raises(RecipeError) as caught:
        builtin.find_file(kind, name, suffix)
    assert str(caught.value) == message
