from __future__ import annotations

from dataclasses import replace

import pytest

from domainclip.evaluation.verdicts import BETTER, NO_VERDICT, SAME, WORSE, ComparisonRow
from domainclip.report import metric_tables, phrasing, tradeoff_plot
from tests.report.made_results import ALIKE, ALONE, FEW, GAIN, LOSS, NAN, PART, row

CLAIMS = {
    "gain": (
        GAIN,
        "On test, zero-shot macro accuracy rose from 0.079 to 0.554, by 0.475 "
        "(95 % interval 0.420 to 0.530; p = 0.001): a significant gain.",
    ),
    "loss": (
        LOSS,
        "On the retention set, zero-shot macro accuracy fell from 0.498 to 0.058, by 0.440 "
        "(95 % interval 0.410 to 0.470; p = 0.001): a significant loss.",
    ),
    "no difference": (
        ALIKE,
        "On test, retrieval image-to-text R@1 went from 0.023 to 0.026: no difference shown "
        "(95 % interval of the difference −0.010 to +0.016; p = 0.640): at most 0.010 is lost.",
    ),
    "few groups": (
        FEW,
        "On test, zero-shot macro accuracy went from 0.200 to 0.600; this is not tested, since "
        "there are only 4 groups: at least 6 are needed.",
    ),
    "single": (
        ALONE,
        "On test, zero-shot macro accuracy is 0.079 (95 % interval 0.050 to 0.110; chance is 0.100).",
    ),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_claims(case: str) -> None:
    measured, expected = CLAIMS[case]
    assert phrasing.claim(measured, "general").replace("\u00a0", " ") == expected


def test_an_invalid_evaluation_has_no_significant_change() -> None:
    assert phrasing.claim(GAIN, "general", valid=False) == (
        "On test, zero-shot macro accuracy is 0.079 before and 0.554 after: not valid, see above."
    )


def test_a_rank_that_falls_is_a_gain() -> None:
    fewer = row(
        metric="image_to_text_median_rank",
        probe="retrieval",
        unit="rank",
        higher_is_better=False,
        base=(12.5, 10, 16),
        adapted=(3, 2, 4),
        difference=(-9.5, -12, -7, 0.001),
    )
    assert phrasing.claim(fewer, "general").replace("\u00a0", " ") == (
        "On test, retrieval image-to-text median rank fell from 12.5 to 3, by 9.5 "
        "(95 % interval 7 to 12; p = 0.001): a significant gain."
    )


def test_p_stands_beside_an_interval_that_excludes_zero_without_a_verdict() -> None:
    """Five of a hundred items gained, none lost: the interval alone would have claimed it."""
    few = row(
        base=(0.5, 0.4, 0.6), adapted=(0.55, 0.45, 0.65), difference=(0.05, 0.01, 0.1, 0.0625), verdict=SAME
    )
    sentence = phrasing.claim(few, "general").replace("\u00a0", " ")
    assert "includes zero" not in sentence
    assert sentence.endswith("(95 % interval of the difference +0.010 to +0.100; p = 0.062).")
    of_eleven = replace(few, adjusted_p=0.6875, comparisons=11)
    assert phrasing.p_values(of_eleven) == "p = 0.062, 0.688 after correction for 11 comparisons"
    assert phrasing.p_values(replace(few, difference=replace(few.difference, p=0.0004))) == "p < 0.001"
    assert phrasing.p_values(row(adapted=None)) == ""


def test_changes_name_every_metric_and_join_the_parts() -> None:
    other = row(metric="accuracy/Realism", verdict=BETTER, difference=(0.5, 0.4, 0.6, 0.001))
    still = row(metric="accuracy/Cubism", verdict="no difference shown")
    rows: list[ComparisonRow] = [GAIN, ALIKE, PART, other, still, LOSS]
    assert phrasing.changes(rows, WORSE) == ["zero-shot macro accuracy on general: 0.498 → 0.058, −0.440"]
    assert phrasing.changes(rows, BETTER) == [
        "zero-shot macro accuracy on test: 0.079 → 0.554, +0.475",
        "zero-shot accuracy on test, 2 of its 3 parts: Realism (0.079 → 0.554); Baroque (0.079 → 0.554)",
    ]
    assert phrasing.no_changes(rows, WORSE) == "None of 6 metrics got significantly worse."


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("macro_accuracy", "macro accuracy"),
        ("macro_auroc", "macro AUROC"),
        ("auroc/No Finding", "AUROC, No Finding"),
        ("image_to_text_r10/de", "image-to-text R@10, de"),
        ("text_to_image_median_rank", "text-to-image median rank"),
        ("accuracy/and/or", "accuracy, and/or"),
    ],
)
def test_metric_names(metric: str, expected: str) -> None:
    assert phrasing.metric_name(metric) == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.4751, "share", "+0.475"),
        (-0.44, "share", "−0.440"),
        (0.0, "share", "0.000"),
        (-0.0001, "share", "0.000"),
        (-2.0, "rank", "−2"),
        (float("nan"), "share", "–"),
    ],
)
def test_signed_numbers(value: float, unit: str, expected: str) -> None:
    assert phrasing.signed(value, unit) == expected


@pytest.mark.parametrize(("seconds", "expected"), [(7.4, "7 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations(seconds: float, expected: str) -> None:
    assert phrasing.duration(seconds) == expected


def test_hidden_characters_are_escaped() -> None:
    assert phrasing.plain("cat\u202egpj.exe\x00\ufeff") == "cat\\u202egpj.exe\\u0000\\ufeff"
    assert phrasing.plain("गुलाबी क्\u200dष 猫 🐈\n") == "गुलाबी क्\u200dष 猫 🐈\n"
    assert phrasing.plain(3) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", "a\\|b"),
        ("<script>", "&lt;script&gt;"),
        ("`x` *y* [z](u)", "\\`x\\` \\*y\\* \\[z\\](u)"),
        ("=cmd()", "\\=cmd()"),
        ("@SUM(1)", "\\@SUM(1)"),
        ("- item", "\\- item"),
        ("+0.475", "+0.475"),
        ("two\nlines", "two lines"),
        ("A & B", "A &amp; B"),
    ],
)
def test_markdown_is_escaped(text: str, expected: str) -> None:
    assert phrasing.markdown(text) == expected


def test_a_fence_is_longer_than_any_in_its_content() -> None:
    assert phrasing.fence("a\n```\n# b") == "````\na\n```\n# b\n````"


NAMES = {
    "image_to_text_r5/de": "image-to-text R@5, de",
    "image_to_text_r1_shuffled": "image-to-text R@1 shuffled",
    "macro_f1": "macro F1",
    "top5_accuracy": "top-5 accuracy",
    "sensitivity_at_90_percent_specificity/Pneumonia": "sensitivity at 90 % specificity, Pneumonia",
    "image_to_text_map": "image-to-text mAP",
    "image_to_text_top_10_percent": "image-to-text top 10 %",
    "ece_adaptive": "ECE adaptive",
    "macro_auprc/x": "macro AUPRC, x",
}


@pytest.mark.parametrize("metric", NAMES)
def test_names_of_more_metrics(metric: str) -> None:
    assert phrasing.metric_name(metric) == NAMES[metric]


def test_a_metric_that_is_not_judged() -> None:
    moved = row(
        "ece",
        base=(0.1, 0.08, 0.12),
        adapted=(0.2, 0.17, 0.23),
        difference=(0.1, 0.05, 0.15, 0.001),
        probe="calibration",
        higher_is_better=False,
        comparable=False,
        verdict=NO_VERDICT,
    )
    assert phrasing.claim(moved, "general") == (
        "On test, calibration ECE went from 0.100 to 0.200; this metric is not judged."
    )
    assert phrasing.changes([moved], WORSE) == phrasing.changes([moved], BETTER) == []


def test_a_metric_whose_control_failed() -> None:
    fault = "the control image_to_text_r1_shuffled of the base is 0.371 (95 % interval 0.300 to 0.440), where chance is 0.039"
    failed = row(
        "image_to_text_r1", probe="retrieval", control_fault=fault, verdict=NO_VERDICT, base=(0.6, 0.5, 0.7)
    )
    assert phrasing.claim(failed, "general") == (
        f"On test, retrieval image-to-text R@1 went from 0.600 to 0.554; this is not judged, since {fault}."
    )
    alone = row("image_to_text_r1", probe="retrieval", control_fault=fault, adapted=None)
    assert phrasing.claim(alone, "general").endswith(f"chance is 0.100); do not rely on it, since {fault}.")
    assert phrasing.changes([failed], WORSE) == phrasing.changes([failed], BETTER) == []


def test_a_biased_metric_stands_beside_what_noise_alone_gives() -> None:
    ece = row(
        "ece",
        probe="calibration",
        base=(0.492, NAN, NAN),
        adapted=(0.084, NAN, NAN),
        difference=(-0.408, NAN, NAN, NAN),
        higher_is_better=False,
        comparable=False,
        verdict=NO_VERDICT,
        biased=True,
        by_luck=(0.085, 0.091),
    )
    assert phrasing.claim(ece, "general") == (
        "On test, calibration ECE went from 0.492 to 0.084 (0.085 and 0.091 by luck alone); this is a description, "
        "not judged."
    )
    line = metric_tables.line(ece)
    assert (line.base_span, line.adapted_span, line.difference_span) == ("by luck 0.085", "by luck 0.091", "")
    unknown = metric_tables.line(replace(ece, by_luck=(None, None)))
    assert (unknown.base_span, unknown.adapted_span) == ("", "")
    # Never a gain on the plane.
    assert tradeoff_plot.plane([ece, replace(ece, dataset="general")], "general") is None
