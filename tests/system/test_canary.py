"""Fault 34: a person who is made up stands in DICOM tags, names of files and folders and beside the captions; no
byte that a command writes or says may tell of her.
"""

from __future__ import annotations

import csv
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pydicom
import pytest
from huggingface_hub import constants
from pydicom.fileset import FileSet

from domainclip.cli.app import main
from domainclip.hub.upload import push
from tests.data.image_copies import film
from tests.data.made_corpora import dicom_file
from tests.data.made_dicom import container, report_file, text_item
from tests.data.made_shards import pair, tar
from tests.hub.local_hub import LocalHub

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
    for name in ("DOMAINCLIP_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "0")  # --offline sets them, for this process as well
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", datasets.config.HF_HUB_OFFLINE)
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


def _pushed(run: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The words of all that tells of her, and of this machine, that arrive at a Hub."""
    monkeypatch.setenv("DOMAINCLIP_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_NotAToken")
    huggingface_hub.close_session()
    with LocalHub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        push(run, "lab/films")
        sent = b"".join([call.path.encode() + call.body for call in server.requests]).lower()
        arrived = b"".join([*(name.encode() for name in server.files), *server.files.values()]).lower()
    huggingface_hub.close_session()
    assert {"README.md", "model.safetensors", "classes.json", "recipe.yaml"} <= {*server.files}
    words = {*CANARIES, *SPOKEN, str(run.parent), str(home)}
    return {word for word in words if word.lower().encode() in sent + arrived}


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_nothing_tells_of_her(
    tmp_path: Path,
    base: Path,
    home: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus, out = _corpus(tmp_path / "corpus"), tmp_path / "out"
    out.mkdir()
    recipe = tmp_path / "films.yaml"
    recipe.write_text(RECIPE.format(base=base, corpus=corpus), encoding="utf-8")
    run, shards, redacted = tmp_path / "run", tmp_path / "shards", tmp_path / "redacted"
    film = tmp_path / "film.dcm"  # her film under a name that says nothing
    film.write_bytes(next((corpus / PATH).glob("*_00.dcm")).read_bytes())
    commands: list[tuple[object, ...]] = [
        ("data", "prepare", tmp_path / "refused", "-r", recipe, "--workers", 1),
        ("data", "check", "-r", recipe, "--json", out / "c.json", "--html", out / "c.html", "--all"),
        ("data", "preview", "-r", recipe, "--items", 12, "--workers", 0, out / "preview.html"),
        ("plan", "-r", recipe, "--no-benchmark"),
        ("finetune", "-r", recipe, "--run-dir", run),
        ("eval", run, "--against", "base", "--out", out / "eval"),
        ("audit", run, "--corpus"),
        ("export", run, "--to", "transformers", "--out", out / "plain"),
        ("push", run, "--repo-id", "lab/films", "--dry-run"),
        ("classify", run, film, "--classes", "chest,hand"),
        ("search", run, "a film of a chest", "--in", film),
        ("embed", run, film, "--out", out / "film.npy"),
        ("data", "prepare", shards, "-r", recipe, "--workers", 1, "--identifiers", "keep"),
        ("data", "prepare", redacted, "-r", recipe, "--workers", 1, "--identifiers", "redact"),
        ("data", "cache", "list"),
    ]
    said = {" ".join(map(str, words)): _run(capfd, "--offline", *words) for words in commands}
    assert [code for code, _ in said.values()] == [3, *[0] * (len(said) - 1)], said
    assert "may identify a person" in said[" ".join(map(str, commands[0]))][1]
    assert not (tmp_path / "refused").exists()
    text = "".join(line for _, line in said.values())
    assert text.count("1 no pixel data") > 2  # the broken file was told of, and not by its name
    assert [word for word in CANARIES if word.lower() in text.lower()] == []
    assert (run / "checkpoints").is_dir()
    assert list(shards.glob("*.tar"))
    assert (tmp_path / "cache").is_dir()

    assert list(_held([run, shards, redacted, tmp_path / "cache", out], CANARIES)) == []
    # What forms show is redacted; a name alone, and a word, are not recognised.
    assert list(_held([redacted], SPOKEN[2:])) == []
    assert _pushed(run, home, monkeypatch).isdisjoint({*CANARIES, *SPOKEN, str(tmp_path), str(home)})
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
    assert "2 tar members of other kinds are not read" in (out / "c.html").read_text(encoding="utf-8")
    assert [word for word in CANARIES if word.lower() in text.lower()] == []
    assert list(_held([out, tmp_path / "cache"], CANARIES)) == []


# The same person in the places of each kind of corpus: names of files, columns and members, cells, headers.
TABLE = "image,caption,label,note\n"


def _images(folder: Path, count: int = 24) -> list[str]:
    """Images in a folder that names her; the last file is broken, and one is empty."""
    names = [f"{PATH}/Quimbywort_{RECORD}_{i:02d}.png" for i in range(count)]
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        film(i, 40).save(folder / name)
    (folder / names[-1]).write_bytes(b"\x89PNG Quimbywort " + ACCESSION.encode())
    (folder / names[-2]).write_bytes(b"")
    return names


def _cells(names: list[str]) -> list[dict[str, str]]:
    """Rows whose notes, and one caption, label and file name, hold her data; others are unusable."""
    rows = [{"image": name, "caption": f"film number {i}"} for i, name in enumerate(names)]
    for i, row in enumerate(rows):
        row |= {"label": ["normal", "effusion"][i % 2], "note": f"Zelda Quimbywort {ACCESSION}"}
    rows[0]["label"] = "Quimbywort, Zelda"  # the class of a single item
    rows[1]["caption"] = ""
    rows.append({"image": f"{PATH}/{RECORD}_gone.png", "caption": "a film", "label": "", "note": "Zanzibar"})
    rows.append({"image": "", "caption": f"film of {RECORD}", "label": "normal", "note": ""})
    return rows


def _csv(folder: Path) -> tuple[str, ...]:
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, TABLE.strip().split(","))
        table.writeheader()
        table.writerows(_cells(_images(folder)))
    return ("table", "corpus.columns.meta=[note]", "corpus.columns.labels=label")


def _outside(folder: Path) -> tuple[str, ...]:
    kind = _csv(folder)
    with (folder / "metadata.csv").open("a", encoding="utf-8") as stream:
        stream.write(f"../{RECORD}.png,a film,normal,Zanzibar\n")
    return kind


def _jsonl(folder: Path) -> tuple[str, ...]:
    rows = [json.dumps(row) for row in _cells(_images(folder))]
    rows.append(json.dumps({"image": {"bytes": "UXVpbWJ5d29ydA==", "path": RECORD}, "caption": ["Zelda", 3]}))
    (folder / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return ("table", "corpus.columns.meta=[note]", "corpus.columns.labels=label")


def _broken_csv(folder: Path) -> tuple[str, ...]:
    _images(folder)
    row = f'{PATH}/Quimbywort_{RECORD}_00.png,"Zelda, {ACCESSION}\n'
    (folder / "metadata.csv").write_text(TABLE + row * 4, encoding="utf-8")
    return ("table",)


def _broken_json(folder: Path) -> tuple[str, ...]:
    _images(folder)
    (folder / "metadata.jsonl").write_text(f'{{"image": "{RECORD}", "caption": Zelda {ACCESSION}\n')
    return ("table",)


def _no_header(folder: Path) -> tuple[str, ...]:
    names = _images(folder)
    rows = "".join(f"{name},Zelda Quimbywort {i},{ACCESSION}\n" for i, name in enumerate(names))
    (folder / "metadata.csv").write_text(rows, encoding="utf-8")
    return ("table",)


def _no_header_and_no_names(folder: Path) -> tuple[str, ...]:
    """Cells alone, with the name of the image in a key that the card should name."""
    _images(folder)
    rows = "".join(f"Zelda Quimbywort {i},{ACCESSION},{i}\n" for i in range(3))
    (folder / "metadata.csv").write_text(rows, encoding="utf-8")
    return ("table",)


def _folders(folder: Path) -> tuple[str, ...]:
    for i, name in enumerate(_images(folder)):
        place = folder / "train" / ["normal", "effusion"][i % 2]
        place.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(place / Path(name).name)
    (folder / "train" / "normal" / f"{RECORD}.Zanzibar").write_text("Zelda")
    return ("folder",)


def _folder_text(folder: Path) -> tuple[str, ...]:
    kind = _folders(folder)
    (folder / "train" / "normal" / f"Quimbywort_{RECORD}_00.txt").write_bytes(b"Zelda \xff")
    return kind


def _fits(folder: Path) -> tuple[str, ...]:
    from astropy.io import fits

    rows = []
    for i in range(12):
        name = f"{PATH}/Quimbywort_{RECORD}_{i:02d}.fits"
        (folder / name).parent.mkdir(exist_ok=True)
        header = fits.Header({"OBSERVER": "Quimbywort Zelda", "ORIGIN": "Wardenclyffe", "OBJECT": ACCESSION})
        pixels = np.random.default_rng(i).normal(100, 9, (0, 4) if i == 3 else (24, 24)).astype("float32")
        fits.PrimaryHDU(pixels, header).writeto(folder / name)
        rows.append(f"{name},a star {i}\n")
    (folder / PATH / f"Quimbywort_{RECORD}_04.fits").write_bytes(b"SIMPLE  = Quimbywort Zelda".ljust(2880))
    (folder / "metadata.csv").write_text("image,caption\n" + "".join(rows), encoding="utf-8")
    return ("table",)


def _shards(folder: Path) -> tuple[str, ...]:
    members = [
        m for i in range(12) for m in pair(f"Quimbywort {i}", 9 * i, caption=f"film {i}", note=ACCESSION)
    ]
    members += [("Zelda.png", b"\x89PNG Zelda"), ("Zelda.json", b'{"caption": Zelda'), ("alone.json", b"{}")]
    tar(folder / "train-000.tar", members)
    return ("webdataset",)


def _dicom_headers(folder: Path) -> tuple[str, ...]:
    """Each file has one attribute that breaks the standard, and her data in it."""
    canary = f"QUIMBYWORT^{RECORD}"
    rows = []
    for i in range(16):
        name = f"{PATH}/Quimbywort_{i:02d}.dcm"
        stored = np.asarray(film(i, 40).convert("L")).astype(np.uint16) * 16
        dicom_file(folder / name, stored, **TAGS, PatientID=RECORD, AccessionNumber=ACCESSION)
        data = pydicom.dcmread(folder / name)
        with pydicom.config.disable_value_validation():
            changes: list[tuple[str, str]] = [
                *(("PhotometricInterpretation", canary), ("WindowCenter", canary), ("RescaleSlope", canary)),
                *(("VOILUTFunction", canary), ("Modality", canary), ("PatientAge", canary)),
                *(("SOPClassUID", canary), ("PresentationLUTShape", canary), ("StudyInstanceUID", canary)),
            ]
            if i < len(changes):
                keyword, value = changes[i]
                data[keyword] = pydicom.DataElement(
                    pydicom.datadict.tag_for_keyword(keyword), "LO", value, already_converted=True
                )
            if i == 10:
                data.file_meta.TransferSyntaxUID = canary
            data.save_as(folder / name, enforce_file_format=False, implicit_vr=False, little_endian=True)
        rows.append(f"{name},film {i}\n")
    (folder / PATH / "cut.dcm").write_bytes((folder / PATH / "Quimbywort_15.dcm").read_bytes()[:700])
    rows.append(f"{PATH}/cut.dcm,film\n")
    (folder / "metadata.csv").write_text("image,caption\n" + "".join(rows), encoding="utf-8")
    return ("table",)


def _media(folder: Path) -> tuple[str, ...]:
    """A medium of an archive: a DICOMDIR that names her, structured reports of her, and two films that are gone."""
    films, tags = FileSet(), {**TAGS, "PatientID": RECORD, "AccessionNumber": ACCESSION, "StudyID": RECORD}
    for i in range(16):
        stored = np.asarray(film(i, 40).convert("L")).astype(np.uint16) * 16
        study = f"1.2.826.0.1.3680043.8.498.77.{i // 2}"
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1", "StudyDate": "19320711"}
        keys |= {"StudyTime": "101010", "SeriesNumber": "1", "InstanceNumber": str(i)}
        made = dicom_file(folder.parent / "one.dcm", stored, **tags, **keys)
        films.add(pydicom.dcmread(made))
    films.write(folder)
    images = sorted(folder.rglob("IM*"))
    (folder / f"Quimbywort_{RECORD}.dcm").write_bytes(images[0].read_bytes())
    for gone in images[1:4:2]:
        gone.unlink()
    for i in range(8):
        study = f"1.2.826.0.1.3680043.8.498.77.{i}"
        told = container("Findings", text_item("Finding", f"Zelda Quimbywort, {ACCESSION}: film {i}"))
        report_file(folder / f"{RECORD}_{i}.dcm", study, told, **tags)
    report_file(folder / "broken_sr.dcm", "1.2.826.0.1.3680043.8.498.77.1", VerifyingObserverName="Zanzibar")
    return ("dicom",)


CARD = """---
pretty_name: Films
license: unknown
domainclip:
  reader: {reader}
  privacy: {{identifiers: identified}}
---
Films.
"""


@pytest.mark.parametrize("full", [False, True])
def test_a_traceback_does_not_tell_of_her(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    """The message of an error of a library may hold a cell or a header: it is shown on demand only."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError(f"could not convert string to float: {CANARIES[1]}") from KeyError(RECORD)

    monkeypatch.setattr("domainclip.pipelines.export.export.export", fail)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("DOMAINCLIP_TRACEBACK", "full" if full else "")
    (tmp_path / "run/model").mkdir(parents=True)
    with pytest.raises(ValueError, match="Quimbywort") as caught:
        main(["export", str(tmp_path / "run"), "--to", "transformers", "--out", str(tmp_path / "out")])
    sys.excepthook(caught.type, caught.value, caught.tb)
    text = capfd.readouterr().err
    assert ("Quimbywort" in text, RECORD in text) == (full, full)
    assert "ValueError" in text
    assert "in fail" in text


KINDS = [
    *(_csv, _outside, _jsonl, _broken_csv, _broken_json, _no_header, _folders, _folder_text, _fits, _shards),
    *(_no_header_and_no_names, _dicom_headers, _media),
]


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")  # of pydicom's file sets
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__[1:])
def test_no_reader_tells_of_her(
    make: Callable[[Path], tuple[str, ...]],
    tmp_path: Path,
    home: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is broken in a corpus: neither the line of the error, nor a finding, page or cache names her."""
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    corpus.mkdir()
    out.mkdir()
    reader, *overrides = make(corpus)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "card.md").write_text(CARD.format(reader=reader), encoding="utf-8")
    words = ["data", "check", "-c", "card.md", "corpus", *overrides, "corpus.max_unusable=0.9", "--all"]
    words += ["--workers", "0", "--json", out / "c.json", "--html", out / "c.html", "--without-model"]
    code, text = _run(capfd, *words)
    assert code in (0, 3), text
    assert "Traceback" not in text
    assert [word for word in CANARIES if word.lower() in text.lower()] == [], text
    assert list(_held([out], CANARIES)) == []
    # The index of shards holds the keys of their members, and only the owner can read it.
    cached = [place.partition(": ")[0] for place in _held([tmp_path / "cache"], CANARIES)]
    assert all(make is _shards and (tmp_path / place).parent.stat().st_mode & 0o077 == 0 for place in cached)
    assert [place for place in _held([home], CANARIES) if "unusable-" not in place] == []
