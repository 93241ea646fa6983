"""A push sends exactly the allowed files, byte for byte and to a private repository."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from typer.testing import CliRunner

from domainclip.cli.app import app
from domainclip.hub import upload
from domainclip.hub.allowlist import files_to_push
from domainclip.hub.upload import preview, push
from domainclip.pipelines.export.export import export
from domainclip.pipelines.export.request import make_request
from tests.hub.local_hub import LocalHub
from tests.hub.planted_leaks import CANARIES, TOKEN, fault
from tests.support.run_folders import made_run

# huggingface_hub passes files to its HTTP library in a deprecated way.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
ADAPTER = [
    *("README.md", "adapter_config.json", "adapter_model.safetensors", "calibration.safetensors"),
    *("preprocessor_config.json", "recipe.yaml", "report.html", "report.md", "results.json"),
    *("tokenizer.json", "tokenizer_config.json"),
]


def test_exactly_the_allowed_files_arrive(run: Path, server: LocalHub) -> None:
    """Fault 35."""
    assert push(run, "lab/clip-cxr", message="a first try").url == f"{server.url}/lab/clip-cxr"
    assert sorted(server.files) == ADAPTER
    for file in files_to_push(run, repo_id="lab/clip-cxr"):
        arrived = server.files[file.path]
        assert (len(arrived), hashlib.sha256(arrived).hexdigest()) == (file.size, file.sha256)
    for name in ("adapter_model.safetensors", "calibration.safetensors", "tokenizer.json"):
        assert server.files[name] == (run / "model" / name).read_bytes()
    assert server.commits == ["a first try"]
    created = json.loads(server.requests[0].body)
    assert created == {"name": "clip-cxr", "organization": "lab", "visibility": "private"}
    assert server.private


def test_no_request_contains_private_data(run: Path, server: LocalHub) -> None:
    push(run, "lab/clip-cxr")
    assert len(server.requests) >= 7
    for call in server.requests:
        sent = " ".join([call.path, *call.headers.values()]).encode() + call.body + _decoded(call.body)
        for canary in (*CANARIES, str(run), str(run.parent), str(Path.home())):
            assert canary.encode() not in sent, f"{canary} in {call.method} {call.path}"


def test_the_run_folder_contains_the_canaries(run: Path) -> None:
    """The test above is meaningful only if the run folder contains the canaries."""
    here = b"".join(file.read_bytes() for file in run.rglob("*") if file.is_file())
    here += " ".join(str(file) for file in run.rglob("*")).encode()
    for canary in CANARIES:
        assert canary.encode() in here


def test_the_token_is_only_in_its_header(
    run: Path, server: LocalHub, capfd: pytest.CaptureFixture[str]
) -> None:
    """Fault 35."""
    push(run, "lab/clip-cxr")
    for call in server.requests:
        assert TOKEN.encode() not in call.path.encode() + call.body
        carrying = [name.lower() for name, value in call.headers.items() if TOKEN in value]
        # Weights go to a store at another address, which needs no token.
        assert carrying == ([] if call.path.startswith("/lfs/") else ["authorization"])
    assert TOKEN not in "".join(capfd.readouterr())


def test_a_pushed_model_names_a_public_base(run: Path, server: LocalHub) -> None:
    push(run, "lab/clip-cxr")
    config = json.loads(server.files["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("lab/base-clip", None)
    local = json.loads((run / "model" / "adapter_config.json").read_text())
    assert Path(local["base_model_name_or_path"]).is_dir()  # the run folder is unchanged
    pushed = yaml.safe_load(server.files["recipe.yaml"])
    assert (pushed["base"]["path"], pushed["corpus"]["path"]) == ("lab/base-clip", "(local)")
    assert "command" not in json.loads(server.files["results.json"])["run"]
    assert b'repo = "lab/clip-cxr"' in server.files["README.md"]


def test_a_public_repository_needs_the_option(run: Path, server: LocalHub) -> None:
    server.exists, server.private = True, False
    assert fault(lambda: push(run, "lab/clip-cxr")) == (
        "push to lab/clip-cxr: this repository is public: add --public, or choose another"
    )
    assert server.files == {}
    assert not any("preupload" in call.path for call in server.requests)
    push(run, "lab/clip-cxr", private=False)
    assert sorted(server.files) == ADAPTER


def test_a_second_push_deletes_outdated_files(run: Path, server: LocalHub) -> None:
    server.exists = True
    server.files = {"model.safetensors": b"", "report.md": b"", ".gitattributes": b"", "thanks.txt": b""}
    (run / "report.md").unlink()
    push(run, "lab/clip-cxr")
    assert sorted(server.files) == sorted({*ADAPTER, ".gitattributes", "thanks.txt"} - {"report.md"})


def test_a_dry_run_prints_all_and_sends_no_request(run: Path, server: LocalHub) -> None:
    done = CliRunner().invoke(app, ["push", str(run), "--repo-id", "lab/clip-cxr", "--dry-run"])
    assert (done.exit_code, server.requests) == (0, [])
    files = files_to_push(run, repo_id="lab/clip-cxr")
    ending = f"nothing was uploaded; the repository would be {server.url}/lab/clip-cxr\n"
    assert done.stdout == preview(files, "lab/clip-cxr", private=True) + "\n" + ending
    for file in files:
        assert f"{file.size:>14,}  {file.sha256[:12]}  {file.path}  ({file.why})\n" in done.stdout
    for name in ("README.md", "recipe.yaml", "report.md", "results.json"):
        text = next(file.text for file in files if file.path == name)
        assert f"===== {name} =====\n{text}" in done.stdout
    total = sum(file.size for file in files)
    assert done.stdout.startswith(
        f"lab/clip-cxr (private): {len(ADAPTER)} files, {total:,} bytes would be pushed\n"
    )


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_the_files_as_json(run: Path, server: LocalHub, dry: list[str]) -> None:
    done = CliRunner().invoke(app, ["push", str(run), "--repo-id", "lab/clip-cxr", "--json", *dry])
    data = json.loads(done.stdout)
    assert {key: value for key, value in data.items() if key != "files"} == {
        "schema_version": 1,
        "repo_id": "lab/clip-cxr",
        "url": f"{server.url}/lab/clip-cxr",
        "private": True,
        "uploaded": not dry,
    }
    assert [one["path"] for one in data["files"]] == ADAPTER
    assert sorted(server.files) == ([] if dry else ADAPTER)
    for one in data["files"] if not dry else []:
        arrived = server.files[one["path"]]
        assert (one["bytes"], one["sha256"]) == (len(arrived), hashlib.sha256(arrived).hexdigest())


def test_a_folder_of_several_seeds_names_its_runs(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "seeds"
    for seed in (0, 1):
        shutil.copytree(run, folder / f"seed-{seed}")
    (folder / "recipe.yaml").write_text("")
    assert fault(lambda: push(folder, "lab/clip-cxr", dry_run=True)) == (
        f"{folder}: holds several runs: seed-0, seed-1: push one of them, for example {folder}/seed-0"
    )


def test_merged_weights_go_first(tmp_path: Path, server: LocalHub) -> None:
    run = made_run(tmp_path / "run")
    assert fault(lambda: push(run, "lab/clip-cxr")) == (
        f"{run}/model/adapter_config.json: this adapter needs a base model that is only on this machine: push "
        f"an export, which loads alone: domainclip export {run} --to transformers --out {run}/export; "
        "then push again"
    )
    assert server.requests == []
    export(make_request(run, "transformers", run / "export"))
    push(run, "lab/clip-cxr")
    assert "adapter_config.json" not in server.files
    assert server.files["model.safetensors"] == (run / "export" / "model.safetensors").read_bytes()
    assert b"library_name: transformers" in server.files["README.md"]


@pytest.mark.parametrize("name", ["clip-cxr", "lab/clip cxr", "lab/a/b", "../clip", "lab/clip--cxr"])
def test_an_invalid_name(run: Path, name: str) -> None:
    assert fault(lambda: push(run, name)) == (
        f'"{name}" is not a repository name: write it as OWNER/NAME, for example lab/clip'
    )


def test_no_server(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalHub() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.url)
    assert fault(lambda: push(run, "lab/clip-cxr")) == (
        f"push to lab/clip-cxr: {gone.url} cannot be reached: check the network and HF_ENDPOINT"
    )


def test_no_answer(run: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.silent = True
    monkeypatch.setattr(upload, "TIMEOUT", (1.0, 0.2, 0.2, 1.0))
    assert fault(lambda: push(run, "lab/clip-cxr")) == (
        f"push to lab/clip-cxr: {server.url} does not answer: push again later"
    )


def test_offline(run: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fault(lambda: push(run, "lab/clip-cxr")) == (
        "push to lab/clip-cxr: HF_HUB_OFFLINE is set: unset it, or preview the push with --dry-run"
    )
    assert server.requests == []


def test_not_logged_in(run: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert fault(lambda: push(run, "lab/clip-cxr")) == (
        "push to lab/clip-cxr: no token: log in with `hf auth login`, or set HF_TOKEN"
    )
    assert server.requests == []


def _decoded(body: bytes) -> bytes:
    """Whatever a request holds in base64: samples and files of a commit."""
    return b"".join(
        base64.b64decode(encoded) for encoded in re.findall(rb'"([A-Za-z0-9+/]{16,}={0,2})"', body)
    )
