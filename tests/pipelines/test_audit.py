"""An audit finds what was changed, planted or left unsaid in a run folder, and passes an untouched one."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from domainclip.cli.app import app
from domainclip.config.recipe import Recipe
from domainclip.data.cards import Card
from domainclip.errors import ModelError, RecipeError
from domainclip.models.loading import load_model
from domainclip.pipelines.audit.audit import Audit, audit
from domainclip.pipelines.audit.licences import check_licences
from domainclip.pipelines.audit.reproducibility import check_reproducibility, conditions
from domainclip.report import manifest
from domainclip.report.provenance import environment
from tests.support.run_folders import made_run, recipe, results


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose results name its weights, with the list of its files."""
    folder = tmp_path_factory.mktemp("audit")
    card = {"privacy": {"identifiers": "de-identified", "burned_in_text": "no"}, "license": "cc-by-4.0"}
    settings = Recipe.model_validate(
        {
            "name": "films",
            "base": {"path": str(folder / "base")},
            "corpus": {"path": "/srv/films", **card},
            "strategy": {"lora": {}},
            "report": {"license": "mit"},
        }
    )
    protocol = {"probes": [], "trained_on": ["the adapted model: 0 measured items are among the 8 images"]}
    run = made_run(folder / "run", settings=settings, protocol=protocol)
    measured = {"weights_sha256": load_model(run / "model").fingerprint("all")}
    data = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(data | {"adapted": measured}))
    (run / "environment.json").write_text(json.dumps(environment()))
    manifest.write(run)
    return run


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "run"))


def _texts(found: Audit, status: str) -> list[str]:
    return [f"{one.area}: {one.text}" for one in found.checks if one.status == status]


def test_an_untouched_run_passes(run: Path) -> None:
    found = audit(run)
    assert found.passed
    assert _texts(found, "failed") == []
    assert _texts(found, "passed")[:2] == [
        f"files: {len(found.files)} of {len(found.files)} files are as the run wrote them",
        "files: the weights in model are those that results.json measured",
    ]
    listed = {one.path: one for one in found.files}
    report = run / "report.md"
    assert listed["report.md"].sha256 == hashlib.sha256(report.read_bytes()).hexdigest()
    assert listed["report.md"].size == report.stat().st_size
    assert manifest.FILE not in listed


def test_each_kind_of_change_is_found(run: Path) -> None:
    (run / "report.md").write_text("# Better\n")
    (run / "report.html").unlink()
    (run / "notes.md").write_text("")
    (run / "README.md").write_text((run / "README.md").read_text() + "\n")
    (run / "ledger.jsonl").write_text("{}\n")  # eval writes it
    found = audit(run)
    assert [text for text in _texts(found, "failed") if text.startswith("files")] == [
        "files: report.html: missing since the run: restore it, or do not rely on this folder",
        "files: report.md: changed since the run: restore it, or do not rely on this folder",
    ]
    warnings = [text for text in _texts(found, "warning") if text.startswith("files")]
    assert warnings == [
        "files: README.md: changed since the run, as eval or a person may",
        "files: notes.md: not a file of the run",
    ]


def test_other_weights_than_those_that_were_measured(run: Path) -> None:
    data = json.loads((run / "results.json").read_text())
    data["adapted"]["weights_sha256"] = "0" * 64
    (run / "results.json").write_text(json.dumps(data))
    assert "files: model: not the weights that results.json measured: restore them" in _texts(
        audit(run), "failed"
    )
    (run / "model" / "adapter_model.safetensors").write_bytes(b"")
    assert (
        "files: model: its weights cannot be loaded here, so they are not compared with results.json"
        in _texts(audit(run), "unknown")
    )


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        ("Patient: Doe, Jane", "1 × name"),
        ("born 12.03.1957", "1 × date of birth"),
        ("see /srv/export/doe.png", "1 × a local path"),
        ("MRN: 00482913", "1 × a patient or accession number, 1 × record number"),
    ],
)
def test_identifiers_in_texts_are_counted_and_not_quoted(run: Path, planted: str, kind: str) -> None:
    (run / "eval" / "other").mkdir(parents=True)
    (run / "eval" / "other" / "report.html").write_text(f"<style>b{{}}</style><p>2026-11-30 {planted}</p>")
    found = audit(run)
    assert f"privacy: eval/other/report.html: {kind}: read it before you share the folder" in _texts(
        found, "failed"
    )
    assert planted not in json.dumps(found.as_json())


def test_what_leaks_and_what_is_not_known_is_stated(run: Path) -> None:
    data = json.loads((run / "results.json").read_text())
    data["protocol"]["trained_on"] = [
        "the adapted model: 3 measured items are among the 8 images that it was trained on",
        "the base: it is not known which images it was trained on",
    ]
    (run / "results.json").write_text(json.dumps(data | {"valid": False}))
    found = audit(run)
    failed = [text for text in _texts(found, "failed") if text.startswith("leaks")]
    assert failed == [
        "leaks: the evaluation is marked invalid: see the warnings in report.md",
        "leaks: the adapted model: 3 measured items are among the 8 images that it was trained on",
    ]
    assert "leaks: the base: it is not known which images it was trained on" in _texts(found, "unknown")
    again = audit(run, read_corpus=True)
    assert "leaks: the corpus cannot be read here: see domainclip data check" in _texts(again, "unknown")


def _licences(tmp_path: Path, base: str | None, corpus: str, weights: str) -> dict[str, list[str]]:
    (tmp_path / "base").mkdir(exist_ok=True)
    (tmp_path / "base" / "README.md").write_text(
        f"---\nlicense: {base}\n---\n" if base else "no front matter"
    )
    given = recipe(str(tmp_path / "base"), report={"license": weights})
    found: dict[str, list[str]] = {}
    for check in check_licences(given, Card(license=corpus)):
        found.setdefault(check.status, []).append(check.text)
    return found


def test_licences(tmp_path: Path) -> None:
    assert _licences(tmp_path, "mit", "cc-by-4.0", "apache-2.0") == {
        "passed": ["base: mit", "corpus: cc-by-4.0", "adapted weights: apache-2.0"]
    }
    assert _licences(tmp_path, None, "unknown", "unknown") == {
        "unknown": [
            "base: the licence is not known: ask who made it",
            "corpus: the licence is not known: ask its owner, and set license in its card",
            "adapted weights: the licence is not known: set report.license before you share them",
        ]
    }
    assert _licences(tmp_path, "mit", "cc-by-nc-nd-4.0", "mit")["failed"] == [
        "the corpus is non-commercial (cc-by-nc-nd-4.0), and the licence of the weights does not say so: set "
        "report.license",
        "the corpus is no derivatives (cc-by-nc-nd-4.0), and the licence of the weights does not say so: set "
        "report.license",
    ]
    assert "failed" not in _licences(tmp_path, "cc-by-nc-4.0", "mit", "cc-by-nc-4.0")


def test_the_conditions_of_the_same_bytes(run: Path) -> None:
    given, measured = recipe(str(run), report={"license": "mit"}), results(base={"weights_sha256": "ab"})
    found = conditions(run, given, measured)
    assert [check.status for check in check_reproducibility(found)] == ["passed"]
    by_name = {one.name: one for one in found}
    assert by_name["base (sha256 of the weights)"].run == "ab"
    assert by_name["recipe (sha256 of the keys that determine the weights)"].run == given.digest()
    data: dict[str, Any] = environment()
    data["threads"], data["libraries"]["torch"] = 64, "1.0"
    (run / "environment.json").write_text(json.dumps(data))
    differing = [one.text for one in check_reproducibility(conditions(run, given, measured))]
    assert differing == [
        f"threads: 64 in the run, {environment()['threads']} here",
        f"torch: 1.0 in the run, {environment()['libraries']['torch']} here",
    ]
    (run / "environment.json").unlink()
    assert "not recorded in the run" in next(check_reproducibility(conditions(run, given, measured))).text


def test_the_command_ends_with_3_when_a_check_fails(run: Path) -> None:
    done = CliRunner().invoke(app, ["audit", str(run)])
    assert (done.exit_code, done.stderr) == (0, "")
    assert "✓  files" in done.stdout
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text() + "\n# later\n")
    done = CliRunner().invoke(app, ["audit", str(run), "--json"])
    data = json.loads(done.stdout)
    assert (done.exit_code, data["passed"], data["schema_version"]) == (3, False, 1)
    assert done.stderr == f"domainclip: audit: 1 of {len(data['checks'])} checks failed\n"
    assert {"path": "recipe.yaml", "status": "changed"}.items() <= next(
        one for one in data["files"] if one["path"] == "recipe.yaml"
    ).items()


def test_folders_that_cannot_be_audited(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml: no such file: give a run folder"):
        audit(tmp_path)
    (run / manifest.FILE).write_text("{}")
    with pytest.raises(ModelError, match="not a list of files that this version reads: restore it"):
        audit(run)
    (run / manifest.FILE).unlink()
    assert "files: the run wrote no manifest.json: whether its files are unchanged is not known" in _texts(
        audit(run), "unknown"
    )
    (run / "results.json").unlink()
    with pytest.raises(ModelError, match=r"no results\.json there: continue the run with --resume"):
        audit(run)
