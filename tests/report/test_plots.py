from __future__ import annotations

import math

import pytest

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.report import plots, tradeoff_plot
from tests.report.made_results import ALIKE, FEW, GAIN, LOSS, row


def test_gain_and_forgetting_are_on_their_axes() -> None:
    """Gain +0.475 (0.42 to 0.53), change on the retention set −0.44 (−0.47 to −0.41), axes 15 % beyond."""
    drawn = tradeoff_plot.plane([GAIN, ALIKE, LOSS], "general")
    assert drawn is not None
    (point,) = drawn.points  # retrieval was not measured on the retention set
    assert point.x == pytest.approx(50 - 50 * 0.44 / (1.15 * 0.47), abs=0.01)
    assert point.x_high == pytest.approx(50 - 50 * 0.41 / (1.15 * 0.47), abs=0.01)
    assert point.y == pytest.approx(50 - 50 * 0.475 / (1.15 * 0.53), abs=0.01)
    assert point.y_high < point.y < point.y_low < drawn.y_zero == 50  # upwards is better
    assert point.spoken == (
        "zero-shot: domain +0.475 (+0.420 to +0.530), retention −0.440 (−0.470 to −0.410)"
    )
    labels = {tick.label: tick.at for tick in drawn.x_ticks}
    assert labels["0"] == 50
    assert all((at < 50) == label.startswith("−") for label, at in labels.items() if label != "0")


def test_where_lower_is_better_a_fall_is_a_gain() -> None:
    fall = row(higher_is_better=False, difference=(-0.2, -0.3, -0.1, 0.001))
    drawn = tradeoff_plot.plane([fall, LOSS], "general")
    assert drawn is not None
    assert drawn.points[0].y == pytest.approx(50 - 50 * 0.2 / (1.15 * 0.3), abs=0.01)
    assert drawn.points[0].y_high < drawn.points[0].y < drawn.points[0].y_low


def test_no_plane_without_both_sides_or_intervals() -> None:
    assert tradeoff_plot.plane([GAIN, ALIKE], "general") is None
    assert tradeoff_plot.plane([FEW, LOSS], "general") is None


def test_positions_of_reliability_bins() -> None:
    points = [
        {"confidence": 0.25, "accuracy": 0.5, "n": 4},
        {"confidence": 0.75, "accuracy": 0.5, "n": 16},
    ]
    drawn = plots.reliability("zero-shot on test", {"reliability": points}, {"reliability": points[:1]})
    assert drawn is not None
    assert [(dot.x, dot.y) for dot in drawn.series[0].dots] == [(25, 50), (75, 50)]
    small, large = drawn.series[0].dots
    assert large.size - 2.5 == pytest.approx(2 * (small.size - 2.5))  # four times the items, twice the radius
    assert [series.kind for series in drawn.series] == ["base", "adapted"]
    assert drawn.diagonal
    assert plots.reliability("nothing", {}, {}) is None


def test_shots_are_ordered_by_number() -> None:
    rows = [
        row(metric=f"macro_accuracy/{n}-shot", base=(n / 40, 0, 0.5), adapted=(0.4, 0.3, 0.5))
        for n in (16, 1, 4)
    ]
    drawn = plots.over_numbers(rows)
    assert drawn is not None
    assert [tick.label for tick in drawn.x_ticks] == ["1", "4", "16"]
    assert [tick.at for tick in drawn.x_ticks] == [4, 50, 96]
    assert drawn.series[0].spoken == "base at 1: 0.025, 4: 0.100, 16: 0.400"
    assert [dot.y for dot in drawn.series[1].dots] == [20, 20, 20]  # 0.4 of an axis up to 0.5
    assert drawn.x_name == "shots"


@pytest.mark.parametrize("parts", [["cat", "dog"], ["1-shot"], ["1-shot", "2-way"], ["4", "4-shot"]])
def test_parts_without_numbers_of_one_unit_have_no_curve(parts: list[str]) -> None:
    assert plots.over_numbers([row(metric=f"accuracy/{part}") for part in parts]) is None


def test_every_alpha_is_drawn() -> None:
    tried = {"0.25": 0.4, "0.5": 0.6, "1.0": 0.5, "0.75": math.nan}
    drawn = plots.interpolation({"interpolation": {"alpha": 0.5, "validation": tried}})
    assert drawn is not None
    assert [dot.x for dot in drawn.series[0].dots] == [25, 50, 100]
    assert drawn.series[0].dots[1].y < drawn.series[0].dots[2].y < drawn.series[0].dots[0].y
    assert drawn.title == "Weight interpolation (α = 0.5, chosen on validation)"
    assert plots.interpolation({}) is None


def test_the_interpolation_path_is_in_the_trade_off_plot() -> None:
    """α = 0.5 gained 0.2 of a reach of 1.15 · 0.53, and lost 0.1 of 1.15 · 0.47."""
    swept = {
        "alpha": 0.5,
        "unit": "share",
        "validation": {"0.0": 0.3, "0.5": 0.5, "1.0": 0.6, "0.75": math.nan},
        "general": {"0.0": 0.6, "0.5": 0.5, "1.0": 0.2, "0.75": 0.1},
    }
    drawn = tradeoff_plot.plane([GAIN, LOSS], "general", {"interpolation": swept})
    assert drawn is not None
    assert [(stop.label, stop.chosen) for stop in drawn.path] == [("0", False), ("0.5", True), ("1", False)]
    assert (drawn.path[0].x, drawn.path[0].y) == (50, 50)
    assert drawn.path[1].x == pytest.approx(50 - 50 * 0.1 / (1.15 * 0.47), abs=0.01)
    assert drawn.path[1].y == pytest.approx(50 - 50 * 0.2 / (1.15 * 0.53), abs=0.01)
    assert drawn.path_spoken.startswith(
        "α 0: validation 0.000, retention 0.000, α 0.5: validation +0.200, retention −0.1"
    )
    # A way that leads further than every interval widens the axes.
    far = swept | {"general": {"0.0": 1.0, "0.5": 0.5, "1.0": 0.0}}
    wide = tradeoff_plot.plane([GAIN, LOSS], "general", {"interpolation": far})
    assert wide is not None
    assert wide.path[-1].x == pytest.approx(50 - 50 / 1.15, abs=0.01)
    # Without the general set, or for a rank, there is no way to draw; files from before have neither.
    for less in ({"general": {}}, {"unit": "rank"}, {"unit": None}):
        bare = tradeoff_plot.plane([GAIN, LOSS], "general", {"interpolation": swept | less})
        assert bare is not None
        assert bare.path == []


def test_names_at_one_place_stand_below_each_other() -> None:
    one = Estimate(0.1, 0.05, 0.15, 0.01)
    named = [(name, one, one) for name in ("full", "lora", "a variant with a name that says everything")]
    far = ("far", Estimate(-0.1, -0.15, -0.05, 0.01), Estimate(-0.1, -0.15, -0.05, 0.01))
    drawn = tradeoff_plot.plane_of([*named, far])
    first = drawn.points[0].y
    assert [point.name_y for point in drawn.points[:3]] == pytest.approx([first, first + 5, first + 10])
    assert drawn.points[3].name_y == drawn.points[3].y
    assert [point.y for point in drawn.points[:3]] == [first] * 3  # the points stay where they are
    assert drawn.points[2].label == "a variant with a name t…"
    assert drawn.points[2].spoken.startswith("a variant with a name that says everything: ")


def test_of_stops_at_one_place_the_chosen_one_is_named() -> None:
    tried = {"0.0": 0.3, "0.25": 0.301, "0.5": 0.5, "0.75": 0.501, "1.0": 0.9}
    swept = {"alpha": 0.75, "unit": "share", "figure": "zero_shot macro_accuracy", "validation": tried}
    drawn = tradeoff_plot.plane(
        [GAIN, LOSS], "general", {"interpolation": swept | {"general": dict.fromkeys(tried, 0.5)}}
    )
    assert drawn is not None
    assert [stop.label for stop in drawn.path] == ["0", "", "", "0.75", "1"]
    assert drawn.path_of == "zero-shot macro accuracy"
    assert "α 0.25: " in drawn.path_spoken
