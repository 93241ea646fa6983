from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from domainclip.errors import ModelError
from domainclip.models import checkpoint_files
from domainclip.models.loading import load_model

COMMIT = "4f1c0ffee0000000000000000000000000000000"


def response(status: int) -> Any:
    """A response of the Hub, with the attributes that its errors read."""
    request = SimpleNamespace(method="GET", url="https://huggingface.co")
    return SimpleNamespace(status_code=status, headers={}, request=request)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (
            errors.GatedRepoError("403", response=response(403)),
            "gated; accept its terms on https://huggingface.co/lab/clip, then run: hf auth login",
        ),
        (errors.RevisionNotFoundError("404", response=response(404)), 'the Hub has no revision "v2" of it'),
        (
            errors.RepositoryNotFoundError("404", response=response(404)),
            "no such folder, and no such model on the Hub; if it is private, run: hf auth login",
        ),
        (errors.HFValidationError("!"), "no such folder, and not a name that the Hub could have"),
        (
            errors.LocalEntryNotFoundError("offline"),
            "no such folder, not in the local cache, and the Hub cannot be reached",
        ),
        (
            errors.OfflineModeIsEnabled("offline"),
            "no such folder, not in the local cache, and the Hub cannot be reached",
        ),
        (OSError("disk\n full"), "cannot be fetched from the Hub: disk full: try again"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_the_hub_in_one_line(
    error: Exception, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelError) as caught:
        load_model("lab/clip", "v2")
    assert str(caught.value) == f'base "lab/clip": {fault}'


def test_a_hub_model_records_its_name_and_commit(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request: dict[str, Any] = {}
    (tmp_path / COMMIT).symlink_to(clip_folder)

    def download(base: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        request.update(base=base, revision=revision, files=allow_patterns)
        return str(tmp_path / COMMIT)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    model = load_model("lab/clip", "main")
    assert (model.base, model.revision) == ("lab/clip", COMMIT)
    assert model.hf_base.name_or_path == "lab/clip"
    assert (request["base"], request["revision"]) == ("lab/clip", "main")
    present = [
        "model.py",
        "pytorch_model.bin",
        "open_clip_model.safetensors",
        "model.safetensors",
        "merges.txt",
    ]
    downloaded = [name for name in present if any(fnmatch(name, pattern) for pattern in request["files"])]
    assert downloaded == ["model.safetensors", "merges.txt"]


def test_a_tilde_is_the_home_folder(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(clip_folder.parent))
    assert checkpoint_files.find_checkpoint(f"~/{clip_folder.name}", None) == (clip_folder, None)


def test_a_long_error_is_truncated() -> None:
    assert checkpoint_files.in_one_line(ValueError("x" * 300)) == "x" * 200 + " …"
    assert checkpoint_files.in_one_line(ValueError()) == "ValueError"
    hint = "it needs two more libraries; run: pip install sentencepiece protobuf"
    assert checkpoint_files.in_one_line(ImportError("requires the SentencePiece library but")) == hint
