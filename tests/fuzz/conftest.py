"""Rooms of the fuzzer, and the table of their counts at the end: `make fuzz` runs them at full size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuzz.oracle import Room

_ROOMS: list[Room] = []
_SIZE = "DOMAINCLIP_FUZZ"


@pytest.fixture
def room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pytestconfig: pytest.Config
) -> Iterator[Callable[[str], Room]]:
    """Make a room; at the end of the test its faults fail it. The working folder is an empty one."""
    monkeypatch.chdir(tmp_path)
    made: list[Room] = []

    def make(name: str) -> Room:
        made.append(Room(name))
        return made[-1]

    yield make
    _ROOMS.extend(made)
    if _SIZE in os.environ:
        _show_progress(pytestconfig, made)
    for one in made:
        one.check()


def _show_progress(config: pytest.Config, rooms: list[Room]) -> None:
    """A line for each room that has ended, past the capture of output: the whole takes most of an hour."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if capture is not None and reporter is not None:
        with capture.global_and_fixture_disabled():
            for one in rooms:
                reporter.write_line(f" {one.name}: {one.inputs} inputs, {len(one.faults)} faults")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table, when the size was asked for, and write it into the page that is named."""
    if _SIZE not in os.environ or not _ROOMS:
        return
    terminalreporter.section("inputs")
    terminalreporter.write_line(table(_ROOMS))
    if page := os.environ.get("DOMAINCLIP_FUZZ_PAGE"):
        text = Path(page).read_text(encoding="utf-8")
        Path(page).write_text(f"{text[: text.index('| room |')]}{table(_ROOMS)}\n", encoding="utf-8")


def table(rooms: list[Room]) -> str:
    """The counts of each room and of all, as a Markdown table."""
    codes = sorted({code for one in rooms for code in one.refused})
    kinds = ("traceback", "silent loss")
    head = ["room", "inputs", "accepted", *(f"exit {code}" for code in codes), "items left out"]
    head += ["tracebacks", "silent losses", "other faults"]
    rows = [[one.name, *map(str, _counts(one, codes, kinds))] for one in rooms]
    sums = [sum(int(row[i]) for row in rows) for i in range(1, len(head))]
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows, ["all", *map(str, sums)]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _counts(room: Room, codes: list[int], kinds: tuple[str, ...]) -> list[int]:
    faults = [sum(f.count for f in room.faults.values() if f.kind == kind) for kind in kinds]
    others = sum(f.count for f in room.faults.values() if f.kind not in kinds)
    refused = [room.refused[code] for code in codes]
    return [room.inputs, room.accepted, *refused, room.quarantined, *faults, others]
