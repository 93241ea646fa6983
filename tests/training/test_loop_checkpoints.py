"""When checkpoints are due, and that a recipe may give steps or a time."""

from __future__ import annotations

from itertools import count

import pytest
from pydantic import ValidationError

from domainclip.config.training import TrainConfig
from domainclip.training import loop_checkpoints
from domainclip.training.loop_checkpoints import SaveSchedule


def test_after_so_many_steps_and_after_the_last() -> None:
    schedule = SaveSchedule(4)
    assert [step for step in range(1, 11) if schedule.is_due(step, 10)] == [4, 8, 10]


def test_after_so_much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(0, 100)  # each look at the clock comes 100 s after the one before
    monkeypatch.setattr(loop_checkpoints.time, "monotonic", lambda: next(clock))
    schedule = SaveSchedule("5m")  # made at 0 s
    # Looks at 100, 200, 300 (due, and then 400 is the start of the next wait), 500, 600, 700 (due).
    assert [step for step in range(1, 8) if schedule.is_due(step, 99)] == [3, 6]
    assert schedule.is_due(99, 99)


@pytest.mark.parametrize("wrong", ["soon", "0s", 0, "10"])
def test_what_is_neither_steps_nor_a_time_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError):
        TrainConfig(save_every=wrong)  # type: ignore[arg-type]
    assert TrainConfig(save_every="15m").save_every == "15m"
