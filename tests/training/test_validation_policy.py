"""What follows from looking: decisions, worked by hand from scripted figures."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from domainclip.config.training import TrainConfig
from domainclip.models.dual_encoder import DualEncoder
from domainclip.training.validation import ValidationSet
from domainclip.training.validation_policy import ValidationPolicy

_NO_TOWERS = cast(DualEncoder, None)


class _Scripted:
    """Stands for held-out data: gives what it was told, in turn."""

    def __init__(self, figures: list[dict[str, float]]) -> None:
        self.figures = list(figures)

    def measure(self, model: Any, towers: Any) -> dict[str, float]:
        return self.figures.pop(0)


def _course(
    figures: list[dict[str, float]], facts: dict[str, Any] | None = None, **options: Any
) -> ValidationPolicy:
    settings = TrainConfig(**({"validate_every": 2} | options))
    return ValidationPolicy(cast(ValidationSet, _Scripted(figures)), settings, facts)


def _walk(course: ValidationPolicy, steps: range, total: int = 9) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for step in steps:
        if (seen := course.validate(step, total, _NO_TOWERS)) is not None:
            found.append((step, seen))
    return found


LOSSES = [{"loss": value} for value in (3.0, 2.0, 2.5, 2.0, 4.0)]


def test_looks_every_so_often_and_at_the_end() -> None:
    course = _course(LOSSES)
    assert [step for step, _ in _walk(course, range(1, 10))] == [2, 4, 6, 8, 9]
    assert _walk(ValidationPolicy(None, TrainConfig()), range(1, 10)) == []
    assert ValidationPolicy(None, TrainConfig()).rate_factor == 1


def test_the_first_of_the_best_is_kept() -> None:
    course = _course(LOSSES, keep_best_checkpoint=True)
    improved = []
    for step in range(1, 10):
        course.validate(step, 9, _NO_TOWERS)
        if course.improved:
            improved.append(step)
    assert improved == [2, 4]
    assert course.protected_steps == [4]
    assert course.final_step(9) == 9  # kept, not taken
    assert _walked_best(final_weights="best").final_step(9) == 4
    assert _walked_best(final_weights="best").protected_steps == [4]
    assert _walked_best().protected_steps == []


def _walked_best(**options: Any) -> ValidationPolicy:
    course = _course(LOSSES, **options)
    _walk(course, range(1, 10))
    assert course.best == [4, 2.0]
    return course


def test_no_number_is_no_best() -> None:
    course = _course([{"loss": float("nan")}, {"loss": 5.0}], final_weights="best")
    _walk(course, range(1, 5))
    assert course.best == [4, 5.0]


@pytest.mark.parametrize(
    ("action", "share", "end"), [("warn", 1, 9), ("lower_rate", 0.25, 9), ("stop", 1, 4)]
)
def test_under_the_floor(action: str, share: float, end: int) -> None:
    lost = [0.05, 0.06, 0.01, 0.2, 0.04]  # 0.05 is allowed
    figures = [{"loss": 1.0, "lost": value} for value in lost]
    course = _course(figures, on_retention_drop=action)
    step = 0
    while step < course.last_step(9):
        step += 1
        course.validate(step, 9, _NO_TOWERS)
    assert step == course.final_step(9) == end
    assert course.rate_factor == share


def test_the_bound_of_the_drop_decides_where_there_is_one() -> None:
    figures = [{"loss": 1.0, "lost": 0.01, "lost_at_most": bound} for bound in (0.04, 0.05, 0.06)]
    course = _course(figures, on_retention_drop="stop")
    _walk(course, range(1, 7))
    assert course.stopped_at == 6


def test_a_resumed_course_is_the_same() -> None:
    figures = [{"loss": 3.0 - i, "lost": 0.1} for i in range(5)]
    whole = _course(figures, on_retention_drop="lower_rate", final_weights="best")
    _walk(whole, range(1, 10))
    first = _course(figures, on_retention_drop="lower_rate", final_weights="best")
    _walk(first, range(1, 6))
    again = _course(
        figures[2:],
        json.loads(json.dumps(first.state())),
        on_retention_drop="lower_rate",
        final_weights="best",
    )
    _walk(again, range(6, 10))
    assert again.state() == whole.state() == {"best": [9, -1.0], "lowered": 5, "ended": None, "stale": 0}


def test_patience_ends_a_run_whose_loss_and_metric_both_stand_still() -> None:
    seen = [{"loss": 2.0, "figure": 0.3}, {"loss": 2.1, "figure": 0.4}, {"loss": 2.2, "figure": 0.4}]
    seen += [{"loss": 2.0, "figure": 0.1}, {"loss": 9.0, "figure": 0.9}]
    course = _course(seen, patience=2)
    assert [step for step, _ in _walk(course, range(1, 9))] == [2, 4, 6, 8]
    # The metric rose at 4; neither it nor the loss did at 6 and 8: equal is no better.
    assert (course.stale, course.stopped_at, course.last_step(20)) == (2, 8, 8)
    resumed = _course(seen[3:], course.state() | {"ended": None, "stale": 1}, patience=2)
    _walk(resumed, range(8, 9))
    assert (resumed.best_metric, resumed.stopped_at) == (0.4, 8)
    impatient = _course([{"loss": 2.0}, {"loss": 2.0}], patience=1)
    _walk(impatient, range(1, 5))
    assert impatient.stopped_at == 4
    endless = _course(seen)
    _walk(endless, range(1, 10), total=10)
    assert endless.stopped_at is None
