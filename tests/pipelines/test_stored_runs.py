"""Run folders in an object store: uploaded after a checkpoint, resumed and read on another machine."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from typer.testing import CliRunner

from domainclip.cli.app import app
from domainclip.data.files import object_stores
from domainclip.errors import ModelError, RecipeError
from domainclip.pipelines import stored_runs
from domainclip.pipelines.stored_runs import StoredRun
from domainclip.training.checkpointing import checkpoint
from domainclip.training.run_context import RunOptions

ADDRESS = "memory://bucket/runs/a"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(object_stores.STORES, "memory", ("fsspec", "s3"))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()


def _run() -> StoredRun:
    run = stored_runs.stored_run(ADDRESS)
    assert run is not None
    return run


def _save(run: StoredRun, step: int, keep: int = 2) -> None:
    with checkpoint.AsyncCheckpointWriter(run.upload_checkpoint) as writer:
        groups = {"weights": {"w": torch.full((3,), float(step))}}
        writer.save(run.folder / "checkpoints", step, groups, {"step": step}, keep)
        writer.wait()


def _steps(run: StoredRun) -> list[str]:
    return sorted({name.split("/")[1] for name in run.stored.names() if name.startswith("checkpoints/")})


def test_a_run_goes_on_where_another_machine_stopped(store: Any) -> None:
    run = _run()
    stored_runs.begin(run, resume=False)
    run.folder.mkdir(parents=True)
    (run.folder / "recipe.yaml").write_text("name: a")
    (run.folder / ".lock").write_text("private")
    for step in (1, 2, 3):
        _save(run, step)
    assert _steps(run) == ["step-000002", "step-000003"]  # pruned there as here
    assert not [name for name in run.stored.names() if ".lock" in name]
    # A save whose upload was cut off: the manifest is missing.
    store.rm_file("/bucket/runs/a/checkpoints/step-000003/MANIFEST.json")
    shutil.rmtree(run.folder)  # another machine
    other = _run()
    stored_runs.begin(other, resume=True)
    assert (other.folder / "recipe.yaml").read_text() == "name: a"
    newest = checkpoint.newest_checkpoint(other.folder / "checkpoints")
    assert newest is not None
    assert newest.name == "step-000002"
    assert checkpoint.load(newest)[0]["weights"]["w"].tolist() == [2.0] * 3
    with pytest.raises(RecipeError, match="holds a run already; continue it with --resume"):
        stored_runs.begin(other, resume=False)


def test_the_manifest_is_the_last_file_of_a_checkpoint(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, order = _run(), list[str]()
    put = type(store).put_file

    def noted(self: Any, local: str, remote: str, **more: Any) -> Any:
        order.append(Path(remote).name)
        return put(self, local, remote, **more)

    monkeypatch.setattr(type(store), "put_file", noted)
    _save(run, 1)
    assert order == ["state.json", "weights.safetensors", "MANIFEST.json"]
    _save(run, 2)
    assert order.count("MANIFEST.json") == 2  # an unchanged file is uploaded once


def test_a_store_that_does_not_answer_stops_no_training(
    store: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def dead(self: Any, *_: Any, **__: Any) -> None:
        raise RuntimeError("the key AKIA is wrong")

    run = _run()
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(type(store), "put_file", dead)
        _save(run, 1)
        assert (
            f"{ADDRESS}: not uploaded yet: the store did not answer after 5 attempts (RuntimeError)"
            in caplog.text
        )
        assert "AKIA" not in caplog.text
        with pytest.raises(ModelError, match=r"--run-dir: memory://bucket/runs/a: not uploaded"):
            run.upload_all()
    run.upload_all()
    assert _steps(run) == ["step-000001"]


def test_commands_read_a_run_from_its_address(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.pipe("/bucket/runs/a/recipe.yaml", b"name: a")
    store.pipe("/bucket/runs/a/model/config.json", json.dumps({}).encode())
    store.pipe("/bucket/runs/a/checkpoints/step-000001/MANIFEST.json", b"{}")
    folder = Path(stored_runs.fetched(ADDRESS))
    assert sorted(file.name for file in folder.rglob("*") if file.is_file()) == ["config.json", "recipe.yaml"]
    assert stored_runs.fetched(str(tmp_path)) == str(tmp_path)
    with pytest.raises(ModelError, match="memory://bucket/none: no run lies there"):
        stored_runs.fetched("memory://bucket/none")
    from domainclip.hub import upload

    pushed: list[Any] = []

    def push(run: Path, *_: Any, **__: Any) -> None:
        pushed.append(run)
        raise ModelError("nothing is pushed here")

    monkeypatch.setattr(upload, "push", push)
    result = CliRunner().invoke(app, ["push", ADDRESS, "--repo-id", "a/b"])
    assert pushed == [folder], result.output


def test_finetune_writes_to_an_address(
    store: Any, recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from domainclip.pipelines import finetune as pipelines_finetune

    asked: list[RunOptions] = []
    monkeypatch.setattr(pipelines_finetune, "finetune", lambda recipe, options: asked.append(options))
    words = ["finetune", "-r", str(recipe_file), "--run-dir", ADDRESS]
    CliRunner().invoke(app, words, catch_exceptions=False)
    assert (asked[0].address, asked[0].folder) == (ADDRESS, _run().folder)
    assert asked[0].after_save is not None
    refused = CliRunner().invoke(app, [*words, "--slurm", "local"])
    assert "--slurm needs a folder on a disk" in str(refused.exception)
    several = CliRunner().invoke(app, [*words, "train.seeds=2"])
    assert "train.seeds needs a folder of this machine" in str(several.exception)
