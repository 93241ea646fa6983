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
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from domainclip.errors import ModelError
from domainclip.training.checkpointing import sharded_files

log = logging.getLogger("domainclip")
MANIFEST = "MANIFEST.json"
Groups = Mapping[str, Mapping[str, Tensor]]  # one file each, of named tensors


def save(
    folder: Path, step: int, groups: Groups, state: Any, keep: int, protected: Collection[int] = ()
) -> Path:
    """Write `folder/step-000200` with `state.json` and one safetensors file for each group, then prune.

    Raises: ModelError when the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    staging = begin(folder, step)
    with _removed_on_error(staging, step):
        for name, tensors in groups.items():
            save_file(
                {key: t.detach().cpu().contiguous() for key, t in tensors.items()},
                staging / f"{name}.safetensors",
            )
    return commit(staging, step, state, keep, protected)


def begin(folder: Path, step: int) -> Path:
    """Return a new folder beside the checkpoints, for the tensors of one that `commit` then completes.

    Raises: ModelError when the disk is full or cannot be written.
    """
    staging = folder / f".staging-{step:06d}-{uuid.uuid4().hex[:8]}"
    with _removed_on_error(staging, step):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        staging.mkdir()
    return staging


def commit(staging: Path, step: int, state: Any, keep: int, protected: Collection[int] = ()) -> Path:
    """Add `state.json` to a folder of tensors, make it a checkpoint, and prune.

    Raises: ModelError when the disk is full or cannot be written; earlier checkpoints are untouched.
    """
    final = staging.parent / f"step-{step:06d}"
    with _removed_on_error(staging, step):
        (staging / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        _commit(staging, final)
    prune(final.parent, keep, protected, step)
    return final


@contextmanager
def _removed_on_error(staging: Path, step: int) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise ModelError(_save_error(error, staging.parent, step)) from None


class AsyncCheckpointWriter:
    """Writes checkpoints while training goes on: one at a time, from a copy of the tensors.

    The next call raises the error of a save that failed, so a full disk stops the run, one save later.
    """

    def __init__(self, after_save: Callable[[], None] | None = None) -> None:
        """`after_save` is called after each checkpoint, before the next one is begun."""
        self._after_save = after_save
        self._thread: threading.Thread | None = None
        self._problem: BaseException | None = None

    def save(
        self,
        folder: Path,
        step: int,
        groups: Groups,
        state: Any,
        keep: int,
        protected: Collection[int] = (),
        copied: Collection[str] = (),
    ) -> None:
        """Call the function `save` in the background; the tensors of the groups `copied` are copies already.

        Raises: ModelError when the previous checkpoint could not be written.
        """
        self.wait()
        copies = {
            name: {
                key: tensor if name in copied else tensor.detach().to("cpu", copy=True)
                for key, tensor in tensors.items()
            }
            for name, tensors in groups.items()
        }

        def work() -> None:
            try:
                save(folder, step, copies, state, keep, protected)
                if self._after_save is not None:
                    self._after_save()
            except BaseException as error:
                self._problem = error

        # Not a daemon: the interpreter waits for it at the end, whatever happens.
        self._thread = threading.Thread(target=work, name="checkpoint")
        self._thread.start()

    def commit(
        self, staging: Path, step: int, state: Any, keep: int, protected: Collection[int] = ()
    ) -> None:
        """Call the function `commit` at once.

        Raises: ModelError when it cannot be written.
        """
        commit(staging, step, state, keep, protected)
        if self._after_save is not None:
            self._after_save()

    def __enter__(self) -> AsyncCheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        # Whatever ends the loop, a save in progress is finished; its error must not hide another one.
        if self._thread is not None:
            self._thread.join()

    def wait(self) -> None:
        """Wait until the newest checkpoint is on disk.

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
    if final.exists():  # a damaged one that a resumed run skipped, or the one that it started from
        os.rename(final, final.parent / f".staging-old-{uuid.uuid4().hex[:8]}")
    os.rename(staging, final)
    _flush(final.parent)
    sweep(final.parent)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint; damaged ones are skipped with a warning."""
    for path in all_checkpoints(folder):
        problem = verify_checkpoint(path)
        if problem is None:
            return path
        log.warning("%s is not complete: %s; trying the previous one", path, problem)
    return None


def verify_checkpoint(path: Path) -> str | None:
    """Return the fault of a checkpoint, or None when it is complete."""
    try:
        listing = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        written = {name: (facts["size"], facts["sha256"]) for name, facts in listing.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return f"{MANIFEST} is missing or unreadable"
    # `load` reads every file of tensors, so one that is not listed would be read unverified.
    for name in ("state.json", *(file.name for file in path.glob("*.safetensors"))):
        if name not in written:
            return f"{name} is not listed in {MANIFEST}"
    for name, (size, digest) in written.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size or _sha256(file) != digest:
            return f"{name} has changed since it was written"
    return None


def load(path: Path) -> tuple[dict[str, dict[str, Tensor]], Any]:
    """Return the groups of tensors and the state of a verified checkpoint."""
    if sharded_files.has_shards(path):
        return sharded_files.read(path), load_state(path)
    groups = {file.stem: load_file(file) for file in path.glob("*.safetensors")}
    return groups, load_state(path)


def load_group(path: Path, name: str) -> dict[str, Tensor]:
    """Return one group of tensors of a verified checkpoint."""
    if sharded_files.has_shards(path):
        return sharded_files.read(path, name)[name]
    tensors: dict[str, Tensor] = load_file(path / f"{name}.safetensors")
    return tensors


def load_state(path: Path) -> Any:
    """Return the state of a verified checkpoint, without its tensors."""
    return json.loads((path / "state.json").read_text(encoding="utf-8"))


def prune(folder: Path, keep: int, protected: Collection[int] = (), newest: int | None = None) -> None:
    """Remove all but the newest `keep` checkpoints and those of `protected` steps.

    One that cannot be removed stays, with a warning. Checkpoints after the step `newest`, which was just
    saved, are damaged, or the run would have continued from them.
    """
    complete = [path for path in all_checkpoints(folder) if newest is None or int(path.name[5:]) <= newest]
    for path in complete[keep:]:
        if int(path.name[5:]) in protected:
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:
            log.warning("could not remove the old checkpoint %s: %s", path, error.strerror)


def sweep(folder: Path) -> None:
    """Remove the remains of interrupted saves."""
    for path in folder.glob(".staging-*"):
        shutil.rmtree(path, ignore_errors=True)


def all_checkpoints(folder: Path) -> list[Path]:
    """Return the folders that are named as checkpoints, newest first."""
    folders = [path for path in folder.glob("step-*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(folders, key=lambda path: int(path.name[5:]), reverse=True)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _save_error(error: Exception, folder: Path, step: int) -> str:
    last = newest_checkpoint(folder)
    saved = f"the last complete checkpoint is {last.name}" if last else "there is no complete checkpoint yet"
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    reason = "the disk is full" if full else (getattr(error, "strerror", None) or str(error))
    remedy = "make room" if full else "correct that"
    return f"{folder}: cannot save step {step}: {reason}; {saved}; {remedy}, then continue with --resume"
