"""Run folders in an object store: a copy on this machine is written, and uploaded after each checkpoint."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from domainclip import disk_cache
from domainclip.data.files import object_stores
from domainclip.data.files.stored_folders import StoredFolder
from domainclip.errors import ModelError, RecipeError

log = logging.getLogger("domainclip")
_KEY = "--run-dir"


@dataclass(frozen=True)
class StoredRun:
    """A run in a store, and its copy."""

    stored: StoredFolder

    @property
    def address(self) -> str:
        """Return the address of the run."""
        return self.stored.address

    @property
    def folder(self) -> Path:
        """Return the folder of the copy."""
        return self.stored.copy

    def upload_checkpoint(self) -> None:
        """Upload what has changed; a store that does not answer is a warning: the next save does it."""
        try:
            self.stored.upload()
        except OSError as error:
            log.warning(
                "%s: not uploaded yet: %s; the checkpoint lies in %s", self.address, error, self.folder
            )

    def upload_all(self) -> None:
        """Upload what has changed.

        Raises: ModelError when the store does not answer.
        """
        try:
            self.stored.upload()
        except OSError as error:
            raise ModelError(
                f"{_KEY}: {self.address}: not uploaded: {error}; the run lies in {self.folder}: continue it "
                "with --resume and the same --run-dir"
            ) from None


def stored_run(address: str, key: str = _KEY) -> StoredRun | None:
    """The run of an address in a store; None for a folder of this machine.

    Raises: RecipeError or HubError for an address that cannot be used.
    """
    if not object_stores.scheme_of(address):
        return None
    object_stores.check_address(address, key)
    copy = disk_cache.root() / "runs" / disk_cache.key("run", address.rstrip("/"))
    return StoredRun(StoredFolder(address, copy))


def begin(run: StoredRun, resume: bool) -> None:
    """Fetch a run to resume, or refuse to begin one where there is one.

    Raises: RecipeError; ModelError when the store does not answer.
    """
    try:
        if resume:
            run.stored.fetch(checkpoints=True)
        elif "recipe.yaml" in run.stored.names():
            raise RecipeError(
                f"{run.address}: holds a run already; continue it with --resume or name another --run-dir"
            )
    except OSError as error:
        raise ModelError(f"{_KEY}: {run.address}: {error}") from None


def fetched(name: str) -> str:
    """The local folder of a run that a command reads, fetched from a store; another name as it is.

    Raises: RecipeError or HubError for an address that cannot be used; ModelError for one without a run.
    """
    run = stored_run(name, "run")
    if run is None:
        return name
    try:
        run.stored.fetch(checkpoints=False)
    except OSError as error:
        raise ModelError(f"{name}: {error}") from None
    if not (run.folder / "recipe.yaml").is_file():
        raise ModelError(f"{name}: no run lies there: name its folder, as s3://bucket/runs/medical_xray-1")
    return str(run.folder)
