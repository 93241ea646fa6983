"""A corpus prepared in parts: the bytes of one process, and no part forgotten."""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from domainclip.cli.app import app
from domainclip.data.images.reencode import Reencoder
from domainclip.distributed.folder_lock import FolderLock
from domainclip.errors import DataError, RecipeError
from domainclip.pipelines import prepare_parts
from domainclip.pipelines.data_prepare import write_prepared_corpus
from domainclip.pipelines.parts import Part, parse_part
from domainclip.pipelines.prepared_shards import PrepareRequest
from tests.pipelines.test_data_prepare import _bytes, _card, _corpus

WHOLE = PrepareRequest(Reencoder(16), items=5)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _corpus(tmp_path_factory.mktemp("parts") / "source", broken=(4,))


def _prepare(source: Path, out: Path, **changes: Any) -> list[str]:
    lines: list[str] = []
    write_prepared_corpus(_card(), str(source), out, replace(WHOLE, **changes), 1, lines.append)
    return lines


def test_parts_give_the_bytes_of_one_process(source: Path, tmp_path: Path) -> None:
    _prepare(source, tmp_path / "whole")
    out = tmp_path / "parts"
    for number in (2, 3, 1):  # in any order
        lines = _prepare(source, out, part=Part(number, 3))
        assert lines[-1].startswith(f"part {number}/3: ")
        assert not (out / "manifest.json").exists()
    _prepare(source, out, join=True)
    assert _bytes(out) == _bytes(tmp_path / "whole")
    assert _prepare(source, out, part=Part(1, 3)) == [f"{out} is prepared already"]


def test_a_join_names_the_parts_that_are_missing(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="--join: no part was written"):
        _prepare(source, out, join=True)
    _prepare(source, out, part=Part(2, 3))
    with pytest.raises(DataError, match=r"--join: \d shards are missing, of parts 1/3, 3/3: run them again"):
        _prepare(source, out, join=True)
    with pytest.raises(DataError, match=r"was begun in 3 parts, not 4: use --part i/3"):
        _prepare(source, out, part=Part(4, 4))
    _prepare(source, out, part=Part(1, 3))
    _prepare(source, out, part=Part(3, 3))
    lost = min(out.glob("train-*.tar"))
    lost.unlink()
    with pytest.raises(DataError, match=r"--join: 1 shards are missing, of part 1/3: run it again"):
        _prepare(source, out, join=True)


def test_parts_run_at_once_but_not_beside_a_whole_run(tmp_path: Path) -> None:
    notes = ".progress"
    with prepare_parts.locked_output(tmp_path, notes, Part(1, 2)):
        with prepare_parts.locked_output(tmp_path, notes, Part(2, 2)):
            pass
        with pytest.raises(DataError, match="writes there"):
            prepare_parts.locked_output(tmp_path, notes, None).__enter__()
    with (
        prepare_parts.locked_output(tmp_path, notes, None),
        pytest.raises(DataError, match="writes there"),
    ):
        prepare_parts.locked_output(tmp_path, notes, Part(1, 2)).__enter__()


def test_a_disk_without_locks_on_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with prepare_parts.locked_output(tmp_path, ".progress", None):
        assert (tmp_path / ".progress" / ".lock").exists()
        with pytest.raises(RecipeError, match="in use by process"):
            FolderLock(tmp_path / ".progress").acquire()
    assert not (tmp_path / ".progress").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "-1/2", "1/2/3", "a/b", ""])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(RecipeError, match="--part: not a part: write --part 1/8 to --part 8/8"):
        parse_part(text)


def test_wrong_options_are_refused_before_the_corpus_is_read(tmp_path: Path) -> None:
    command = ["data", "prepare", str(tmp_path / "out"), "-c", "image_caption_csv", "corpus.path=no"]
    for words, line in (
        (["--part", "9/8"], "not a part"),
        (["--part", "1/2", "--join"], "--part and --join"),
    ):
        result = CliRunner().invoke(app, [*command, *words])
        assert line in str(result.exception)
    assert not (tmp_path / "out").exists()
