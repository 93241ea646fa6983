"""Durations as people write them."""

from __future__ import annotations

import pytest

from domainclip.config.durations import seconds


@pytest.mark.parametrize(
    ("text", "expected"), [("45s", 45), ("90m", 5400), ("3h50m", 13800), ("1d12h", 129600), ("1h0m5s", 3605)]
)
def test_durations(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "3", "3h 50m", "h", "3x", "-3h", "3h50"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration") as caught:
        seconds(text)
    assert str(caught.value) == f'"{text}" is not a duration: write it as 3h50m, 90m or 1d12h'
