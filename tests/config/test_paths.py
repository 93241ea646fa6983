"""One rule decides what is a local path; redaction and the reading of recipes both use it."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainclip.config.paths import is_local_path, resolve_path
from domainclip.errors import RecipeError

# text, whether it is written as a local path, whether a word of a command line may be one
CASES = [
    ("/data/cxr", True, True),
    ("/", False, True),
    ("~/scans", True, True),
    ("~jane/scans", True, True),
    ("~", False, True),
    ("~ {}", False, True),
    ("./scans", True, True),
    ("../scans", True, True),
    ("file:/data/cxr", True, True),
    ("file:///data/cxr", True, True),
    (r"C:\Users\jane\scans", True, True),
    ("C:/Users/jane", True, True),
    (r"D:\PACS\x\y.dcm", True, True),
    (r"\\nas01\radiology\z", True, True),
    (r"scans\smith", False, True),
    ("scans/smith/1", False, True),
    ("left/right/both", False, True),
    ("owner/name", False, False),
    ("openai/clip-vit-base-patch32", False, False),
    ("sky.csv", False, False),  # a name; whether such a file exists, the caller checks
    ("a photo of a {}", False, False),
    ("chest x-ray, {}", False, False),
    ("train.epochs=3", False, False),
    (".5", False, False),
    ("", False, False),
]


@pytest.mark.parametrize(("text", "local", "strict"), CASES)
def test_what_is_written_as_a_local_path(text: str, local: bool, strict: bool) -> None:
    assert is_local_path(text) is local
    assert is_local_path(text, strict=True) is strict


@pytest.mark.parametrize(("text", "local", "strict"), CASES)
def test_strict_is_never_the_weaker_rule(text: str, local: bool, strict: bool) -> None:
    assert strict or not local


@pytest.mark.parametrize(
    "text", ["owner/name", "owner/name.v2", "hf://datasets/owner/name", "https://host/x.tar"]
)
def test_hub_ids_and_addresses_stay_as_they_are(text: str, tmp_path: Path) -> None:
    assert resolve_path(text, tmp_path / "recipe.yaml", [tmp_path], "x.yaml: base.path") == text


@pytest.mark.parametrize(
    "text", [r"D:\PACS\x", r"\\nas01\radiology\z", "C:/Users", "name", "a/b/c", "a/sky.csv", ".a/b"]
)
def test_everything_else_is_a_path_and_stays_in_the_allowed_folders(text: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="lies outside the working folder and the folder of this file"):
        resolve_path(text, tmp_path / "recipe.yaml", [tmp_path], "x.yaml: base.path")


def test_a_folder_in_the_working_folder_comes_before_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_path("owner/name", tmp_path / "r.yaml", [tmp_path], "") == str(tmp_path / "owner/name")
