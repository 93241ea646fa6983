"""The closing lines of a command agree with the first screen of the report."""

from __future__ import annotations

from dataclasses import replace

from domainclip.evaluation.statistics.changes import Change
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.statistics.seeds import Trials
from domainclip.report import page
from domainclip.report.ablation_results import AblationRow, AblationTable, Candidate, Choice
from domainclip.report.closing import ablation_lines, closing_lines
from domainclip.report.context import CorpusFacts
from tests.report.made_results import GAIN, context, evaluation, row

NAN = float("nan")


def test_one_line_for_each_question_and_whether_it_is_valid() -> None:
    assert closing_lines(evaluation(), context()) == [
        "In the domain: art_paintings, test",
        "  Names the class right  7.9 % → 55.4 %  chance 10 %  ▲ gained           +42.0 to +53.0 points",
        "  Caption search         2.3 % → 2.6 %   chance 10 %  = no clear change  −1.0 to +1.6 points",
        "In general",
        "  Names the class right  49.8 % → 5.8 %  chance 10 %  ▼ lost             −47.0 to −41.0 points",
        "Of 3 questions: 1 gained, 1 lost, 1 no clear change.",
        "The evaluation is valid: no leak was found.",
    ]


def test_values_and_words_are_those_of_the_page() -> None:
    lines = "\n".join(closing_lines(evaluation(), context()))
    for block in page.build(evaluation(), context())["blocks"]:
        assert block.heading in lines
        for answer in block.answers:
            for text in (answer.label, answer.before, answer.after, answer.verdict, answer.interval):
                assert text.replace("\u00a0", " ") in lines


def test_an_invalid_evaluation_claims_no_change() -> None:
    lines = closing_lines(evaluation(), context(invalid=["3 patients are in train and test"]))
    text = "\n".join(lines)
    assert lines[-2:] == [
        "This evaluation is not valid: do not rely on the values below; none is reported as a change.",
        "Reason: 3 patients are in train and test",
    ]
    assert not [word for word in ("gained", "lost", "is valid:") if word in text]


def test_one_model_has_values_alone() -> None:
    alone = row(adapted=None)
    assert (
        closing_lines(evaluation([alone]), context(run=None))[1]
        == "  Names the class right  7.9 %  chance 10 %"
    )


def test_wide_and_reversing_letters_of_class_names() -> None:
    corpus = CorpusFacts("c", class_name="病変\u202e")
    lines = closing_lines(evaluation([GAIN, row(metric="image_to_text_r1")]), context(corpus=corpus))
    assert "\u202e" not in "".join(lines)
    assert "病変" in lines[1]


def change(value: float, reach: float) -> Change:
    """A difference whose 95 % interval reaches so far on both sides."""
    return Change(value, value, (reach / 1.959964) ** 2, 1e9)


def ablation(choice: Choice | None, **facts: object) -> AblationTable:
    base = Estimate(0.3, 0.2, 0.4)
    trials = {
        name: Trials({0: mean}, mean, change(mean - 0.3, 0.05), None)
        for name, mean in (("lora", 0.52), ("full", 0.5))
    }
    made = AblationRow(
        probe="zero_shot",
        dataset="validation",
        metric="macro_accuracy",
        higher_is_better=True,
        unit="share",
        chance=0.1,
        primary=True,
        n=40,
        groups=20,
        base=base,
        trials=trials,
    )
    known = {"name": "a", "split": "validation", "general": "general", "base": {}, "corpus": CorpusFacts("c")}
    known |= {"variants": [], "rows": [made], "reference": None, "resamples": 10, "seed": 0, "command": ""}
    return AblationTable(**{**known, **facts, "choice": choice})  # type: ignore[arg-type]


def test_an_ablation_ends_with_its_variants_and_the_choice() -> None:
    candidates = [Candidate("lora", 0.52, 0.22, 0.01, True), Candidate("full", 0.5, 0.2, 0.3, False)]
    choice = Choice(
        "lora",
        "lora",
        "zero_shot/validation/macro_accuracy",
        0.05,
        candidates,
        retention_metric="zero_shot/general/macro_accuracy",
    )
    lines = ablation_lines(ablation(choice))
    assert lines[:4] == [
        "zero-shot macro accuracy on validation: mean over seeds, change from the base (95 %)",
        "  base  0.300",
        "  lora  0.520  +0.170 to +0.270",
        "  full  0.500  +0.150 to +0.250",
    ]
    assert lines[4].startswith("Chosen on the validation split: lora")
    assert "--final" in lines[-1]


def test_what_the_variants_lose_stands_beside_it() -> None:
    table = ablation(None)
    (row,) = table.rows
    lost = {"lora": Trials({0: 0.28}, 0.28, change(-0.02, 0.03), None)}
    general = replace(row, dataset="general", trials=lost)
    assert ablation_lines(replace(table, rows=[row, general])) == [
        "zero-shot macro accuracy on validation: mean over seeds, change from the base (95 %); the same on general",
        "  base  0.300                    0.300",
        "  lora  0.520  +0.170 to +0.270  0.280  −0.050 to +0.010",
        "  full  0.500  +0.150 to +0.250",
    ]


def test_an_invalid_ablation_chooses_nothing() -> None:
    lines = ablation_lines(ablation(None, invalid=["a leak"]))
    assert lines == ["No variant is chosen, since the table is not valid.", "Not valid: a leak"]
