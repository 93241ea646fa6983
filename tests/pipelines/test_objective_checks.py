"""Checks of objectives: a loss other than that of the base, citations, and teachers that do not exist."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domainclip import components
from domainclip.config import loading
from domainclip.data.corpus import Corpus, load_corpus
from domainclip.errors import DataError, ModelError
from domainclip.pipelines.input_checks import check_negatives
from domainclip.pipelines.inputs import load_inputs
from domainclip.report.citations import sources
from tests.data.made_corpora import card, table
from tests.support.tiny_models import tiny_siglip

CONTRASTIVE_VARIANTS: list[tuple[str, dict[str, Any]]] = [
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


@pytest.mark.parametrize("named", CONTRASTIVE_VARIANTS)
def test_a_variant_of_contrastive_replaces_it(named: tuple[str, dict[str, Any]]) -> None:
    assert _terms(named).losses_replaced == {named[0]: "contrastive"}


def test_an_additional_objective_replaces_no_loss() -> None:
    additional = ["anchor", "align_uniform", "rank_consistency", "three_towers", "two_views", "paraphrases"]
    inner = ("matryoshka", {"widths": [4], "objective": {"anchor": {}}})
    assert _terms(*((name, {}) for name in additional), inner, ("sigmoid", {})).losses_replaced == {
        "sigmoid": "sigmoid"
    }


@pytest.mark.parametrize(
    ("objectives", "named"),
    [
        ("{hard_negatives: {}}", "hard_negatives"),
        ("{matryoshka: {widths: [4]}, anchor: {}}", "matryoshka"),
        ("{hard_negatives: {}, sigmoid: {}}", ""),
        ("{anchor: {}}", ""),
    ],
)
def test_a_sigmoid_base_under_another_loss(
    recipe_file: Path, tmp_path: Path, objectives: str, named: str
) -> None:
    base = tiny_siglip(tmp_path / "siglip")
    inputs = load_inputs(
        loading.load_recipe(str(recipe_file), [f"base={base}", f"objectives={objectives}"]), "train"
    )
    warnings = [line for line in inputs.warnings if line.startswith("objectives")]
    expected = (
        f"objectives: {named}, but family siglip was trained with sigmoid: its scale and bias may not fit"
    )
    assert warnings == ([expected] if named else [])


def test_citations_include_objectives_inside_another_objective(recipe_file: Path) -> None:
    inner = "objectives={contrastive: {}, matryoshka: {widths: [4], objective: {hard_negatives: {}}}}"
    recipe = loading.load_recipe(str(recipe_file), [inner, "probes=[retrieval]"])
    citations = sources(recipe, components.build_components(recipe))
    assert [line for line in citations if line.startswith("objective")] == [
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
def test_a_missing_teacher_is_reported_before_anything_is_measured(
    recipe_file: Path, tmp_path: Path, objectives: str, key: str
) -> None:
    for name, fault in (
        ("nowhere", "no such folder, and not a name that the Hub could have"),
        (".", "no model in the folder, such as config.json"),
    ):
        teacher = str((tmp_path / name).resolve())
        changes = [f"objectives={objectives.replace('TEACHER', teacher)}"]
        with pytest.raises(ModelError) as error:
            load_inputs(loading.load_recipe(str(recipe_file), changes), "train")
        assert str(error.value) == f'{key}: "{teacher}": {fault}'


def _one_class(folder: Path, **changed: str) -> Corpus:
    rows = [
        {"file_name": f"{i}.png", "text": f"thing {i}", "group": f"g{i}", "label": "cat", "split": "train"}
        | changed
        for i in range(4)
    ]
    return load_corpus(card(), str(table(folder, rows)))


@pytest.mark.parametrize(
    ("changed", "named", "reason"),
    [
        ({"text": "a film"}, ("contrastive", {}), "all 4 training pairs have the same captions"),
        ({"group": "g"}, ("contrastive", {"targets": "soft"}), "all 4 training pairs are of one group"),
        ({"group": "g"}, ("sigmoid", {}), "all 4 training pairs are of one group"),
        ({}, ("contrastive", {"targets": "labels"}), "all 4 training pairs have the same labels"),
        ({}, ("sigmoid", {"targets": "labels"}), "all 4 training pairs have the same labels"),
        *(({"text": "a film"}, named, "all 4 training pairs have the same captions") for named in CONTRASTIVE_VARIANTS
          if named[0] != "negative_captions"),
        ({"group": "g"}, ("token_alignment", {"mode": "filip"}), "all 4 training pairs are of one group"),
        ({"group": "g"}, ("rank_consistency", {}), "all 4 training pairs are of one group"),
    ],
)  # fmt: skip
def test_a_corpus_with_nothing_to_contrast_is_refused(
    tmp_path: Path, changed: dict[str, str], named: tuple[str, dict[str, Any]], reason: str
) -> None:
    with pytest.raises(DataError) as error:
        check_negatives(_terms(named), _one_class(tmp_path, **changed))
    assert str(error.value).startswith(f"objectives.{named[0]}: {reason}, so no pair has a negative")


def test_objectives_that_compare_no_pairs_need_no_negatives(tmp_path: Path) -> None:
    corpus = _one_class(tmp_path, group="g", text="a film")
    terms = _terms(("negative_captions", {}), ("anchor", {}), ("token_alignment", {}))
    assert terms.negatives == {}
    assert check_negatives(terms, corpus) == []
    assert check_negatives(_terms(("contrastive", {})), _one_class(tmp_path / "labels")) == []


def test_the_sample_of_a_stream_warns_and_a_whole_stream_is_refused(tmp_path: Path) -> None:
    class Stream(list[int]):
        """Of so many pairs."""

    corpus = replace(_one_class(tmp_path, text="a film"), stream=Stream(range(9)))  # type: ignore[arg-type]
    (warning,) = check_negatives(_terms(("contrastive", {})), corpus)
    assert warning.startswith(
        "objectives.contrastive: in a sample of 4 of 9 pairs, all 4 training pairs have the same captions"
    )
    with pytest.raises(DataError, match="no pair has a negative"):
        check_negatives(_terms(("contrastive", {})), replace(corpus, stream=Stream(range(4))))  # type: ignore[arg-type]


def test_a_run_without_negatives_is_refused_before_anything_is_measured(recipe_file: Path) -> None:
    changes = ["corpus.columns.group=split"]
    with pytest.raises(DataError, match="so no pair has a negative and nothing can be learned"):
        load_inputs(loading.load_recipe(str(recipe_file), changes), "train")
    load_inputs(loading.load_recipe(str(recipe_file), changes), "evaluate")
