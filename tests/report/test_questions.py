from __future__ import annotations

from dataclasses import replace

import pytest

from domainclip.evaluation.verdicts import NO_VERDICT, SAME, WORSE, ComparisonRow
from domainclip.report import questions
from domainclip.report.corpus_words import Words
from tests.report.made_results import ALIKE, ALONE, FEW, GAIN, LOSS, PART, row

PATIENTS = Words("patients", "finding")
BACK = row(
    "text_to_image_r1",
    probe="retrieval",
    primary=False,
    base=(0.48, 0.4, 0.55),
    adapted=(0.32, 0.25, 0.4),
    difference=(-0.16, -0.2, -0.1, 0.001),
    verdict=WORSE,
)
STEADY = row(
    dataset="general",
    base=(0.854, 0.82, 0.88),
    adapted=(0.845, 0.81, 0.87),
    difference=(-0.009, -0.024, 0.007, 0.276),
    verdict=SAME,
    chance=0.025,
)


def lead(rows: list[ComparisonRow], words: Words = PATIENTS, **facts: bool) -> str:
    return " ".join(questions.lead(rows, words, **facts)).replace("\u00a0", " ")


def test_the_lead_names_gain_cost_chance_and_how_sure_it_is() -> None:
    gain = replace(GAIN, groups=5)
    assert lead([gain, ALIKE, BACK, PART, STEADY]) == (
        "Names the finding right: 7.9 % → 55.4 % (chance 10 %), gained. Image search: 48 % → 32 % (chance 10 %), "
        "lost. General recognition: 85 % → 84 % (chance 2.5 %), at most 2.4 points lost (95 %). "
        "One training run, 5 patients."
    )


def test_a_loss_is_never_left_out_for_a_gain() -> None:
    gains = [row(probe=f"probe_{i}") for i in range(9)]
    assert lead([GAIN, *gains, ALIKE, LOSS, BACK]).count("lost") == 2


@pytest.mark.parametrize(
    ("measured", "end"),
    [
        (FEW, "20 % → 60 % (chance 10 %), too few patients to tell."),
        (
            replace(GAIN, verdict=NO_VERDICT, control_fault="the control is 0.4"),
            "7.9 % → 55.4 % (chance 10 %), not judged, since a control failed.",
        ),
        (replace(STEADY, dataset="test", chance=None), "85 % → 84 %, at most 2.4 points lost (95 %)."),
        (
            replace(
                STEADY,
                dataset="test",
                chance=None,
                effective_answers=4.85,
                difference=replace(STEADY.difference, value=0.33),
            ),
            "85 % → 84 %, at most 2.4 points lost (95 %), a few captions make most of the change.",
        ),
        (
            replace(STEADY, dataset="test", chance=None, difference=replace(STEADY.difference, low=0.001)),
            "85 % → 84 %, no clear change.",
        ),
        (ALONE, "7.9 % (chance 10 %)."),
        (row("macro_auroc", chance=0.5), "0.079 → 0.554 (chance 0.500), gained."),
        (row(base=(0.512, 0.4, 0.6), adapted=(0.514, 0.4, 0.6), chance=None), "51.2 % → 51.4 %, gained."),
    ],
)
def test_the_sentence_of_each_outcome(measured: ComparisonRow, end: str) -> None:
    assert lead([measured]).partition(": ")[2].startswith(end)


def test_what_was_not_measured_or_is_not_valid_is_stated() -> None:
    assert "What was lost outside the domain was not measured." in lead([GAIN])
    assert "not measured" not in lead([GAIN, LOSS])
    assert lead([GAIN], valid=False) == (
        "This evaluation is not valid: do not rely on the values below; none is reported as a change."
    )
    assert lead([ALONE]).endswith("One model, measured on 8 patients; none is compared.")
    assert lead([GAIN], trained=False).endswith("Measured on 8 patients.")
    assert lead([GAIN], Words()).endswith("One training run, 8 items.")  # each item is its own group


def test_questions_are_counted_not_metrics() -> None:
    second = row("accuracy", primary=False)
    described = row("ece", probe="calibration", comparable=False, verdict=NO_VERDICT)
    rows = [GAIN, second, PART, ALIKE, BACK, described, LOSS]
    assert [one.metric for one in questions.asked(rows)] == [
        "macro_accuracy",
        "image_to_text_r1",
        "text_to_image_r1",
        "macro_accuracy",
    ]
    assert questions.tally(rows) == "Of 4 questions: 1 gained, 2 lost, 1 no clear change."
    assert questions.tally([ALONE]) == ""


def test_answers_stand_by_set_and_other_probes_apart() -> None:
    third = row("pair_accuracy", probe="word_order")
    blocks, more = questions.blocks([GAIN, ALIKE, third, LOSS], PATIENTS, {"test": "In the domain"})
    assert [(block.heading, len(block.answers)) for block in blocks] == [
        ("In the domain", 2),
        ("On general", 1),
    ]
    assert [answer.label for block in blocks for answer in block.answers] == [
        "Names the finding right",
        "Caption search",
        "Names the class right",  # the retention set has other classes
    ]
    assert [answer.label for block in more for answer in block.answers] == ["Word-order pair accuracy"]
    (first, *_) = blocks[0].answers
    assert (first.before, first.after, first.chance) == ("7.9\u00a0%", "55.4\u00a0%", "10\u00a0%")
    assert (first.verdict, first.mark) == ("gained", "▲")
    assert "rose from 0.079 to 0.554" in first.sentence


def test_accuracy_is_a_question_where_it_is_the_headline() -> None:
    assert lead([row("accuracy")]).startswith("Names the finding right: 7.9 % → 55.4 %")
