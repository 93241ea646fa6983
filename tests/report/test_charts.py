from __future__ import annotations

import math

import pytest

from domainclip.report import charts
from tests.report.made_results import ALONE, FEW, GAIN, row


def test_positions_of_marks() -> None:
    chart = charts.dumbbells([GAIN], lambda row: row.metric)
    assert chart is not None
    line = chart.lines[0]
    # The axis ends at 0.8, and has a margin of two per cent on both sides.
    assert [tick.label for tick in chart.ticks] == ["0", "0.2", "0.4", "0.6", "0.8"]
    assert line.base.at == pytest.approx(2 + 96 * 0.079 / 0.8, abs=0.01)
    assert line.adapted is not None
    assert line.adapted.high == pytest.approx(2 + 96 * 0.61 / 0.8, abs=0.01)
    assert line.chance == 14
    assert line.spoken == (
        "macro_accuracy: base 0.079 (0.050 to 0.110), adapted 0.554 (0.500 to 0.610), better"
    )


def test_a_mark_without_interval_has_no_bar() -> None:
    chart = charts.dumbbells([FEW, ALONE], lambda row: row.metric)
    assert chart is not None
    assert chart.lines[0].base.low == chart.lines[0].base.at == chart.lines[0].base.high
    assert chart.lines[1].adapted is None


def test_ranks_and_undefined_metrics_are_not_drawn() -> None:
    undefined = row(base=(math.nan, math.nan, math.nan))
    assert charts.dumbbells([row(unit="rank"), undefined], lambda row: row.metric) is None


@pytest.mark.parametrize(
    ("reach", "expected"), [(1.0, (0.2, 1.0)), (0.61, (0.2, 0.8)), (0.03, (0.01, 0.03)), (0.0, (1e-6, 1e-6))]
)
def test_axes_are_round(reach: float, expected: tuple[float, float]) -> None:
    assert charts.round_axis(reach) == pytest.approx(expected)


def test_a_curve_runs_from_left_to_right_and_up_is_more() -> None:
    lines = [{"step": i, "loss": 5.0 - i} for i in range(3)]
    curve = charts.curve(lines, "loss", "loss", chance=math.log(128))
    assert curve is not None
    points = [tuple(map(float, point.split(","))) for point in curve.points.split()]
    assert [x for x, _ in points] == [0, 500, 1000]
    assert points[0][1] < points[1][1] < points[2][1]
    assert curve.chance is not None
    assert points[0][1] < curve.chance < points[1][1]
    assert curve.spoken == "loss from 5 at step 0 to 3 at step 2"


def test_a_long_curve_is_thinned_except_for_its_ends() -> None:
    lines = [{"step": i, "loss": float(i % 7)} for i in range(5001)]
    curve = charts.curve(lines, "loss", "loss")
    assert curve is not None
    assert len(curve.points.split()) <= 302
    assert (curve.first_step, curve.last_step) == (0, 5000)


@pytest.mark.parametrize(
    "lines", [[], [{"step": 1, "loss": 2.0}], [{"step": 1}, {"step": 2, "loss": math.nan}]]
)
def test_no_curve_without_two_points(lines: list[dict[str, float]]) -> None:
    assert charts.curve(lines, "loss", "loss") is None


def test_a_flat_curve_has_room() -> None:
    curve = charts.curve([{"step": 0, "scale": 20.0}, {"step": 1, "scale": 20.0}], "scale", "scale")
    assert curve is not None
    assert curve.points == "0.0,50.0 1000.0,50.0"
