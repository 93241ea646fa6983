"""The page of an ablation: p, correction and interval agree with the verdict, and the choice is in words."""

from __future__ import annotations

import csv as csv_module
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import t

from domainclip.evaluation.statistics.changes import Change
from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.statistics.seeds import Trials
from domainclip.pipelines.ablation.table import _judged
from domainclip.report import ablation_page
from domainclip.report.ablation_csv import csv
from domainclip.report.ablation_results import AblationRow, AblationTable, Candidate, Choice, Variant, to_file
from domainclip.report.choice_phrasing import choice_in_words
from domainclip.report.context import CorpusFacts

DF = 60.0
ERROR = 0.04  # standard error of every difference


def _row(metric: str, gains: Mapping[str, float], dataset: str = "validation", **facts: Any) -> AblationRow:
    return AblationRow(
        probe="zero_shot",
        dataset=dataset,
        metric=metric,
        higher_is_better=True,
        unit="share",
        chance=None,
        primary=metric == "macro_accuracy",
        n=80,
        groups=61,
        base=Estimate(0.5, 0.4, 0.6),
        trials={
            name: Trials({0: 0.49 + gain, 1: 0.51 + gain}, 0.5 + gain, Change(gain, gain, ERROR**2, DF), None)
            for name, gain in gains.items()
        },
        **facts,
    )


def _table(rows: list[AblationRow], **facts: Any) -> AblationTable:
    names = list(rows[0].trials)
    variants = [Variant(name, [], [0, 1], {}, 60.0, 1, 2) for name in names]
    given: dict[str, Any] = {
        "name": "plan",
        "split": "validation",
        "general": "general",
        "base": {"name": "base"},
        "corpus": CorpusFacts("Squares"),
        "variants": variants,
        "rows": _judged(rows),
        "reference": None,
        "resamples": 100,
        "seed": 0,
        "command": "domainclip ablate",
    }
    return AblationTable(**given | facts)


def test_p_correction_and_interval_stand_beside_the_verdict() -> None:
    """0.1 is 2.5 standard errors: p 0.015 alone, times four comparisons 0.061, so zero lies in its interval."""
    p = 2 * t.sf(2.5, DF)
    assert (round(p, 3), round(4 * p, 3)) == (0.015, 0.061)
    table = _table(
        [_row("macro_accuracy", {"small": 0.1, "large": 0.2}), _row("recall", {"small": 0.1, "large": 0})]
    )
    page = ablation_page.build(table)
    (_, (small, _)), (_, (large, nothing)) = page["lines"]
    assert small.p == "p = 0.015, 0.061 after correction for 4 comparisons"
    assert small.verdict == "no difference shown"
    reach = ERROR * t.isf(0.05 / 4 / 2, DF)
    assert small.span == f"{ablation_page.phrasing.signed(0.1 - reach)} to +{0.1 + reach:.3f}"
    assert 0.1 - reach < 0 < 0.1 - ERROR * t.isf(0.025, DF)  # alone, its interval would exclude zero
    assert (large.verdict, large.seeds) == ("better", "0.690 to 0.710")
    assert nothing.p.startswith("p = 1.000, 1.000 after correction")
    assert page["sentences"][0] == (
        "small: no difference from the base is shown in any of 2 metrics (smallest p of zero-shot macro accuracy on "
        "validation: p = 0.015, 0.061 after correction for 4 comparisons)."
    )
    assert page["sentences"][1].startswith(
        "large: better in zero-shot macro accuracy on validation (+0.200; p < 0.001"
    )
    # The files have both: the difference alone, and what the verdict follows from.
    result = to_file(table).results[0].variants[0].difference
    assert (result.p, result.adjusted_p, result.comparisons) == (pytest.approx(p), pytest.approx(4 * p), 4)
    assert result.low is not None
    assert result.low > 0
    assert result.simultaneous is not None
    assert result.simultaneous.low == pytest.approx(0.1 - reach)
    line = next(csv_module.DictReader(io.StringIO(csv(table).lstrip("\ufeff"))))
    assert float(line["from_base_p"]) == pytest.approx(p)
    assert float(line["from_base_adjusted_p"]) == pytest.approx(4 * p)
    assert (line["from_base_comparisons"], line["from_reference_p"]) == ("4", "")
    assert float(line["from_base_low"]) == pytest.approx(0.1 - reach)


def test_an_interval_excludes_zero_exactly_where_the_verdict_says_so() -> None:
    gains = {f"v{i}": 0.005 * i for i in range(60)}
    table = _table(
        [_row("macro_accuracy", gains), _row("recall", {name: -gain for name, gain in gains.items()})]
    )
    seen = set()
    for row in table.rows:
        for name, trials in row.trials.items():
            shown = trials.from_base
            excludes = shown.low > 0 or shown.high < 0
            assert excludes == (row.verdicts[name] in ("better", "worse"))
            seen.add(row.verdicts[name])
    assert seen == {"better", "worse", "no difference shown"}


def test_a_difference_that_is_not_judged_has_no_p() -> None:
    page = ablation_page.build(
        _table([_row("ece", {"a": 0.2}, comparable=False), _row("recall", {"a": 0.1})])
    )
    ((_, (ece, recall)),) = page["lines"]
    assert (ece.verdict, ece.p) == ("not judged", "")
    assert recall.p == "p = 0.015"  # alone: nothing else takes part


def _choice(variant: str | None, best: str | None, *candidates: Candidate) -> Choice:
    same = "zero_shot/general/macro_accuracy"
    return Choice(variant, best, "zero_shot/validation/macro_accuracy", 0.05, candidates, same)


def test_the_choice_in_words() -> None:
    simple = Candidate("simple", 0.6, 0.1, 0.01, True)
    best = Candidate("best", 0.61, 0.11, -0.02, True)
    forgets = Candidate("forgets", 0.9, 0.4, 0.3, False)
    rows = [_row("macro_accuracy", {"simple": 0.05, "best": 0.06, "forgets": 0.4})]
    table = _table(rows, choice=_choice("simple", "best", simple, best, forgets))
    assert choice_in_words(table) == [
        "Chosen on the validation split: simple, zero-shot macro accuracy 0.600, better than the base by 0.100; 0.010 is "
        "lost on the retention set, where 0.05 is allowed.",
        "That it is better than the base is not shown: the difference may be chance.",
        "best is better by 0.010, within one standard error of their difference: of equally good variants, the first in "
        "the plan is taken.",
        "Not eligible, since they lose more on the retention set: forgets.",
        "The best of several looks better on the split that chose it than it is: add --final to the command to measure "
        "simple on the test split, once.",
    ]
    gained = choice_in_words(_table(rows, choice=_choice("best", "best", best)))
    assert "0.000 is lost on the retention set" in gained[0]
    sure = _choice("forgets", "forgets", Candidate("forgets", 0.9, 0.4, 0.03, True))
    sure = replace(sure, retention_metric="retrieval/general/image_to_text_r1")
    shown = choice_in_words(_table(rows, choice=sure))
    assert "0.030 of retrieval image-to-text R@1 is lost on the retention set" in shown[0]
    assert not any("may be chance" in sentence for sentence in shown)
    assert choice_in_words(_table(rows, choice=_choice(None, None, forgets))) == [
        "No variant is chosen: none is better than the base in zero-shot macro accuracy and loses at most 0.05 on "
        "the retention set. The base stays."
    ]
    assert choice_in_words(_table(rows)) == []
    assert choice_in_words(_table(rows, invalid=["a leak"])) == [
        "No variant is chosen, since the table is not valid."
    ]
