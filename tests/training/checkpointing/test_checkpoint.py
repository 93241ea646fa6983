"""A checkpoint is complete or it is none, and the last good one is never at risk."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from domainclip.errors import ExitCode, ModelError
from domainclip.training.checkpointing import checkpoint

GROUPS = {"weights": {"a": torch.arange(6.0).reshape(2, 3)}, "optimizer": {"a:step": torch.tensor(3.0)}}


def _save(folder: Path, step: int, keep: int = 2) -> Path:
    return checkpoint.save(folder, step, GROUPS, {"step": step}, keep)


def test_round_trip(tmp_path: Path) -> None:
    path = _save(tmp_path, 3)
    groups, state = checkpoint.load(path)
    assert state == {"step": 3}
    assert torch.equal(groups["weights"]["a"], GROUPS["weights"]["a"])
    assert torch.equal(groups["optimizer"]["a:step"], torch.tensor(3.0))
    assert sorted(file.name for file in path.iterdir()) == [
        "MANIFEST.json",
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]


def test_pruned_after_the_new_one_stands(tmp_path: Path) -> None:
    for step in (1, 2, 10, 1_000_000):
        _save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000010", "step-1000000"]
    assert checkpoint.newest_checkpoint(tmp_path) == tmp_path / "step-1000000"


def test_a_damaged_later_one_does_not_push_out_what_was_just_saved(tmp_path: Path) -> None:
    _save(tmp_path, 20)
    (_save(tmp_path, 30) / "state.json").unlink()
    assert (
        checkpoint.newest_checkpoint(tmp_path) == tmp_path / "step-000020"
    )  # a run goes on from it, and is stopped
    _save(tmp_path, 25, keep=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000025", "step-000030"]
    assert checkpoint.newest_checkpoint(tmp_path) == tmp_path / "step-000025"


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_one_flipped_byte_falls_back(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Fault 8."""
    older, newer = _save(tmp_path, 1), _save(tmp_path, 2)
    damaged = newer / name
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(bytes(data))
    assert checkpoint.newest_checkpoint(tmp_path) == older
    assert caplog.messages == [
        f"{newer} is not complete: {name} has changed since it was written; trying the previous one"
    ]


@pytest.mark.parametrize(
    "manifest", ["{}", "[]", "null", '{"state.json": 1}', '{"state.json": {"size": 1}}', "[" * 100_000]
)
def test_a_manifest_of_another_form_or_without_a_file_is_no_manifest(tmp_path: Path, manifest: str) -> None:
    path = _save(tmp_path, 1)
    (path / "MANIFEST.json").write_text(manifest)
    assert checkpoint.newest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json", "MANIFEST.json"])
def test_missing_file_falls_back(tmp_path: Path, name: str) -> None:
    """Fault 8."""
    older, newer = _save(tmp_path, 1), _save(tmp_path, 2)
    (newer / name).unlink()
    assert checkpoint.newest_checkpoint(tmp_path) == older


def test_nothing_complete(tmp_path: Path) -> None:
    assert checkpoint.newest_checkpoint(tmp_path) is None
    (tmp_path / ".staging-000001-abc").mkdir()
    assert checkpoint.newest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("call", ["save_file", "_flush", "rename"])
def test_full_disk_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Fault 6."""
    older = _save(tmp_path, 1, keep=1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os if call == "rename" else checkpoint, call, full)
    with pytest.raises(ModelError) as caught:
        _save(tmp_path, 2, keep=1)
    assert str(caught.value) == (
        f"{tmp_path}: cannot save step 2: the disk is full; the last complete checkpoint is step-000001; "
        "make room, then continue with --resume"
    )
    assert caught.value.code == ExitCode.MODEL == 4
    monkeypatch.undo()
    assert checkpoint.newest_checkpoint(tmp_path) == older
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


def test_leftovers_of_a_kill_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".staging-000002-dead").mkdir(parents=True)
    _save(tmp_path, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]


def test_a_damaged_checkpoint_is_written_again(tmp_path: Path) -> None:
    path = _save(tmp_path, 1)
    (path / "state.json").write_text("{}")
    assert checkpoint.newest_checkpoint(tmp_path) is None
    _save(tmp_path, 1)
    assert checkpoint.newest_checkpoint(tmp_path) == path
    assert json.loads((path / "state.json").read_text()) == {"step": 1}


def test_saving_behind_training_writes_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, gate = torch.zeros(3), threading.Event()
    plain = checkpoint.save_file

    def slowly(*arguments: Any, **options: Any) -> None:
        assert gate.wait(30)
        plain(*arguments, **options)

    monkeypatch.setattr(checkpoint, "save_file", slowly)
    saver = checkpoint.AsyncCheckpointWriter()
    saver.save(tmp_path, 1, {"weights": {"w": weight}}, {"step": 1}, keep=2)
    weight += 7  # training goes on
    assert checkpoint.newest_checkpoint(tmp_path) is None
    gate.set()
    saver.wait()
    newest = checkpoint.newest_checkpoint(tmp_path)
    assert newest is not None
    assert checkpoint.load(newest)[0]["weights"]["w"].tolist() == [0, 0, 0]


def test_a_save_that_failed_behind_training_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    saver = checkpoint.AsyncCheckpointWriter()
    saver.save(tmp_path, 1, {"weights": {"w": torch.zeros(3)}}, {"step": 1}, keep=2)
    saver.wait()
    monkeypatch.setattr(checkpoint, "save_file", full)
    saver.save(tmp_path, 2, {"weights": {"w": torch.zeros(3)}}, {"step": 2}, keep=2)
    with pytest.raises(ModelError) as caught:
        saver.save(tmp_path, 3, {"weights": {"w": torch.zeros(3)}}, {"step": 3}, keep=2)
    assert str(caught.value) == (
        f"{tmp_path}: cannot save step 2: the disk is full; the last complete checkpoint is step-000001; make room, "
        "then continue with --resume"
    )
    saver.wait()  # told once


def test_the_best_step_is_spared(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, GROUPS, {"step": step}, keep=1, protected=[2] if step > 1 else [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000004"]
    checkpoint.save(tmp_path, 5, GROUPS, {"step": 5}, keep=1, protected=[5])  # a better one: the old one goes
    assert [path.name for path in tmp_path.iterdir()] == ["step-000005"]


def test_every_file_reaches_the_disk_before_the_folder_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename without a flush can survive a loss of power as a folder of empty files."""
    order: list[str] = []
    fsync, rename = os.fsync, os.rename

    def flush(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        order.append("staging" if path.name.startswith(".staging-") else path.name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "rename", lambda *paths: order.append("rename") or rename(*paths))
    _save(tmp_path, 1)
    files = ["MANIFEST.json", "optimizer.safetensors", "state.json", "weights.safetensors"]
    assert sorted(order[:4]) == files
    assert order[4:] == ["staging", "rename", tmp_path.name]


def test_flushing_leaves_no_file_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    _save(tmp_path, 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_an_error_that_is_no_full_disk_keeps_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(ModelError) as caught:
        _save(tmp_path / "new", 2)
    assert str(caught.value) == (
        f"{tmp_path / 'new'}: cannot save step 2: Read-only file system; there is no complete checkpoint yet; "
        "correct that, then continue with --resume"
    )
    assert list((tmp_path / "new").iterdir()) == []  # the staged folder is gone


def test_a_checkpoint_that_cannot_be_removed_stays_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    older = _save(tmp_path, 1, keep=1)
    remove = checkpoint.shutil.rmtree

    def refuse(path: Path, **options: Any) -> None:
        if path == older:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        remove(path, **options)

    monkeypatch.setattr(checkpoint.shutil, "rmtree", refuse)
    newer = _save(tmp_path, 2, keep=1)
    assert checkpoint.all_checkpoints(tmp_path) == [newer, older]
    assert caplog.messages == [f"could not remove the old checkpoint {older}: Permission denied"]


def test_an_existing_folder_of_the_step_is_replaced_whole(tmp_path: Path) -> None:
    path = _save(tmp_path, 1)
    (path / "stray").write_text("left from before")
    _save(tmp_path, 1)
    assert not (path / "stray").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["step-000001"]


def test_other_folders_are_no_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "step-best").mkdir()
    (tmp_path / "step-000003").write_text("a file")
    assert checkpoint.all_checkpoints(tmp_path) == []
    assert checkpoint.verify_checkpoint(tmp_path / "step-best") == "MANIFEST.json is missing or unreadable"


def test_a_file_of_another_size_or_content_is_a_fault(tmp_path: Path) -> None:
    path = _save(tmp_path, 1)
    assert checkpoint.verify_checkpoint(path) is None
    (path / "state.json").write_text((path / "state.json").read_text() + " ")
    assert checkpoint.verify_checkpoint(path) == "state.json has changed since it was written"
    (path / "state.json").unlink()
    assert checkpoint.verify_checkpoint(path) == "state.json is missing"


def test_the_end_of_the_loop_waits_for_a_save_in_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, plain = threading.Event(), checkpoint.save_file

    def slowly(*arguments: Any, **options: Any) -> None:
        assert gate.wait(30)
        plain(*arguments, **options)

    monkeypatch.setattr(checkpoint, "save_file", slowly)
    with checkpoint.AsyncCheckpointWriter() as writer:
        writer.save(tmp_path, 1, GROUPS, {"step": 1}, keep=1)
        threading.Timer(0.1, gate.set).start()
    assert checkpoint.newest_checkpoint(tmp_path) == tmp_path / "step-000001"
    with checkpoint.AsyncCheckpointWriter() as idle:  # nothing to wait for
        idle.wait()


def test_copies_are_not_copied_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first process has gathered the shards of all, that copy is written."""
    saved: list[Any] = []
    monkeypatch.setattr(checkpoint, "save", lambda _, __, groups, *___: saved.append(groups))
    tensors = {"a": torch.ones(2)}
    with checkpoint.AsyncCheckpointWriter() as writer:
        writer.save(tmp_path, 1, {"weights": tensors, "memory": tensors}, {}, keep=1, copied={"weights"})
    assert saved[0]["weights"]["a"] is tensors["a"]
    assert saved[0]["memory"]["a"].data_ptr() != tensors["a"].data_ptr()


def test_the_folder_of_a_first_checkpoint_is_made(tmp_path: Path) -> None:
    assert _save(tmp_path / "run" / "checkpoints", 1).is_dir()


def test_a_file_in_place_of_the_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(
        ModelError, match=r"cannot save step 1: File exists; there is no complete checkpoint yet"
    ):
        _save(tmp_path / "checkpoints", 1)


def test_remains_make_room_before_the_next_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk may be full of them. A file of that name is no obstacle."""
    (tmp_path / ".staging-000001-dead").mkdir()
    (tmp_path / ".staging-000001-file").write_text("")
    plain = checkpoint.save_file

    def look(*arguments: Any, **options: Any) -> None:
        assert not (tmp_path / ".staging-000001-dead").exists()
        plain(*arguments, **options)

    monkeypatch.setattr(checkpoint, "save_file", look)
    assert _save(tmp_path, 2).is_dir()


@pytest.mark.parametrize(
    "error", [SafetensorError("I/O error: No space left on device"), OSError(errno.ENOSPC, "Voll")]
)
def test_a_full_disk_is_recognised_by_its_number_or_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ModelError, match=r"the disk is full; .*; make room, then continue"):
        _save(tmp_path, 2)


def test_all_digits_of_a_step_count(tmp_path: Path) -> None:
    (tmp_path / "step-x00001").mkdir()
    damaged = _save(tmp_path, 2_000_000, keep=9)
    saved = _save(tmp_path, 1_500_000, keep=1)
    assert checkpoint.all_checkpoints(tmp_path) == [damaged, saved]
    best = _save(tmp_path, 1_600_000, keep=9)
    checkpoint.prune(tmp_path, 1, [1_600_000, 500_000])
    assert checkpoint.all_checkpoints(tmp_path) == [damaged, best]


def test_older_ones_than_a_protected_one_are_pruned(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        _save(tmp_path, step, keep=9)
    checkpoint.prune(tmp_path, 1, [2])
    assert [path.name for path in checkpoint.all_checkpoints(tmp_path)] == ["step-000003", "step-000002"]
