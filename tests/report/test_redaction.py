"""Local paths are removed from recipes and texts; the search reports private data and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from domainclip.config.recipe import Recipe
from domainclip.report.redaction import hide, hub_id, local_paths, public_recipe, search

UID = "1.2.840.113619.2.55.3.604688119.969"


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("lab/clip", True),
        ("openai/clip-vit-base-patch32", True),
        ("clip", False),
        ("/srv/clip", False),
        ("a/b/c", False),
        ("a b/c", False),
        ("lab/clip--x", False),
    ],
)
def test_repository_names(text: str, there: bool) -> None:
    assert hub_id(text) == (text if there else None)


def test_a_local_folder_is_not_a_repository_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab" / "clip").mkdir(parents=True)
    assert hub_id("lab/clip") is None


def test_a_public_recipe_has_no_local_path() -> None:
    public = public_recipe(_recipe())
    data = yaml.safe_load(public)
    assert "DOE" not in public
    assert data["base"] == {"path": "lab/clip", "revision": "abc"}
    assert data["corpus"] == {
        "card": "mine",
        "path": "(local)",
        "options": {"reports": "(local)", "separator": "/"},
        "templates": ["chest x-ray, {}", "~ {}"],
    }
    assert data["retention"]["path"] == "(local)"
    assert data["strategy"] == {"replace_text_tower": {"encoder": "(local)"}}
    assert data["train"]["epochs"] == 5.0


def test_all_paths_of_a_recipe_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jane")
    monkeypatch.chdir(tmp_path)
    paths = local_paths(_recipe(), tmp_path / "run")
    assert set(paths) == {
        *("/srv/DOE/bert", "/srv/DOE/general", "/srv/DOE/cxr", "/srv/DOE/reports.csv", "/srv/DOE/mine.md"),
        *(str(tmp_path / "run"), str(tmp_path), "/home/jane"),
    }
    assert paths == sorted(paths, key=len, reverse=True)


def test_the_root_is_no_known_path_and_a_folder_in_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of `/`, as in containers, would be found in every address."""
    monkeypatch.setenv("HOME", "/")
    strategy = {"replace_text_tower": {"encoder": "/a"}}
    found = local_paths(_recipe().model_copy(update={"strategy": strategy}), Path("/runs/x"))
    assert "/a" in found
    assert "/" not in found
    assert "" not in found


def test_each_of_several_known_paths_is_reported() -> None:
    text = "in /kept\nin /also\nin /other"
    assert [*search(text, ["/kept", "/also"])] == [(1, "a local path"), (2, "a local path")]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("corpus /srv/a b_c, read", "corpus (local), read"),
        ("corpus /srv/a b\\_c/", "corpus (local)"),
        ("path: /srv/a b_c.", "path: (local)."),
        ("a file /srv/a b_c/doe.png", "a file /srv/a b_c/doe.png"),
        ("another /srv/a b_cd", "another /srv/a b_cd"),
        ("http://host/srv/a b_c", "http://host/srv/a b_c"),
        ("R&amp;D at /R&amp;D's", "R&amp;D at (local)"),
        ("R&amp;D at /R&amp;D&#39;s", "R&amp;D at (local)"),
    ],
)
def test_complete_known_paths_are_hidden(text: str, hidden: str) -> None:
    assert hide(text, ["/srv/a b_c", "/R&D's", ""]) == hidden


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("hf_abcdefghijklmnop", "an access token"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("by j.doe@ward.example.org, 2024", "an e-mail address"),
        ("by j.doe&#64;example.org", "an e-mail address"),
        ("read from ~/scans", "a local path"),
        ("read from `/srv/x/y.png`", "a local path"),
        ("read from /srv/a\\_b/y\\_z.png", "a local path"),
        (r"read from C:\Users\jane", "a local path"),
        ("see file:/x", "a local path"),
        ("below (local)/doe.png", "a local path"),
        ("at /kept", "a local path"),
        ("finetune corpus.path=scans/doe", "the location of a corpus"),
        (f"instance {UID}", "a DICOM UID"),
        ("instance 2.25.329800735698586629295641978511506172918", "a DICOM UID"),
        ("MRN 12345", "a patient or accession number"),
        ("Accession number: A-20231", "a patient or accession number"),
        ("patient_id: 004711", "a patient or accession number"),
        ("\u202eabc", "a character that reverses text"),
    ],
)
def test_private_data_is_reported(line: str, kind: str) -> None:
    assert list(search(f"first\n{line}\nlast", ["/kept"])) == [(2, kind)]


@pytest.mark.parametrize(
    "line",
    [
        "https://huggingface.co/lab/clip/blob/main/README.md and [a](https://arxiv.org/abs/2402.02103)",
        "accuracy 0.554 (0.524 to 0.584), n 354/354, torch 2.13.0, 2024/01/02",
        "transfer syntax 1.2.840.10008.1.2.4.70 and image-to-text, and/or, left/right/both",
        "</td></tr><svg><path d='M0 0L1/2'/></svg>",
        "name one with retention.path=FOLDER retention.card=CARD; corpus.path=(local)",
        "columns: patient_id, accession_number; 4096 patients; hf_hub; @property; a@b",
        '<img src="data:image/png;base64,iVBORw0/a/b/c/d+MRN12345==">',
        "data_cards/medical_xray.md and recipes/quickstart.yaml",
    ],
)
def test_other_text_is_not_reported(line: str) -> None:
    assert list(search(line, ["/kept"])) == []


def test_long_lines_are_searched_quickly() -> None:
    """A search that looks at each place of a line again takes minutes here."""
    began = time.process_time()
    long = "/srv/" + "a_b&c" * 40
    for line in ("a" * 300_000, "a." * 150_000, "/a" * 150_000, "1." * 150_000, long[:-1] * 500):
        list(search(line, [long]))
        hide(line, [long])
    assert time.process_time() - began < 30


def _recipe() -> Recipe:
    corpus = {
        "card": "/srv/DOE/mine.md",
        "path": "/srv/DOE/cxr",
        "options": {"reports": "/srv/DOE/reports.csv", "separator": "/"},
    }
    return Recipe.model_validate(
        {
            "name": "x",
            "base": {"path": "lab/clip", "revision": "abc"},
            "corpus": corpus | {"templates": ["chest x-ray, {}", "~ {}"]},
            "strategy": {"replace_text_tower": {"encoder": "/srv/DOE/bert"}},
            "retention": {"card": "general", "path": "/srv/DOE/general"},
        }
    )
