"""A lock on a folder, so that two commands do not write into one run.

The lock is a file in the folder with the process id, its start and its host; while it is held, its time is
renewed. When the process has ended on this machine, the lock is taken over at once. A process on another
machine cannot be looked up: its lock is taken over when it has not been renewed for a minute.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname

from filelock import SoftFileLease, Timeout

from domainclip.errors import RecipeError

log = logging.getLogger("domainclip")
FILE = ".lock"
_LEASE_SECONDS = 60.0


class FolderLock:
    """The lock on one folder, held from `acquire` to `release` by this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lease = SoftFileLease(folder / FILE, lease_duration=_LEASE_SECONDS, thread_local=False)
        self._made: list[Path] = []

    def acquire(self, *, new: bool = False) -> FolderLock:
        """Make the folder where there is none, and lock it.

        Raises: RecipeError naming the process that holds it; OSError when the folder cannot be written, or
        exists although it should be `new`.
        """
        missing = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
        self._folder.mkdir(parents=True, exist_ok=not new)
        self._made = missing
        try:
            self._lease.acquire(timeout=0)
        except Timeout:
            self._wait_for_other_machine()
        return self

    def _wait_for_other_machine(self) -> None:
        pid, host = self._owner()
        if host != gethostname():
            log.warning(
                "%s: process %s on %s has locked it; waiting up to %.0f s for a sign of it",
                *(self._folder, pid, host, 1.5 * _LEASE_SECONDS),
            )
            with suppress(Timeout):
                self._lease.acquire(timeout=1.5 * _LEASE_SECONDS)
                return
        raise RecipeError(
            f"{self._folder}: in use by process {pid} on {host}: wait until that has ended, or end it"
        )

    def _owner(self) -> tuple[str, str]:
        owner = self._lease.owner
        # The library appends the namespace of a container's process ids to the name of the host.
        return (
            ("unknown", "an unknown host")
            if owner is None
            else (str(owner.pid), owner.hostname.split("?")[0])
        )

    def release(self) -> None:
        """Unlock the folder, and remove it if it was made for the lock and nothing was written."""
        self._lease.release()
        with suppress(OSError):  # not empty, as after most commands
            for path in self._made:
                path.rmdir()


@contextmanager
def locked_folder(folder: Path, remedy: str = "name another folder") -> Iterator[None]:
    """Lock a folder for all processes of this command; the first one holds the lock.

    `remedy` ends the message for a folder that cannot be written.

    Raises: RecipeError when another command holds it, or when it cannot be written.
    """
    from domainclip.distributed import collectives  # torch, which a push does not need

    held: list[FolderLock] = []
    collectives.on_first_process(lambda: held.append(_acquire(folder, remedy)))
    try:
        yield
    finally:
        for lock in held:
            lock.release()


def refuse_if_in_use(folder: Path) -> None:
    """For commands that only read a folder, any number of which may run at once.

    Raises: RecipeError when a command that writes the folder is running.
    """
    if not (folder / FILE).exists():
        return
    with suppress(OSError):  # a folder that cannot be written, such as a copy of a killed run
        FolderLock(folder).acquire().release()


def _acquire(folder: Path, remedy: str) -> FolderLock:
    try:
        return FolderLock(folder).acquire()
    except OSError as error:
        raise RecipeError(f"{folder}: cannot be written: {error.strerror}: {remedy}") from None
