from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import (
    roc_auc_score,
)

from domainclip.data.cards import Prompts
from domainclip.errors import RecipeError
from domainclip.evaluation.metrics.prompt_presets import zero_shot_task
from domainclip.evaluation.probes.zero_shot import ZeroShot
from tests.evaluation.probes.array_encoder import CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import metric_of, metric_value
from tests.evaluation.probes.zero_shot_sets import CHEXPERT, CLASSES, RawEncoder, animals, chest


@pytest.mark.parametrize(
    "prompt",
    [
        "no No Finding",
        "not without effusion",
        "NO  not fluid",
        "no No_Finding",
        "an x-ray without no-finding",
        "no evidence of no finding",
        "without any clear signs of No_Finding",
        "no radiographic evidence for a no-finding",
        "absence of no finding",
    ],
)
def test_a_double_negation_is_refused(prompt: str) -> None:
    classes = {"normal": {"positive": ["clear"], "negative": [prompt]}, "sick": ["ill"]}
    with pytest.raises(RecipeError) as error:
        ZeroShot()(CollapsedEncoder(), evaluation_set(animals(), classes))
    assert (
        str(error.value)
        == f'classes.normal: prompt "{prompt}" negates twice: write this class\'s prompts out'
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "No Finding",
        "effusion: no. No fluid",
        "nonotone",
        "no knot",
        "no note",
        "no fluid and no air",
        "no fluid - no air",
        "no sign of air without fluid",
    ],
)
def test_a_single_negation_is_not(prompt: str) -> None:
    classes = {"cat": ["clear"], "dog": [prompt]}
    measured = ZeroShot()(CollapsedEncoder(), evaluation_set(animals(), classes))
    assert measured.primary == "accuracy"  # of few items
    assert measured.metrics


def test_chexzero_is_the_softmax_of_two_cosines_over_five_labels() -> None:
    model, data, truth, unit = chest()
    results = ZeroShot(preset="cxr.chexzero")(model, data)
    assert results.primary == "macro_auroc"
    assert results.details["averaged_over"] == CHEXPERT
    task = np.exp(unit[:, :6]) / (np.exp(unit[:, :6]) + np.exp(unit[:, 6:]))
    assert metric_of(results, "auroc/Edema").scores == pytest.approx(task[:, 3], abs=1e-6)
    each = [roc_auc_score(truth[:, i], task[:, i]) for i in range(6)]
    assert metric_value(results, "macro_auroc") == pytest.approx(np.mean(each[:5]))
    assert metric_value(results, "auroc/Fracture") == pytest.approx(each[5])
    assert results.details["prompts"]["Edema"] == {"positive": ["Edema"], "negative": ["no Edema"]}


def test_the_normal_class_is_the_absence_of_the_others() -> None:
    """ "no No Finding" gave CheXzero an AUROC of 0.07 for it."""
    model, data, truth, unit = chest()
    results = ZeroShot(preset="cxr.chexzero")(model, data)
    assert results.details["scored_as_absence_of_the_others"] == "No Finding"
    absence = -(unit[:, :6] - unit[:, 6:]).max(axis=1)
    expected = roc_auc_score(truth.sum(axis=1) == 0, absence)
    assert metric_value(results, "auroc/No Finding") == pytest.approx(expected)
    assert expected > 0.6
    classes = {**data.classes, "No Finding": Prompts(positive=["clear"], negative=["abnormal"])}
    model.text_vectors = {**model.text_vectors, "clear": [1.0] * 12, "abnormal": [-1.0] * 12}
    pair = ZeroShot(preset="cxr.chexzero")(model, replace(data, classes=classes))
    assert "scored_as_absence_of_the_others" not in pair.details
    assert metric_value(pair, "auroc/No Finding") == pytest.approx(
        roc_auc_score(truth.sum(axis=1) == 0, np.round(unit.sum(axis=1), 6))
    )


def test_biovil_has_four_positive_and_four_negative_prompts_for_pneumonia() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"id": f"{i:02d}", "labels": [["Viral pneumonia"], ["Normal"], ["Pneumonia"]][i % 3]}
        for i in range(30)
    ]
    classes = {"Viral pneumonia": ["v"], "Normal": ["n"], "Pneumonia": ["p"]}
    images = {str(row["id"]): rng.normal(size=4).tolist() for row in rows}

    class Sentences(RawEncoder):
        def raw_texts(self, texts: Sequence[str]) -> np.ndarray:
            lengths = np.arange(1, 1 + len(texts))[:, None]
            return np.stack([np.random.default_rng(len(text)).normal(size=4) for text in texts]) * lengths

        def texts(self, texts: Sequence[str]) -> np.ndarray:
            raw = self.raw_texts(texts)
            unit: np.ndarray = raw / np.linalg.norm(raw, axis=1, keepdims=True)
            return unit

    model = Sentences(images, {})
    results = ZeroShot(preset="cxr.biovil")(model, evaluation_set(rows, classes))
    prompts = results.details["prompts"]["pneumonia"]
    assert (len(prompts["positive"]), len(prompts["negative"])) == (4, 4)
    assert prompts["negative"][0] == "There is no pneumonia"
    assert results.details["labels_that_count"] == {"pneumonia": ["Viral pneumonia", "Pneumonia"]}
    sides = [model.raw_texts(prompts[side]).mean(axis=0) for side in ("positive", "negative")]
    unit = np.asarray(list(images.values()))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    margin = unit @ (sides[0] / np.linalg.norm(sides[0]) - sides[1] / np.linalg.norm(sides[1]))
    truth = np.array([i % 3 != 1 for i in range(30)])
    assert metric_value(results, "auroc/pneumonia") == pytest.approx(roc_auc_score(truth, margin))
    alone = [
        roc_auc_score(truth, unit @ (one - other))
        for one, other in zip(*(model.texts(prompts[side]) for side in ("positive", "negative")), strict=True)
    ]
    assert metric_value(results, "auroc_over_templates/lowest") == pytest.approx(min(alone))
    assert metric_value(results, "auroc_over_templates/highest") == pytest.approx(max(alone))
    elsewhere = ZeroShot(preset="cxr.biovil")(model, evaluation_set(animals(), CLASSES))
    assert elsewhere.details["not_measured"] == "there are no classes"


@pytest.mark.parametrize(
    "normal",
    [
        "No_Finding",
        "no-finding",
        "NO FINDINGS",
        "no_abnormality",
        "Normal chest",
        "normal_chest_x-ray",
        "Healthy_lungs",
    ],
)
def test_names_with_joined_words_are_equal_to_spaced_ones(normal: str) -> None:
    model, data, _, _ = chest()
    expected = ZeroShot(preset="cxr.chexzero")(model, data)
    names = {"Pleural Effusion": "Pleural_Effusion", "No Finding": normal}
    spelled = [[names.get(name, name) for name in labels] for labels in data.items["labels"]]
    items = data.items.remove_columns("labels").add_column("labels", spelled)
    classes = {names.get(name, name): prompts for name, prompts in data.classes.items()}
    model.text_vectors = {**model.text_vectors, normal.replace("_", " "): [1.0] * 12}
    results = ZeroShot(preset="cxr.chexzero")(model, replace(data, items=items, classes=classes))
    assert results.details["averaged_over"] == [names.get(name, name) for name in CHEXPERT]
    assert results.details["scored_as_absence_of_the_others"] == normal
    task = {"positive": ["Pleural Effusion"], "negative": ["no Pleural Effusion"]}
    assert results.details["prompts"]["Pleural_Effusion"] == task
    assert metric_value(results, "macro_auroc") == metric_value(expected, "macro_auroc")
    assert metric_value(results, f"auroc/{normal}") == metric_value(expected, "auroc/No Finding")


def test_an_illness_called_normal_is_not_the_normal_class() -> None:
    name = "normal pressure hydrocephalus"
    task = zero_shot_task("cxr.chexzero", evaluation_set(animals(), {name: ["a"], "other": ["b"]}))
    assert task.classes[name].negative == [f"no {name}"]
    assert task.normal_class is None
