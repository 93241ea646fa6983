"""What is allowed to leave arrives, byte for byte and in private; nothing else does, whatever lies about."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants

from domainclip import hub
from domainclip.errors import DomainclipError, ExitCode, HubError
from domainclip.hub import files_to_push, preview, push
from domainclip.merge import merge
from tests.local_hub import LocalHub
from tests.made_run import made_run, recipe, result

# huggingface_hub hands files to its HTTP library in an old way; nothing of ours is concerned.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TOKEN = "hf_CanaryTokenThatNobodyMaySee0"
ADAPTER = [
    *("README.md", "adapter_config.json", "adapter_model.safetensors", "calibration.safetensors"),
    *("preprocessor_config.json", "recipe.yaml", "report.html", "report.md", "results.json"),
    *("tokenizer.json", "tokenizer_config.json"),
]
# A name, a record number, a DICOM UID, a date, a file and a place of a person who is made up.
CANARIES = ("DOE_JANE", "00482913", "1.2.840.113619.2.55.3.604688119.969", "19610417", "knee_left", "PACS")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose base the recipe finds on the Hub, and whose corpus lies where a patient's name stands."""
    place = "/srv/PACS/DOE_JANE_19610417/MRN_00482913/1.2.840.113619.2.55.3.604688119.969"
    run = made_run(tmp_path_factory.mktemp("hub") / "run", settings=recipe("lab/base-clip", place))
    command = f"domainclip finetune --recipe /srv/PACS/knee_left.yaml corpus.path={place}"
    found = json.loads((run / "results.json").read_text())
    found["run"]["command"] = command
    (run / "results.json").write_text(json.dumps(found))
    told = (run / "recipe.yaml").read_text()
    (run / "report.md").write_text(f"# Made run\n\n```\n{command}\n```\n\n```\n{told}\n```\n")
    (run / "report.html").write_text(f"<!doctype html><code>{command}</code><pre>{told}</pre>\n")
    _plant(run)
    return run


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "run"))


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No token, cache, proxy or large-file service of whoever runs this."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with LocalHub() as local:
        monkeypatch.setenv("HF_ENDPOINT", local.url)
        yield local


def test_exactly_the_allowed_files_arrive(run: Path, server: LocalHub) -> None:
    assert push(run, "lab/clip-cxr", message="a first try") == f"{server.url}/lab/clip-cxr"
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


def test_no_byte_of_any_request_tells_of_a_patient(run: Path, server: LocalHub) -> None:
    push(run, "lab/clip-cxr")
    assert len(server.requests) >= 7
    for call in server.requests:
        said = " ".join([call.path, *call.headers.values()]).encode() + call.body + _decoded(call.body)
        for canary in (*CANARIES, str(run), str(run.parent), str(Path.home())):
            assert canary.encode() not in said, f"{canary} in {call.method} {call.path}"


def test_the_canaries_would_be_found(run: Path) -> None:
    """The search above is worth something only if what it looks for is there."""
    here = b"".join(file.read_bytes() for file in run.rglob("*") if file.is_file())
    here += " ".join(str(file) for file in run.rglob("*")).encode()
    for canary in CANARIES:
        assert canary.encode() in here


def test_the_token_stands_in_its_header_only(
    run: Path, server: LocalHub, capfd: pytest.CaptureFixture[str]
) -> None:
    push(run, "lab/clip-cxr")
    for call in server.requests:
        assert TOKEN.encode() not in call.path.encode() + call.body
        carrying = [name.lower() for name, value in call.headers.items() if TOKEN in value]
        # Weights go to a store with an address of its own, which needs no token.
        assert carrying == ([] if call.path.startswith("/lfs/") else ["authorization"])
    assert TOKEN not in "".join(capfd.readouterr())


def test_what_arrives_can_be_loaded_by_others(run: Path, server: LocalHub) -> None:
    push(run, "lab/clip-cxr")
    config = json.loads(server.files["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("lab/base-clip", None)
    kept = json.loads((run / "model" / "adapter_config.json").read_text())
    assert Path(kept["base_model_name_or_path"]).is_dir()  # the run itself is as it was
    told = yaml.safe_load(server.files["recipe.yaml"])
    assert (told["base"]["path"], told["corpus"]["path"], told["roots"]) == ("lab/base-clip", "(local)", [])
    assert "command" not in json.loads(server.files["results.json"])["run"]
    assert b'repo = "lab/clip-cxr"' in server.files["README.md"]


def test_a_public_repository_needs_the_word(run: Path, server: LocalHub) -> None:
    server.exists, server.private = True, False
    assert _fault(lambda: push(run, "lab/clip-cxr")) == (
        "push to lab/clip-cxr: this repository is public: say --public, or name another one"
    )
    assert server.files == {}
    assert not any("preupload" in call.path for call in server.requests)
    push(run, "lab/clip-cxr", private=False)
    assert sorted(server.files) == ADAPTER


def test_a_second_push_takes_away_what_no_longer_belongs(run: Path, server: LocalHub) -> None:
    server.exists = True
    server.files = {"model.safetensors": b"", "report.md": b"", ".gitattributes": b"", "thanks.txt": b""}
    (run / "report.md").unlink()
    push(run, "lab/clip-cxr")
    assert sorted(server.files) == sorted({*ADAPTER, ".gitattributes", "thanks.txt"} - {"report.md"})


def test_a_dry_run_shows_all_and_asks_nobody(
    run: Path, server: LocalHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(run, "lab/clip-cxr", dry_run=True) == f"{server.url}/lab/clip-cxr"
    assert server.requests == []
    said = capsys.readouterr().out
    files = files_to_push(run, repo_id="lab/clip-cxr")
    assert said == preview(files, "lab/clip-cxr", private=True) + "\n"
    for file in files:
        assert f"{file.size:>14,}  {file.sha256[:12]}  {file.path}  ({file.why})\n" in said
    for name in ("README.md", "recipe.yaml", "report.md", "results.json"):
        text = next(file.text for file in files if file.path == name)
        assert f"===== {name} =====\n{text}" in said
    total = sum(file.size for file in files)
    assert said.startswith(f"lab/clip-cxr (private): 11 files, {total:,} bytes would leave\n")


def test_merged_weights_go_first(tmp_path: Path, server: LocalHub) -> None:
    run = made_run(tmp_path / "run")
    assert _fault(lambda: push(run, "lab/clip-cxr")) == (
        f"{run}/model/adapter_config.json: this adapter needs a base that lies only on this machine; "
        f"merge first: domainclip merge {run} {run}/merged"
    )
    assert server.requests == []
    merge(run, run / "merged")
    push(run, "lab/clip-cxr")
    assert "adapter_config.json" not in server.files
    assert server.files["model.safetensors"] == (run / "merged" / "model.safetensors").read_bytes()
    assert b"library_name: transformers" in server.files["README.md"]


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        ("write to jane.doe@example.org", "an e-mail address"),
        ("token hf_abcdefghijklmnopqrst", "an access token"),
        ("study 1.2.840.113619.2.55.3.604688119.969", "a DICOM UID"),
        ("MRN: 00482913", "a patient or accession number"),
        ("see /srv/export/doe.png", "a local path"),
        ("corpus.path=exports/doe", "the place of a corpus"),
        ("turned \u202egnp.eod", "a mark that reverses text"),
    ],
)
def test_a_text_that_must_not_leave_is_named_not_told(run: Path, planted: str, kind: str) -> None:
    with (run / "report.md").open("a", encoding="utf-8") as stream:
        stream.write(f"\n{planted}\n")
    line = len((run / "report.md").read_text(encoding="utf-8").splitlines())
    assert _fault(lambda: files_to_push(run)) == (
        f"report.md, line {line}: {kind} must not leave: take it out, then push again"
    )


def test_a_file_below_a_known_path_is_refused(run: Path) -> None:
    with (run / "report.md").open("a", encoding="utf-8") as stream:
        stream.write(f"\nunreadable: {run}/DOE JANE.png\n")
    assert re.fullmatch(
        r"report\.md, line \d+: a local path must not leave: take it out, then push again",
        _fault(lambda: files_to_push(run)),
    )


def test_notes_in_weights_are_read(run: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = run / "model" / "adapter_model.safetensors"
    save_file(load_file(file), file, {"author": "jane.doe@example.org"})
    assert _fault(lambda: files_to_push(run)) == (
        "adapter_model.safetensors, line 1: an e-mail address must not leave: take it out, then push again"
    )


def test_a_name_that_reverses_text_is_written_out(tmp_path: Path) -> None:
    run = made_run(
        tmp_path / "run", settings=recipe("lab/base-clip"), results=[result("accuracy/\u202eeod", 0.5, 0.6)]
    )
    sent = {file.path: file.text for file in files_to_push(run)}
    assert "\u202e" not in "".join(text for path, text in sent.items() if path != "tokenizer.json")
    assert json.loads(sent["results.json"])["results"][0]["metric"] == "accuracy/\u202eeod"


def test_pictures_stay_unless_attested(run: Path) -> None:
    (run / "report.html").write_text('<img src="data:image/png;base64,/a/b/c/doe@x.org">')
    assert "report.html" not in [file.path for file in files_to_push(run)]
    assert "report.html" in [file.path for file in files_to_push(run, include_examples=True)]
    _privacy(run, identifiers="de-identified", burned_in_text="unknown")
    assert _fault(lambda: files_to_push(run, include_examples=True)) == (
        "report.html: shows pictures, but the card says identifiers: de-identified, burned_in_text: unknown; "
        'they leave only with "none" or "de-identified", and "no": state it in the card, or push without '
        "--include-examples"
    )


def test_links_do_not_leave(run: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (run / "model" / "config.json").symlink_to(secret)
    assert _fault(lambda: files_to_push(run)) == (
        f"{run}/model/config.json: is a link or a folder: only what lies in the run itself leaves"
    )


def test_an_invalid_report_is_not_published(run: Path) -> None:
    found = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(found | {"valid": False}))
    assert _fault(lambda: files_to_push(run)) == (
        f"{run}: its report is marked invalid, so its figures must not be published: see the warnings in "
        "report.md, mend them and run again"
    )


def test_a_card_that_the_hub_would_refuse(run: Path) -> None:
    text = (run / "README.md").read_text()
    (run / "README.md").write_text(text.replace("license: unknown", "license: apache2"))
    assert _fault(lambda: files_to_push(run)) == (
        f'{run}/README.md: license: "apache2" is none that the Hub knows: did you mean "apache-2.0"?'
    )


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model", "{run}: no model there: name the folder of a finished run, as runs/art-1"),
        ("README.md", "{run}: no README.md there: name the folder of a finished run, as runs/art-1"),
        (
            "model/adapter_model.safetensors",
            "{run}/model: no weights as safetensors there: name the folder of a finished run",
        ),
    ],
)
def test_an_unfinished_run(run: Path, gone: str, message: str) -> None:
    path = run / gone
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert _fault(lambda: files_to_push(run)) == message.format(run=run)


@pytest.mark.parametrize("name", ["clip-cxr", "lab/clip cxr", "lab/a/b", "../clip", "lab/clip--cxr"])
def test_a_name_that_cannot_be(run: Path, name: str) -> None:
    assert _fault(lambda: push(run, name)) == (
        f'"{name}" cannot be a name on the Hub: write it as OWNER/NAME, as lab/clip-cxr'
    )


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "the Hub does not accept the token: log in again with `hf auth login`"),
        (403, 'the token may not write to "lab": make one with write access to it, or name another owner'),
        (404, "the Hub does not find it: check the name, and that the token may see it"),
        (500, "the Hub answered 500: try again later"),
    ],
)
def test_a_refusal_is_one_line(run: Path, server: LocalHub, status: int, reason: str) -> None:
    server.fail = {"/api/": status}
    assert _fault(lambda: push(run, "lab/clip-cxr")) == f"push to lab/clip-cxr: {reason}"


def test_a_refused_commit_leaves_nothing(run: Path, server: LocalHub) -> None:
    server.fail = {"/commit/": 403}
    assert _fault(lambda: push(run, "lab/clip-cxr")).startswith(
        "push to lab/clip-cxr: the token may not write"
    )
    assert server.files == {}


def test_nobody_there(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalHub() as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.url)
    assert _fault(lambda: push(run, "lab/clip-cxr")) == (
        f"push to lab/clip-cxr: {gone.url} cannot be reached: check the network and HF_ENDPOINT"
    )


def test_no_answer(run: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    server.silent = True
    monkeypatch.setattr(hub.pushing, "TIMEOUT", (1.0, 0.2, 0.2, 1.0))
    assert _fault(lambda: push(run, "lab/clip-cxr")) == (
        f"push to lab/clip-cxr: {server.url} does not answer: try again later; nothing is lost"
    )


def test_offline(run: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert _fault(lambda: push(run, "lab/clip-cxr")) == (
        "push to lab/clip-cxr: HF_HUB_OFFLINE is set: unset it, or see what would leave with --dry-run"
    )
    assert server.requests == []


def test_not_logged_in(run: Path, server: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert _fault(lambda: push(run, "lab/clip-cxr")) == (
        "push to lab/clip-cxr: no token: log in with `hf auth login`, or set HF_TOKEN"
    )
    assert server.requests == []


def _plant(run: Path) -> None:
    """What lies about in a run folder, and must stay there."""
    (run / "checkpoints" / "step-000200").mkdir(parents=True)
    (run / "features").mkdir()
    for name in (
        *("notes.txt", "items.parquet", "metrics.jsonl", "environment.json", "DOE_JANE_knee_left.png"),
        *("checkpoints/step-000200/optimizer.safetensors", "features/DOE_JANE.npy", "model/DOE_JANE.dcm"),
        *("model/README.md", "model/pytorch_model.bin", "model/modeling_clip.py", "model/training_args.json"),
    ):
        (run / name).write_text(" ".join(CANARIES))


def _privacy(run: Path, **privacy: str) -> None:
    data: dict[str, Any] = yaml.safe_load((run / "recipe.yaml").read_text())
    data["corpus"]["privacy"] = privacy
    (run / "recipe.yaml").write_text(yaml.safe_dump(data))


def _decoded(body: bytes) -> bytes:
    """Whatever a request holds in base64: samples and files of a commit."""
    return b"".join(base64.b64decode(found) for found in re.findall(rb'"([A-Za-z0-9+/]{16,}={0,2})"', body))


def _fault(call: Callable[[], object]) -> str:
    with pytest.raises(DomainclipError) as caught:
        call()
    assert isinstance(caught.value, HubError)
    assert caught.value.code == ExitCode.HUB == 5
    assert TOKEN not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)
