"""The lock on a run folder: one writer, any number of readers, and no lock that outlives its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import SoftFileLease

from domainclip.distributed import folder_lock
from domainclip.distributed.folder_lock import FILE, FolderLock, locked_folder, refuse_if_in_use
from domainclip.errors import RecipeError

_HOLDER = """
import sys, time
from pathlib import Path
from domainclip.distributed.folder_lock import FolderLock
lock = FolderLock(Path(sys.argv[1])).acquire()
print("locked", flush=True)
time.sleep(60)
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_second_command_is_refused_and_a_killed_one_is_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with holder(folder) as process:
        line = f"{folder}: in use by process {process.pid} on {os.uname().nodename}: wait until that has ended, or end it"
        for use in (lambda: FolderLock(folder).acquire(), lambda: refuse_if_in_use(folder)):
            with pytest.raises(RecipeError) as caught:
                use()
            assert str(caught.value) == line
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (folder / FILE).exists()
        started = time.monotonic()
        refuse_if_in_use(folder)
        with locked_folder(folder):
            pass
        assert time.monotonic() - started < 5
    assert not folder.exists() or not (folder / FILE).exists()


def test_the_number_of_an_ended_process_given_to_another(tmp_path: Path) -> None:
    """Process ids are used again: the start of the process tells them apart."""
    lock = FolderLock(tmp_path).acquire()
    content = (tmp_path / FILE).read_text()
    start = next(line for line in content.splitlines() if line.startswith("start="))
    (tmp_path / FILE).write_text(content.replace(start, f"start={int(start[6:]) + 1}"))
    with locked_folder(tmp_path):
        assert (tmp_path / FILE).read_text() != content
    lock.release()


def test_a_lock_of_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Taken over when nobody renews it; refused while somebody does."""
    monkeypatch.setattr(folder_lock, "_LEASE_SECONDS", 0.6)

    def of_other_machine(folder: Path) -> SoftFileLease:
        lease = SoftFileLease(folder / FILE, lease_duration=0.6, heartbeat_interval=0.1, thread_local=False)
        lease.acquire()
        return lease

    name = os.uname().nodename
    content_of = {}
    for place in ("gone", "alive"):
        (tmp_path / place).mkdir()
        lease = of_other_machine(tmp_path / place)
        content_of[place] = (tmp_path / place / FILE).read_text()
        lease.release()
    file = tmp_path / "gone" / FILE
    file.write_text(content_of["gone"].replace(f"host={name}", "host=node07"))
    with locked_folder(tmp_path / "gone"):
        assert f"host={name}" in file.read_text()
    assert "process" in caplog.text
    assert "node07" in caplog.text
    file = tmp_path / "alive" / FILE
    file.write_text(content_of["alive"].replace(f"host={name}", "host=node07"))
    renewing = subprocess.Popen(
        [sys.executable, "-c", f"import os, time\nwhile True: os.utime({str(file)!r}); time.sleep(0.05)"]
    )
    try:
        with pytest.raises(RecipeError, match=r"in use by process \d+ on node07"):
            FolderLock(tmp_path / "alive").acquire()
    finally:
        renewing.kill()
        renewing.wait()


def test_what_was_made_for_the_lock_alone_is_removed(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "runs" / "a"):
        assert (tmp_path / "runs" / "a" / FILE).exists()
    assert not (tmp_path / "runs").exists()
    (tmp_path / "mine").mkdir()
    with locked_folder(tmp_path / "mine"):
        pass
    assert list((tmp_path / "mine").iterdir()) == []
    with locked_folder(tmp_path / "run"):
        (tmp_path / "run" / "file").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecipeError) as caught, locked_folder(tmp_path / "file", "name another with --out"):
        pass
    assert (
        str(caught.value) == f"{tmp_path / 'file'}: cannot be written: File exists: name another with --out"
    )
    refuse_if_in_use(tmp_path / "file")
    refuse_if_in_use(tmp_path / "none")
