"""The allow-list, and the search for private data, which is reported by kind and never quoted."""

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
        ("corpus.path=exports/doe", "the location of a corpus"),
        ("turned \u202egnp.eod", "a character that reverses text"),
    ],
)
def test_private_data_is_reported_but_not_quoted(run: Path, planted: str, kind: str) -> None:
    with (run / "report.md").open("a", encoding="utf-8") as stream:
        stream.write(f"\n{planted}\n")
    line = len((run / "report.md").read_text(encoding="utf-8").splitlines())
    assert fault(lambda: files_to_push(run)) == (
        f"report.md, line {line}: {kind} must not leave this machine: remove it and push again"
    )


@pytest.mark.parametrize("path", [r"D:\PACS\Doe_Jane\scan.dcm", r"\\nas01\radiology\doe", "s3://bucket/doe"])
@pytest.mark.parametrize("name", ["README.md", "report.md", "report.html", "results.json", "recipe.yaml"])
def test_a_path_of_any_system_leaves_in_no_text(run: Path, name: str, path: str) -> None:
    text = (run / name).read_text(encoding="utf-8")
    if name == "results.json":
        text = json.dumps({**json.loads(text), "warnings": [f"from {path}"]})
    elif name == "recipe.yaml":
        data = yaml.safe_load(text)
        text = yaml.safe_dump({**data, "report": {**data["report"], "title": f"from {path}"}})
    else:
        text += f"\nfrom {path}\n"
    (run / name).write_text(text, encoding="utf-8")
    if name == "recipe.yaml":  # it is written anew, without such a value
        sent = {file.path: file.text for file in files_to_push(run)}
        assert path.split("\\")[-1] not in "".join(sent.values())
    else:
        assert fault(lambda: files_to_push(run)).endswith(
            "a local path must not leave this machine: remove it and push again"
        )


def test_the_folder_of_the_base_is_not_in_a_config(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", lora=False, settings=recipe("lab/base-clip"))
    file = run / "model" / "config.json"
    config = json.loads(file.read_text())
    config["_name_or_path"] = "/srv/doe/base"
    config["text_config"]["_name_or_path"] = "lab/bert"
    file.write_text(json.dumps(config))
    sent = next(one for one in files_to_push(run) if one.path == "config.json")
    names = json.loads(sent.text)
    assert (names["_name_or_path"], names["text_config"]["_name_or_path"]) == ("", "lab/bert")
    assert names["projection_dim"] == config["projection_dim"]


def test_a_file_below_a_known_path_is_refused(run: Path) -> None:
    with (run / "report.md").open("a", encoding="utf-8") as stream:
        stream.write(f"\nunreadable: {run}/DOE JANE.png\n")
    assert re.fullmatch(
        r"report\.md, line \d+: a local path must not leave this machine: remove it and push again",
        fault(lambda: files_to_push(run)),
    )


def test_metadata_of_weights_are_searched(run: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = run / "model" / "adapter_model.safetensors"
    save_file(load_file(file), file, {"author": "jane.doe@example.org"})
    assert fault(lambda: files_to_push(run)) == (
        "adapter_model.safetensors, line 1: an e-mail address must not leave this machine: remove it and push again"
    )


def test_a_name_that_reverses_text_is_written_out(tmp_path: Path) -> None:
    run = made_run(
        tmp_path / "run", settings=recipe("lab/base-clip"), results=[result("accuracy/\u202eeod", 0.5, 0.6)]
    )
    sent = {file.path: file.text for file in files_to_push(run)}
    assert "\u202e" not in "".join(text for path, text in sent.items() if path != "tokenizer.json")
    assert json.loads(sent["results.json"])["results"][0]["metric"] == "accuracy/\u202eeod"


def test_images_are_pushed_only_if_attested(run: Path) -> None:
    (run / "report.html").write_text('<img src="data:image/png;base64,/a/b/c/doe@x.org">')
    assert "report.html" not in [file.path for file in files_to_push(run)]
    assert "report.html" in [file.path for file in files_to_push(run, include_examples=True)]
    _privacy(run, identifiers="de-identified", burned_in_text="unknown")
    assert fault(lambda: files_to_push(run, include_examples=True)) == (
        "report.html: shows images, but the card has identifiers: de-identified, burned_in_text: unknown; "
        'only "none" or "de-identified", with "no", may be pushed: correct the card, or push without '
        "--include-examples"
    )


@pytest.mark.parametrize("name", ["model/config.json", "report.md"])
def test_links_are_not_pushed(run: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(tmp_path / "secret.json")
    assert fault(lambda: files_to_push(run)) == (
        f"{run}/{name}: a link or a folder: only regular files of the run are pushed"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model/adapter_config.json", b"{", "not a JSON object: the adapter is damaged"),
        ("model/tokenizer_config.json", b"\xff", "not UTF-8 text, at byte 0: save it as UTF-8"),
        ("report.md", b"a\xff", "not UTF-8 text, at byte 1: save it as UTF-8"),
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
    data = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(data | {"valid": False}))
    assert fault(lambda: files_to_push(run)) == (
        f"{run}: its report is marked invalid, so its results must not be published: resolve the "
        "warnings in report.md and run again"
    )


def test_an_invalid_card(run: Path) -> None:
    text = (run / "README.md").read_text()
    (run / "README.md").write_text(text.replace("license: unknown", "license: apache2"))
    assert fault(lambda: files_to_push(run)) == (
        f'{run}/README.md: license: "apache2" is not a licence of the Hub: did you mean "apache-2.0"?'
    )


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model", "{run}: no model there: give the folder of a finished run, for example runs/art-1"),
        ("README.md", "{run}: no README.md there: give the folder of a finished run, for example runs/art-1"),
        (
            "model/adapter_model.safetensors",
            "{run}/model: no safetensors weights there: give the folder of a finished run",
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
