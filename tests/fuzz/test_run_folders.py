"""results.json and run folders with a file changed: refused in one line, or read as what they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from domainclip.evaluation import contamination
from domainclip.hub.upload import push
from domainclip.models.loading import load_model
from domainclip.report import results_file
from domainclip.report.model_card import CardFacts, render, run_recipe
from domainclip.training.checkpointing import checkpoint, resume
from tests.fuzz import documents
from tests.fuzz.oracle import Room
from tests.fuzz.tables import edited_bytes
from tests.support.run_folders import made_run, recipe, results

MakeRoom = Callable[[str], Room]
_NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 0.5, 1e308, 1e400, float("nan"), 10**400, True, None, "", "1", [], {}, [1], {"a": 1}]
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in JSON."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in inside for place in _places(inner, (*path, key)))]


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at the path; Ellipsis leaves it out."""
    if not path:
        return new
    copy = list(value) if isinstance(value, list) else dict(value)
    if new is ... and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = _with(copy[path[0]], path[1:], new)
    return copy


def _changed_json(text: str) -> st.SearchStrategy[bytes]:
    """JSON with one value changed or left out, or with some bytes changed."""
    data = json.loads(text)
    new = (
        _NUMBERS
        | documents.SCALARS.map(lambda value: str(value) if isinstance(value, bytes) else value)
        | st.just(...)
    )
    changed = st.tuples(st.sampled_from(_places(data)[1:]), new).map(lambda change: _with(data, *change))
    return changed.map(_as_json) | documents.edited(text) | edited_bytes(text.encode())


def _as_json(data: Any) -> bytes:
    try:
        return json.dumps(data).encode("utf-8", "replace")
    except ValueError:  # Python refuses to print integers of thousands of digits
        return b"1" * 5000


def test_results(room: MakeRoom) -> None:
    here = room("results.json")
    text = results().model_dump_json(indent=1)
    run = Path("run")
    run.mkdir()
    (run / "recipe.yaml").write_text(recipe("lab/base").resolved())
    file = run / "results.json"

    @here.each(0.05, data=_changed_json(text))
    def _(data: bytes) -> None:
        file.write_bytes(data)
        here.observe(lambda: render(results_file.load(file), CardFacts.of(run), adapter=True), data)


def _checkpoint(folder: Path) -> None:
    groups = {"weights": {"a": torch.ones(4, 3)}, "moments": {"b": torch.zeros(2)}}
    identity = {"recipe": {"seed": 1}, "corpus": "c" * 64, "base": "b" * 64, "curated": "d" * 64}
    for step in (10, 20):
        checkpoint.save(folder / "checkpoints", step, groups, {"step": step, "identity": identity}, keep=2)


def test_checkpoints(room: MakeRoom) -> None:
    here = room("checkpoints")
    whole = Path("whole")
    _checkpoint(whole)
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    identity = {"recipe": {"seed": 1}, "corpus": "c" * 64, "base": "b" * 64, "curated": "d" * 64}

    @here.each(0.02, change=_changed_files(whole, files))
    def _(change: dict[Path, bytes | None]) -> None:
        run = _copy(whole, Path("run"), change)
        found = here.observe(lambda: resume.find_checkpoint(run, identity), change)
        if found is None:
            return
        damaged = [
            file for file in change if file.parts[1] == found.name and file.name != checkpoint.MANIFEST
        ]
        here.require(not damaged, "silent loss", "a damaged checkpoint is used", change)


def _changed_files(whole: Path, files: list[Path]) -> st.SearchStrategy[dict[Path, bytes | None]]:
    """One or two files with other bytes, or none (None: the file is gone)."""

    def change(file: Path) -> st.SearchStrategy[tuple[Path, bytes | None]]:
        data = (whole / file).read_bytes()
        forms: list[st.SearchStrategy[bytes | None]] = [
            edited_bytes(data),
            st.just(None),
            st.just(b""),
            st.just(b"{}"),
        ]
        if file.suffix == ".json":
            forms += [_changed_json(data.decode())] * 4
        return st.one_of(forms).map(lambda new: (file, new)).filter(lambda pair: pair[1] != data)

    return st.lists(st.sampled_from(files).flatmap(change), min_size=1, max_size=2).map(dict)


def _copy(whole: Path, run: Path, change: dict[Path, bytes | None]) -> Path:
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(whole, run)
    for file, data in change.items():
        if data is None:
            (run / file).unlink()
        else:
            (run / file).write_bytes(data)
    return run


def test_run_folders(room: MakeRoom, tmp_path: Path) -> None:
    here = room("run folders")
    whole = made_run(tmp_path / "whole")
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    reads: list[Callable[[Path], Any]] = [
        lambda run: load_model(run / "model"),
        lambda run: load_model(run),
        lambda run: run_recipe(run),
        lambda run: contamination.load(str(run)),
        lambda run: push(run, "lab/clip", dry_run=True),
    ]

    @here.each(0.002, change=_changed_files(whole, files), which=st.sampled_from([0, 0, 1, 2, 3, 4, 4]))
    def _(change: dict[Path, bytes | None], which: int) -> None:
        run = _copy(whole, tmp_path / "run", change)
        here.observe(lambda: reads[which](run), (which, change))
