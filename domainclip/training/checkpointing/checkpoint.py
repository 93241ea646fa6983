"""Checkpoints: a folder is one only when its manifest verifies, and the last good one is never at risk.

Files are staged on the same filesystem, listed with size and sha256, flushed to the disk, and renamed as
one folder; only then is an older one pruned. Tensors are safetensors, the rest is JSON: nothing to unpickle.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from domainclip.errors import ModelError

log = logging.getLogger("domainclip")
MANIFEST = "MANIFEST.json"
Groups = Mapping[str, Mapping[str, Tensor]]  # one file each, of named tensors


def save(
    folder: Path, step: int, groups: Groups, state: Any, keep: int, spared: Collection[int] = ()
) -> Path:
    """Writes `folder/step-000200` with one safetensors file a group and `state.json`, then prunes.

    Raises: ModelError when the disk is full or refuses; the checkpoints that were there are untouched.
    """
    staging = folder / f".staging-{step:06d}-{uuid.uuid4().hex[:8]}"
    final = folder / f"step-{step:06d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        staging.mkdir()
        for name, tensors in groups.items():
            save_file(
                {key: t.detach().cpu().contiguous() for key, t in tensors.items()},
                staging / f"{name}.safetensors",
            )
        (staging / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        _commit(staging, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise ModelError(_why(error, folder, step)) from None
    prune(folder, keep, spared, step)
    return final


class AsyncCheckpointWriter:
    """Writes checkpoints while training goes on: one at a time, from a copy of the tensors.

    A save that failed is told by the next call, so a full disk still stops the run, one save later.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None

    def save(
        self, folder: Path, step: int, groups: Groups, state: Any, keep: int, spared: Collection[int] = ()
    ) -> None:
        """As the function of this name, in the background.

        Raises: ModelError for the save before this one.
        """
        self.wait()
        copies = {
            name: {key: tensor.detach().to("cpu", copy=True) for key, tensor in tensors.items()}
            for name, tensors in groups.items()
        }

        def work() -> None:
            try:
                save(folder, step, copies, state, keep, spared)
            except BaseException as error:
                self._problem = error

        # Not a daemon: the interpreter waits for it at the end, whatever happens.
        self._thread = threading.Thread(target=work, name="checkpoint")
        self._thread.start()

    def __enter__(self) -> AsyncCheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        # Whatever ends the loop, a save under way is finished; its own fault must not hide another's.
        if self._thread is not None:
            self._thread.join()

    def wait(self) -> None:
        """Until the disk has what was saved last.

        Raises: ModelError when it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem


def _commit(staging: Path, final: Path) -> None:
    listing = {
        file.name: {"size": file.stat().st_size, "sha256": _sha256(file)}
        for file in sorted(staging.iterdir())
    }
    (staging / MANIFEST).write_text(json.dumps(listing, indent=1), encoding="utf-8")
    for file in staging.iterdir():
        _flush(file)
    _flush(staging)
    if final.exists():  # a damaged one that a resumed run passed over, or the very step it started from
        os.rename(final, final.parent / f".staging-old-{uuid.uuid4().hex[:8]}")
    os.rename(staging, final)
    _flush(final.parent)
    sweep(final.parent)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint; a damaged one is named, left alone and passed over."""
    for path in all_checkpoints(folder):
        problem = verify_checkpoint(path)
        if problem is None:
            return path
        log.warning("%s is not complete: %s; trying the one before", path, problem)
    return None


def verify_checkpoint(path: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    try:
        listing = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{MANIFEST} is missing or unreadable"
    for name, facts in listing.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != facts["size"] or _sha256(file) != facts["sha256"]:
            return f"{name} has changed since it was written"
    return None


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], Any]:
    """The groups of tensors and the state of a verified checkpoint."""
    groups = {file.stem: load_file(file) for file in path.glob("*.safetensors")}
    return groups, json.loads((path / "state.json").read_text(encoding="utf-8"))


def prune(folder: Path, keep: int, spared: Collection[int] = (), newest: int | None = None) -> None:
    """Removes all but the newest `keep` and the `spared` steps; what cannot be removed is said, and stays.

    What lies after the step `newest`, which was just saved, is damaged, or the run would go on from there.
    """
    found = [path for path in all_checkpoints(folder) if newest is None or int(path.name[5:]) <= newest]
    for path in found[keep:]:
        if int(path.name[5:]) in spared:
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:
            log.warning("could not remove the old checkpoint %s: %s", path, error.strerror)


def sweep(folder: Path) -> None:
    """Removes what an interrupted save left behind."""
    for path in folder.glob(".staging-*"):
        shutil.rmtree(path, ignore_errors=True)


def all_checkpoints(folder: Path) -> list[Path]:
    """All that look like checkpoints, the newest first."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]), reverse=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _why(error: Exception, folder: Path, step: int) -> str:
    last = newest_checkpoint(folder)
    safe = f"the last complete checkpoint is {last.name}" if last else "there is no complete checkpoint yet"
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    reason = "the disk is full" if full else (getattr(error, "strerror", None) or str(error))
    way_out = "make room" if full else "mend that"
    return f"{folder}: cannot save step {step}: {reason}; {safe}; {way_out}, then continue with --resume"
