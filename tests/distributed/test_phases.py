"""A long phase prints lines, a short one none."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from domainclip.distributed import phases


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(phases, "FIRST_SECONDS", 0.02)
    monkeypatch.delenv("RANK", raising=False)
    phases.set_quiet(False)  # a test before this one may have run a quiet command
    yield
    phases.set_quiet(False)


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()]


def _first_lines(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The next lines, as soon as there are any; a busy machine may take its time."""
    end = time.monotonic() + 10
    while not (lines := set(_lines(capsys))) and time.monotonic() < end:
        time.sleep(0.02)
    return lines


def test_the_innermost_phase_is_named_and_then_the_outer_one(capsys: pytest.CaptureFixture[str]) -> None:
    @phases.phase("inner")
    def inner() -> None:
        assert _first_lines(capsys) == {"inner"}

    with phases.phase("outer"):
        inner()
        _lines(capsys)
        assert _first_lines(capsys) == {"outer"}
    time.sleep(0.1)
    assert _lines(capsys) == []


def test_short_and_quiet_phases_print_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with phases.phase("short"):
        pass
    phases.set_quiet(True)
    with phases.phase("quiet"):
        time.sleep(0.08)
    phases.set_quiet(False)
    monkeypatch.setenv("RANK", "1")
    with phases.phase("another process"):
        time.sleep(0.08)
    assert _lines(capsys) == []


def test_an_error_ends_a_phase(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), phases.phase("broken"):
        raise KeyError
    time.sleep(0.08)
    assert _lines(capsys) == []
