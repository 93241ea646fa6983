"""A server of the protocol of S3, by moto: shards are streamed from it, and a run folder lies in it."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from domainclip.errors import DataError
from domainclip.pipelines import stored_runs
from tests.data.files.test_object_stores import _rows, _streamed
from tests.data.made_shards import shards
from tests.pipelines.test_stored_runs import _save

server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The file system of a server with one empty bucket, which any process finds by its environment."""
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    running = server.ThreadedMotoServer(port=0)
    running.start()
    address = f"http://127.0.0.1:{running.get_host_and_port()[1]}"
    urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST")).close()
    for name, value in (
        ("AWS_ENDPOINT_URL", address),
        ("AWS_ACCESS_KEY_ID", "AKIA-test"),
        ("AWS_SECRET_ACCESS_KEY", "secret-of-the-test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.mkdir("lab")
    yield files
    running.stop()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_shards_are_streamed_as_from_the_disk(bucket: Any, tmp_path: Path) -> None:
    folder = shards(tmp_path / "s", [3, 2])
    for file in folder.glob("*.tar"):
        bucket.pipe(f"lab/s/{file.name}", file.read_bytes())
    local = _streamed(folder)
    for path in ("s3://lab/s", "s3://lab/s/train-{000..001}.tar"):
        remote = _streamed(path)
        assert remote.stream is not None
        assert local.stream is not None
        assert _rows(remote) == _rows(local)
        assert remote.stream.fingerprint() == local.stream.fingerprint()


def test_a_run_goes_on_from_its_address(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stored_runs.stored_run("s3://lab/runs/a")
    assert run is not None
    stored_runs.begin(run, resume=False)
    run.folder.mkdir(parents=True)
    (run.folder / "recipe.yaml").write_text("name: a")
    for step in (1, 2, 3):
        _save(run, step)
    names = {name.removeprefix("lab/runs/a/").split("/")[1] for name in bucket.find("lab/runs/a/checkpoints")}
    assert names >= {"step-000002", "step-000003"}
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "another-machine"))
    other = stored_runs.stored_run("s3://lab/runs/a")
    assert other is not None
    assert other.folder != run.folder
    stored_runs.begin(other, resume=True)
    assert (other.folder / "recipe.yaml").read_text() == "name: a"
    manifest = json.loads((other.folder / "checkpoints" / "step-000003" / "MANIFEST.json").read_text())
    assert manifest


def test_a_missing_bucket_is_one_line_without_a_key(bucket: Any) -> None:
    with pytest.raises(DataError) as error:
        _streamed("s3://nowhere/s")
    assert "secret-of-the-test" not in str(error.value)
    assert "\n" not in str(error.value)
