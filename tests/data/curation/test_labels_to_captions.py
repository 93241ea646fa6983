"""Labels as captions: added, never twice, and only to what is trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import Dataset

from domainclip import registry
from domainclip.config import loading
from domainclip.data.curation.labels_to_captions import LabelsToCaptions
from domainclip.data.schema import features
from domainclip.errors import RecipeError
from domainclip.pipelines import inputs


def _items(rows: list[tuple[list[str], list[str]]]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "id": str(i),
                "image": {"path": "x.png", "bytes": None},
                "views": [],
                "texts": texts,
                "language": ["en"] * len(texts),
                "labels": labels,
                "group": str(i),
                "truth": str(i),
                "meta": json.dumps({}),
            }
            for i, (texts, labels) in enumerate(rows)
        ],
        features=features(),
    )


def test_captions_are_added_by_hand() -> None:
    before = _items(
        [(["the fan, by a painter"], ["Rococo"]), (["a Cubism painting"], ["Cubism"]), (["no class"], [])]
    )
    after = LabelsToCaptions(templates=["a {} painting", "{}"])(before)
    assert after["texts"][:] == [
        ["the fan, by a painter", "a Rococo painting", "Rococo"],
        ["a Cubism painting", "Cubism"],  # what stands there already is not added again
        ["no class"],
    ]
    assert after["language"][:] == [["en", "", ""], ["en", ""], ["en"]]
    assert after["id"][:] == before["id"][:]
    assert after.features == before.features


def test_several_labels_are_several_captions() -> None:
    after = LabelsToCaptions(templates=["x-ray with {}"])(_items([([], ["edema", "effusion"])]))
    assert after["texts"][:] == [["x-ray with edema", "x-ray with effusion"]]


def test_only_training_items_change(recipe_file: Path) -> None:
    read = loading.load_recipe(str(recipe_file), ['curation={labels_to_captions: {templates: ["{} thing"]}}'])
    ready = inputs.load_inputs(read, "train")
    assert all(f"{row['labels'][0]} thing" in row["texts"] for row in ready.corpus.splits["train"])
    assert not any("thing" in text for row in ready.corpus.splits["test"] for text in row["texts"])


def test_a_template_without_a_place() -> None:
    with pytest.raises(RecipeError) as caught:
        registry.build(
            "curation", "labels_to_captions", {"templates": ["a painting"]}, "curation.labels_to_captions"
        )
    assert str(caught.value) == (
        'curation.labels_to_captions.templates: "a painting" must hold {} once, for the class'
    )


def test_the_most_similar_captions_are_taken() -> None:
    """Two labels, three templates, one picture near "b x" and "c y": one caption a label, by hand."""
    from tests.data.curation.curation_inputs import TableEncoder, items

    said = {f"{t} {label}": [t == "b", t == "c", label == "y", 0.1] for t in "abc" for label in "xy"}
    before = items([["old"], ["no label"]], [["x", "y"], []])
    base = TableEncoder(
        [[3, 0, 0, 0], [0, 0, 0, 1]], {text: [float(v) for v in row] for text, row in said.items()}
    )  # type: ignore[arg-type, misc]
    part = LabelsToCaptions(templates=["a {}", "b {}", "c {}"], most_similar=1)
    assert part.needs == {"base"}
    assert part(before, base)["texts"][:] == [["old", "b x", "b y"], ["no label"]]
    two = LabelsToCaptions(templates=["a {}", "b {}", "c {}"], most_similar=2)(before, base)
    assert two["texts"][0][:3] == ["old", "b x", "a x"]  # of equally near ones the first
    assert LabelsToCaptions(templates=["a {}"]).needs == frozenset()
