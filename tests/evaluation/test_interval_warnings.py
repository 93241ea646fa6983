"""A loss that the base was not born with is said, under whatever name a term trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domainclip import components
from domainclip.config import loading
from domainclip.errors import ModelError
from domainclip.pipelines.inputs import load_inputs
from domainclip.report.citations import sources
from tests.support.tiny_models import tiny_siglip

IN_ITS_PLACE: list[tuple[str, dict[str, Any]]] = [
    ("adaptive_temperature", {}),
    ("caption_rewrites", {}),
    ("relevance_weighted", {"column": "stars"}),
    ("hard_negatives", {}),
    ("matryoshka", {"widths": [4]}),
    ("matryoshka", {"widths": [4], "objective": {"hard_negatives": {}}}),
    ("negative_captions", {}),
    ("noise_robust", {}),
]


def _terms(*named: tuple[str, dict[str, Any]]) -> components.WeightedObjectives:
    return components.build_objectives(dict(named))


@pytest.mark.parametrize("named", IN_ITS_PLACE)
def test_what_trains_like_contrastive_says_so(named: tuple[str, dict[str, Any]]) -> None:
    assert _terms(named).losses_replaced == {named[0]: "contrastive"}


def test_what_stands_beside_a_loss_takes_the_place_of_none() -> None:
    beside = ["anchor", "align_uniform", "rank_consistency", "three_towers", "two_views", "paraphrases"]
    within = ("matryoshka", {"widths": [4], "objective": {"anchor": {}}})
    assert _terms(*((name, {}) for name in beside), within, ("sigmoid", {})).losses_replaced == {
        "sigmoid": "sigmoid"
    }


@pytest.mark.parametrize(
    ("objectives", "said"),
    [
        ("{hard_negatives: {}}", "hard_negatives"),
        ("{matryoshka: {widths: [4]}, anchor: {}}", "matryoshka"),
        ("{hard_negatives: {}, sigmoid: {}}", ""),
        ("{anchor: {}}", ""),
    ],
)
def test_a_sigmoid_base_under_another_loss(
    recipe_file: Path, tmp_path: Path, objectives: str, said: str
) -> None:
    base = tiny_siglip(tmp_path / "siglip")
    ready = load_inputs(
        loading.load_recipe(str(recipe_file), [f"base={base}", f"objectives={objectives}"]), "train"
    )
    found = [line for line in ready.warnings if line.startswith("objectives")]
    expected = (
        f"objectives: {said}, but family siglip was trained with sigmoid: its scale and bias may not fit"
    )
    assert found == ([expected] if said else [])


def test_the_sources_name_what_stands_inside_another_objective(recipe_file: Path) -> None:
    inner = "objectives={contrastive: {}, matryoshka: {widths: [4], objective: {hard_negatives: {}}}}"
    recipe = loading.load_recipe(str(recipe_file), [inner, "probes=[retrieval]"])
    found = [
        line for line in sources(recipe, components.build_components(recipe)) if line.startswith("objective")
    ]
    assert found == [
        "objective contrastive: arXiv:2103.00020",
        "objective matryoshka: arXiv:2205.13147",
        "objective matryoshka, of hard negatives: arXiv:2301.02280",
    ]


@pytest.mark.parametrize(
    ("objectives", "key"),
    [
        ("{contrastive: {}, distillation: {teachers: [TEACHER]}}", "objectives.distillation.teachers"),
        ("{contrastive: {}, three_towers: {third_tower: TEACHER}}", "objectives.three_towers.third_tower"),
        (
            "{matryoshka: {widths: [4], objective: {distillation: {teachers: [TEACHER]}}}}",
            "objectives.matryoshka.teachers",
        ),
    ],
)
def test_a_teacher_that_is_not_there_is_said_before_anything_is_measured(
    recipe_file: Path, tmp_path: Path, objectives: str, key: str
) -> None:
    for name, fault in (
        ("nowhere", "no such folder, and not a name that the Hub could have"),
        (".", "no model in the folder, such as config.json"),
    ):
        teacher = str((tmp_path / name).resolve())
        changes = [f"objectives={objectives.replace('TEACHER', teacher)}"]
        with pytest.raises(ModelError) as caught:
            load_inputs(loading.load_recipe(str(recipe_file), changes), "train")
        assert str(caught.value) == f'{key}: "{teacher}": {fault}'
