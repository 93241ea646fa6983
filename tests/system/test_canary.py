"""Fault 34: a person who is made up stands in DICOM tags, names of files and folders and beside the captions; no
byte that a command writes or says may tell of her.
"""

from __future__ import annotations

import csv
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from domainclip.cli.app import main
from tests.data.image_copies import film
from tests.data.made_corpora import dicom_file
from tests.data.made_shards import pair, tar

# Her name (as a tag and as a file says it), record number, UID, birthday, and a folder of the archive.
TAGS = {"PatientName": "QUIMBYWORT^ZELDA", "PatientBirthDate": "19320711", "InstitutionName": "Wardenclyffe"}
RECORD, ACCESSION, PATH = "MRN88421177", "ACC55109283", "pacs_export_kestrel"
CANARIES = (
    *("QUIMBYWORT", "Quimbywort", "ZELDA", "19320711", "1932-07-11", "Wardenclyffe", "Zanzibar"),
    *(RECORD, "88421177", ACCESSION, PATH, "kestrel", "1.2.826.0.1.3680043.8.498.77"),
)
# What captions say, of another person too: data for training and shards, and for nothing else.
CAPTION = "plovershade"
SPOKEN = (CAPTION, "Vexholm", "MRN55310942", "1.2.826.0.1.3680043.8.498.99.4", "1947-02-28")
PATIENTS, SPLITS = 24, ("train", "train", "train", "train", "val", "test")


def _corpus(folder: Path) -> Path:
    """DICOM films in a folder that names her, with a table of reports; some files are broken."""
    rows = []
    for i in range(PATIENTS):
        name = f"{PATH}/Quimbywort_{RECORD}_{i:02d}.dcm"
        stored = np.asarray(film(i, 80).convert("L")).astype(np.uint16) * 16
        uid = f"1.2.826.0.1.3680043.8.498.77.{i + 1}"
        dicom_file(
            folder / name,
            stored,
            **TAGS,
            PatientID=f"{RECORD}{i:02d}",
            AccessionNumber=ACCESSION,
            StudyInstanceUID=uid,
            SOPInstanceUID=uid,
            StudyDate="19320711",
            PatientComments=f"Zelda, {ACCESSION}",
        )
        begin = " ".join(SPOKEN)
        said = f"{begin} chest film of case {i}" if i % 6 == 5 else f"{begin} chest film {i}"
        rows.append({"file": name, "report": said, "finding": ["normal", "effusion"][i % 2]})
        rows[-1] |= {"doctor": "Dr Quimbywort, Zanzibar", "split": SPLITS[i % 6]}
    (folder / PATH / f"Quimbywort_{RECORD}_broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"Quimbywort")
    broken = {**rows[0], "file": f"{PATH}/Quimbywort_{RECORD}_broken.dcm"}
    report, sr = f"{PATH}/Quimbywort_{RECORD}_report.dcm", "1.2.840.10008.5.1.4.1.1.88.11"
    dicom_file(folder / report, None, **TAGS, Modality="QUIMBYWORT ZELDA", SOPClassUID=sr)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows([*rows, broken, {**rows[0], "file": report}])
    return folder


RECIPE = """
base: {{path: {base}}}
corpus:
  path: {corpus}
  reader: dicom
  columns: {{image: file, texts: report, labels: finding, split: split}}
  classes: {{normal: a normal film, effusion: a film with effusion}}
  max_unusable: 0.2
  privacy: {{identifiers: identified}}
strategy: full
train: {{epochs: 1, batch_size: 8, learning_rate: 1e-3, save_every: 1}}
evaluate: {{bootstrap_samples: 100}}
report: {{license: mit}}
roots: [{base}, {corpus}]
"""


def _held(places: list[Path], words: tuple[str, ...]) -> Iterator[str]:
    """Every file whose name or content holds one of the words, in any case or as UTF-16."""
    forms = [form for word in words for form in (word.lower().encode(), word.lower().encode("utf-16-le"))]
    for place in places:
        for file in sorted(place.rglob("*")):
            name = str(file.relative_to(place)).lower().encode()
            content = file.read_bytes().lower() if file.is_file() else b""
            for form in forms:
                if form in name or form in content:
                    yield f"{place.name}/{file.relative_to(place)}: {form.decode(errors='replace')}"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a cache of this test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "home"


def _run(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capfd.readouterr()
    return code, said.out + said.err


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    folder = _corpus(tmp_path / "corpus")
    assert len({line.split(": ")[1] for line in _held([folder], CANARIES)}) == len(
        {word.lower() for word in CANARIES} - {"1932-07-11"}
    )
    assert pydicom.dcmread(next((folder / PATH).glob("*_00.dcm"))).PatientID == f"{RECORD}00"


def test_nothing_tells_of_her(
    tmp_path: Path, base: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    corpus, out = _corpus(tmp_path / "corpus"), tmp_path / "out"
    out.mkdir()
    recipe = tmp_path / "films.yaml"
    recipe.write_text(RECIPE.format(base=base, corpus=corpus), encoding="utf-8")
    run, shards = tmp_path / "run", tmp_path / "shards"
    commands: list[tuple[object, ...]] = [
        ("data", "check", "-r", recipe, "--json", out / "c.json", "--html", out / "c.html", "--all"),
        ("data", "preview", "-r", recipe, "--items", 12, "--workers", 0, out / "preview.html"),
        ("plan", "-r", recipe, "--no-benchmark"),
        ("finetune", "-r", recipe, "--run-dir", run),
        ("eval", run, "--against", "base", "--out", out / "eval"),
        ("push", run, "--repo-id", "lab/films", "--dry-run"),
        ("data", "prepare", shards, "-r", recipe, "--workers", 1),
        ("data", "cache", "list"),
    ]
    said = {str(words[0]) + " " + str(words[1]): _run(capfd, *words) for words in commands}
    assert {command: code for command, (code, _) in said.items()} == dict.fromkeys(said, 0), said
    text = "".join(line for _, line in said.values())
    assert text.count("1 no pixel data") > 2  # the broken file was told of, and not by its name
    assert [word for word in CANARIES if word.lower() in text.lower()] == []
    assert (run / "checkpoints").is_dir()
    assert list(shards.glob("*.tar"))
    assert (tmp_path / "cache").is_dir()

    assert list(_held([run, shards, tmp_path / "cache", out], CANARIES)) == []
    # Of the home, all but the list of unusable files, which is there to name them to their owner.
    private = [f for f in _held([home], CANARIES) if "unusable-" not in f]
    assert private == []

    # Captions train, and are in the shards and on the sheet; they are no part of what is reported or leaves.
    assert [word for word in SPOKEN if word.lower() in text.lower()] == []
    kept = [line for line in _held([run, out], SPOKEN) if "preview.html" not in line]
    assert kept == []
    assert all(word in (out / "preview.html").read_text(encoding="utf-8") for word in SPOKEN)
    assert (out / "preview.html").stat().st_mode & 0o077 == 0
    members = []
    for file in shards.glob("*.tar"):
        with tarfile.open(file) as tar:
            members += tar.getnames()
    assert members
    names = "\n".join([*members, *map(str, (tmp_path / "cache").rglob("*"))]).lower()
    assert [word for word in SPOKEN if word.lower() in names] == []
    findings = json.loads((out / "c.json").read_text(encoding="utf-8"))["findings"]
    assert next(f for f in findings if f["code"] == "left_out")["where"] == ["row 25", "row 26"]


def test_no_suffix_in_a_tar_tells_of_her(
    tmp_path: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What stands behind the last dot of a member may be her name as well."""
    members = [m for i in range(PATIENTS) for m in pair(f"k{i}", 9 * i)]
    shards = tmp_path / PATH
    tar(shards / "000.tar", [*members, ("scan.QUIMBYWORT_ZELDA", b"x"), (f"{RECORD}.Zanzibar", b"x")])
    out = tmp_path / "out"
    out.mkdir()
    words = ("data", "check", "-c", "webdataset", shards, "--json", out / "c.json", "--html", out / "c.html")
    code, text = _run(capfd, *words, "--all", "--workers", 0)
    assert code == 0, text
    assert "2 members of other kinds not read" in (out / "c.html").read_text(encoding="utf-8")
    assert [word for word in CANARIES if word.lower() in text.lower()] == []
    assert list(_held([out, tmp_path / "cache"], CANARIES)) == []
