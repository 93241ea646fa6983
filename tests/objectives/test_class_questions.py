"""Class questions: the loss by hand and as binary cross-entropy, and which questions a pair is asked."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from math import exp, log

import pytest
import torch
from datasets import Dataset

from domainclip.data.batching.extras import ExtraColumns, ExtraSpec
from domainclip.data.cards import Prompts
from domainclip.errors import RecipeError
from domainclip.objectives.base import Views
from domainclip.objectives.class_questions import ClassQuestions
from tests.support.text_objectives import batch, shown

CLASSES = {
    "Effusion": Prompts(positive=["effusion"], negative=["clear"]),
    "Edema": Prompts(positive=["a film of edema"]),
    "No Finding": Prompts(positive=["no finding"]),
}


def _asked(
    *labels: str, objective: ClassQuestions | None = None, seed: int = 0, **meta: list[str]
) -> set[tuple[str, str]]:
    pair = replace(shown("a report", labels=labels, seed=seed, **meta), classes=CLASSES)
    texts = (objective or ClassQuestions()).extra_texts(pair)
    return set(zip(texts[::2], texts[1::2], strict=True))


def test_hand_worked() -> None:
    """Scale 2. The first image: right at cosine 0.6, wrong at 0; the second is asked nothing: half of the mean."""
    image = torch.eye(2, dtype=torch.float64)
    texts = torch.tensor([[[0.6, 0.8], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [False, False]])
    views = Views(image, image, torch.tensor(2.0), extra_text=texts, extra_text_mask=mask)
    assert ClassQuestions()(views).item() == pytest.approx(log(1 + exp(-1.2)) / 2, abs=1e-12)
    swapped = replace(views, extra_text=texts.flip(1))  # answered wrong
    assert ClassQuestions()(swapped).item() == pytest.approx(log(1 + exp(1.2)) / 2, abs=1e-12)
    nobody = replace(views, extra_text_mask=torch.zeros_like(mask))
    assert ClassQuestions()(nobody).item() == 0


def test_it_is_the_mean_binary_cross_entropy_of_the_questions() -> None:
    views = batch([4, 2, 6, 2])
    assert views.extra_text is not None
    nats = []
    for i, count in enumerate([4, 2, 6, 2]):
        right, wrong = views.extra_text[i, :count:2], views.extra_text[i, 1:count:2]
        logits = views.scale * ((right - wrong) @ views.image[i])
        nats.append(torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)))
    torch.testing.assert_close(ClassQuestions()(views), torch.stack(nats).mean(), rtol=1e-12, atol=0)


def test_a_class_is_no_negative_of_another() -> None:
    """Both findings of an item are answered with yes; the normal class has no opposite and is not asked."""
    assert _asked("Effusion", "Edema") == {("effusion", "clear"), ("Edema", "no Edema")}
    assert _asked("Effusion") == {("effusion", "clear"), ("no Edema", "Edema")}
    every = ClassQuestions(absent=None)
    assert _asked("No Finding", objective=every) == {("clear", "effusion"), ("no Edema", "Edema")}
    written = CLASSES | {"No Finding": Prompts(positive=["no finding"], negative=["abnormal"])}
    pair = replace(shown("a report", labels=["No Finding"]), classes=written)
    assert ("no finding", "abnormal") in zip(*[iter(ClassQuestions().extra_texts(pair))] * 2, strict=True)


@pytest.mark.parametrize(
    ("policy", "edema"),
    [("ignore", set()), ("absent", {("no Edema", "Edema")}), ("present", {("Edema", "no Edema")})],
)
def test_what_is_not_known_is_asked_by_policy(policy: str, edema: set[tuple[str, str]]) -> None:
    objective = ClassQuestions(unknown=policy)  # type: ignore[arg-type]
    assert (
        _asked("Effusion", objective=objective, unknown_labels=["Edema"]) == {("effusion", "clear")} | edema
    )


def test_of_many_classes_those_of_the_item_come_first_and_others_change_with_the_epoch() -> None:
    classes = {f"c{i}": Prompts(positive=[f"c{i}"]) for i in range(40)}
    pair = replace(shown("a report", labels=["c7", "c9"]), classes=classes)
    asked = []
    for seed in (1, 2, 1):
        texts = ClassQuestions(per_pair=4).extra_texts(replace(pair, seed=seed))
        assert set(texts[:4]) == {"c7", "no c7", "c9", "no c9"}
        assert len(texts) == 8
        asked.append(texts)
    assert asked[0] == asked[2] != asked[1]


def test_an_item_without_labels_is_asked_only_where_each_class_has_a_column() -> None:
    items = Dataset.from_dict({"texts": [["a report"]], "language": [["en"]], "labels": [[]], "meta": ["{}"]})
    for all_labelled, count in ((False, 0), (True, 2)):
        spec = ExtraSpec(
            {"class_questions": ClassQuestions().extra_texts}, prompts=CLASSES, all_labelled=all_labelled
        )
        extras = ExtraColumns(items, spec).extras_of(0, "a report", 0, 0)
        assert extras is not None
        assert len(extras.texts["class_questions"]) == count


@pytest.mark.parametrize(
    ("labels", "absent", "right", "wrong"),
    [
        (["c7", "c9"], 1, 2, 2),
        (["c7"], 3, 1, 3),
        (["c7"], None, 1, 15),  # up to per_pair
        (["c7", "c8", "c9"], 10, 3, 13),
        (["No Finding"], 2, 0, 2),
    ],
)
def test_as_many_absent_as_present_classes_are_asked(
    labels: list[str], absent: int | None, right: int, wrong: int
) -> None:
    names = [*(f"c{i}" for i in range(40)), "No Finding"]
    pair = replace(
        shown("a report", labels=labels), classes={name: Prompts(positive=[name]) for name in names}
    )
    texts = ClassQuestions(absent=absent).extra_texts(pair)
    answers = [text.startswith("no ") for text in texts[::2]]
    assert (answers.count(False), answers.count(True)) == (right, wrong)


def test_both_answers_have_one_form_which_changes_with_the_epoch() -> None:
    """Of 200 epochs, each form asks 100 ± 30: four standard deviations. The card's prompts take no form."""
    forms = {"{}": "no {}", "signs of {}": "without signs of {}"}
    objective, asked = ClassQuestions(forms=forms), Counter[tuple[str, str]]()
    for seed in range(200):
        asked.update(_asked("Edema", objective=objective, seed=seed))
    assert asked.keys() == {
        ("clear", "effusion"),
        ("Edema", "no Edema"),
        ("signs of Edema", "without signs of Edema"),
    }
    assert 70 <= asked["Edema", "no Edema"] <= 130
    assert asked["clear", "effusion"] == 200


@pytest.mark.parametrize(
    ("forms", "fault"),
    [
        ({"{}": "nothing"}, r'"nothing" must hold \{\} once, for the class'),
        ({"{} and {}": "no {}"}, r'"\{\} and \{\}" must hold \{\} once, for the class'),
        ({"{}": "{}"}, r'both answers are "\{\}": negate the second'),
    ],
)
def test_a_form_without_two_answers_about_the_class_is_refused(forms: dict[str, str], fault: str) -> None:
    with pytest.raises(RecipeError, match=f"objectives.class_questions.forms: {fault}"):
        ClassQuestions(forms=forms)


def test_an_implied_class_is_answered_with_yes() -> None:
    """Without the card's `implied_classes`, training would say that this effusion is no edema."""
    spec = ExtraSpec(
        texts={"questions": ClassQuestions().extra_texts}, classes=("Edema", "Effusion"), prompts=CLASSES
    )
    answers = {}
    for name, meta in {"stated alone": {}, "implied": {"implied_labels": ["Edema"]}}.items():
        row = {"texts": ["a report"], "language": ["en"], "labels": ["Effusion"], "meta": json.dumps(meta)}
        extras = ExtraColumns(Dataset.from_list([row]), spec).extras_of(0, "a report", 0, 0)
        assert extras is not None
        assert extras.labels is not None
        answers[name] = (extras.texts["questions"][0::2], extras.labels.tolist())
    assert answers["stated alone"] == (["effusion", "no Edema"], [False, True])
    assert answers["implied"][1] == [True, True]
    assert set(answers["implied"][0]) == {"effusion", "Edema"}
