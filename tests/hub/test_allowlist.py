"""The allow-list and the search: what may leave is listed, what must not is named and not told."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from domainclip.hub.allowlist import files_to_push
from tests.hub.planted_leaks import fault
from tests.support.run_folders import made_run, recipe, result


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
    assert fault(lambda: files_to_push(run)) == (
        f"report.md, line {line}: {kind} must not leave: take it out, then push again"
    )


def test_a_file_below_a_known_path_is_refused(run: Path) -> None:
    with (run / "report.md").open("a", encoding="utf-8") as stream:
        stream.write(f"\nunreadable: {run}/DOE JANE.png\n")
    assert re.fullmatch(
        r"report\.md, line \d+: a local path must not leave: take it out, then push again",
        fault(lambda: files_to_push(run)),
    )


def test_notes_in_weights_are_read(run: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = run / "model" / "adapter_model.safetensors"
    save_file(load_file(file), file, {"author": "jane.doe@example.org"})
    assert fault(lambda: files_to_push(run)) == (
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
    assert fault(lambda: files_to_push(run, include_examples=True)) == (
        "report.html: shows pictures, but the card says identifiers: de-identified, burned_in_text: unknown; "
        'they leave only with "none" or "de-identified", and "no": state it in the card, or push without '
        "--include-examples"
    )


@pytest.mark.parametrize("name", ["model/config.json", "report.md"])
def test_links_do_not_leave(run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(tmp_path / "secret.json")
    assert fault(lambda: files_to_push(run)) == (
        f"{run}/{name}: is a link or a folder: only what lies in the run itself leaves"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model/adapter_config.json", b"{", "is no JSON object: the adapter is damaged"),
        ("model/tokenizer_config.json", b"\xff", "not UTF-8 text, at byte 0"),
        ("report.md", b"a\xff", "not UTF-8 text, at byte 1"),
        (
            "model/calibration.safetensors",
            b"",
            "the weights are damaged: Error while deserializing header: header too small",
        ),
    ],
)
def test_damaged_files_are_named(run: Path, name: str, content: bytes, message: str) -> None:
    (run / name).write_bytes(content)
    assert fault(lambda: files_to_push(run)) == f"{run}/{name}: {message}"


def test_an_invalid_report_is_not_published(run: Path) -> None:
    found = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(found | {"valid": False}))
    assert fault(lambda: files_to_push(run)) == (
        f"{run}: its report is marked invalid, so its figures must not be published: see the warnings in "
        "report.md, mend them and run again"
    )


def test_a_card_that_the_hub_would_refuse(run: Path) -> None:
    text = (run / "README.md").read_text()
    (run / "README.md").write_text(text.replace("license: unknown", "license: apache2"))
    assert fault(lambda: files_to_push(run)) == (
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
    assert fault(lambda: files_to_push(run)) == message.format(run=run)


def _privacy(run: Path, **privacy: str) -> None:
    data: dict[str, Any] = yaml.safe_load((run / "recipe.yaml").read_text())
    data["corpus"]["privacy"] = privacy
    (run / "recipe.yaml").write_text(yaml.safe_dump(data))
