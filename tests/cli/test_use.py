"""`classify`, `search` and `embed` as typed: whole outputs, exit codes, and the accuracy of the evaluation."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from domainclip.cli.app import main
from domainclip.data.cards import load_card
from domainclip.data.corpus import load_corpus
from domainclip.evaluation import run_classes
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.class_decisions import Decisions
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.inference.adapted_model import load_model
from tests.conftest import COLOURS
from tests.data.made_corpora import dicom_file, noise_image
from tests.evaluation.probes.synthetic_sets import metric_value

Run = Callable[..., tuple[int, str, str]]
CARD = {
    "columns": {
        "image": "file_name",
        "texts": "text",
        "labels": "label",
        "group": "group_id",
        "split": "split",
    },
    "templates": ["a {} square"],
    "min_items": 1,
    "privacy": {"identifiers": "none", "burned_in_text": "no"},
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process: its exit code, output and errors."""

    def go(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        output = capsys.readouterr()
        return code, output.out, output.err

    return go


@pytest.fixture
def squares(tmp_path: Path, base: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the run folder `run` of the tiny base on the corpus of squares."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    shutil.copytree(base, "run/model")
    Path("run/recipe.yaml").write_text("base: b\n")
    run_classes.save(Path("run"), run_classes.of_corpus(load_corpus(load_card(None, CARD), str(corpus))))
    return tmp_path


def record(**decisions: object) -> None:
    """Write the decisions of an evaluation beside the weights."""
    classes = run_classes.load("run")
    assert classes is not None
    chosen = Decisions.model_validate(decisions)
    run_classes.save(Path("run/model"), classes.model_copy(update={"decisions": chosen}))


def test_the_test_split_has_the_accuracy_of_the_probe(run: Run, squares: Path, corpus: Path) -> None:
    """Command, Python API and probe give the same answers for the same items."""
    read = load_corpus(load_card(None, CARD), str(corpus))
    items = read.splits["test"]
    model = load_model("run", device="cpu")
    measured = ZeroShot()(model.encoder, EvaluationSet("test", items, read.card, read.classes))
    with (corpus / "metadata.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    files = [corpus / row["file_name"] for row in rows]
    code, out, err = run("classify", "run", *files, "--json", "-q")
    assert (code, err) == (0, "")
    document = json.loads(out)
    answers = [image["class"] for image in document["images"]]
    accuracy = np.mean([one == row["label"] for one, row in zip(answers, rows, strict=True)])
    assert accuracy == pytest.approx(metric_value(measured, "accuracy"))
    by_api = model.classify(files)
    assert [image["probabilities"] for image in document["images"]] == [one.probabilities for one in by_api]
    assert (document["calibrated"], document["classes"]) == (False, sorted(COLOURS))


def test_one_dicom_file_in_one_line(run: Run, squares: Path) -> None:
    """No value of the header, and no path but the typed one, is in the output."""
    values = {"PatientName": "DOE^JANE", "PatientID": "4711", "InstitutionName": "St. Elsewhere"}
    dicom_file(Path("film.dcm"), np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16), **values)
    code, out, err = run("classify", "run", "film.dcm")
    assert code == 0
    header, *lines = [line.split() for line in out.splitlines()]
    assert header == ["class", "probability"]
    assert {line[0] for line in lines} == set(COLOURS)
    assert sum(float(line[1]) for line in lines) == pytest.approx(1, abs=0.003)
    assert err == (
        "note: probabilities are not calibrated: calibration of these classes was not measured; it is measured "
        "by domainclip eval run --against base --suite core\n"
    )
    text = (
        out
        + err
        + run("classify", "run", "film.dcm", "--json")[1]
        + run("classify", "run", "film.dcm", "--csv")[1]
    )
    assert not [
        value for value in (*values.values(), "JANE", str(squares), str(Path.home())) if value in text
    ]


def test_calibration_is_stated_where_it_was_measured(run: Run, squares: Path) -> None:
    noise_image(Path("a.png"))
    before = json.loads(run("classify", "run", "a.png", "--json")[1])
    record(temperature=2.5, calibration_error=0.0312, calibration_split="test", calibration_items=16)
    code, _, err = run("classify", "run", "a.png")
    assert (code, err) == (
        0,
        "note: probabilities have the temperature 2.50, fitted on validation; expected calibration error then: "
        "0.031 on 16 items of the test split\n",
    )
    after = json.loads(run("classify", "run", "a.png", "--json")[1])
    assert (after["calibrated"], after["temperature"]) == (True, 2.5)
    logits = {name: np.log(value) / 2.5 for name, value in before["images"][0]["probabilities"].items()}
    total = sum(np.exp(value) for value in logits.values())
    expected = {name: float(np.exp(value) / total) for name, value in logits.items()}
    assert after["images"][0]["probabilities"] == pytest.approx(expected, abs=1e-6)


def test_findings_of_a_run_with_several_labels(run: Run, squares: Path) -> None:
    classes = run_classes.load("run")
    assert classes is not None
    opposed = {
        name: prompts.model_copy(update={"negative": [f"no {name} square"]})
        for name, prompts in classes.classes.items()
    }
    several = classes.model_copy(update={"multi_label": True, "classes": opposed})
    run_classes.save(Path("run"), several)
    thresholds = {"red": -100.0, "blue": 100.0, "green": 0.0}
    run_classes.save(
        Path("run/model"), several.model_copy(update={"decisions": Decisions(thresholds=thresholds)})
    )
    noise_image(Path("a.png"))
    code, out, _ = run("classify", "run", "a.png", "--csv", "--classes", "red,blue")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, list(rows[0])) == (0, ["image", "present", "red", "blue", "unreadable"])
    assert rows[0]["present"] == "red"
    code, out, _ = run("classify", "run", "a.png", "--json")
    findings = json.loads(out)["images"][0]["findings"]
    assert (findings["red"]["present"], findings["blue"]["present"]) == (True, False)
    assert (findings["white"]["threshold"], findings["white"]["present"]) == (None, None)
    assert findings["green"]["threshold_probability"] == 0.5
    assert findings["green"]["present"] == (findings["green"]["probability"] >= 0.5)
    table = run("classify", "run", "a.png")[1].splitlines()
    assert table[0].split() == ["image", "finding", "probability", "threshold", "present"]
    assert len(table) == 5


def test_an_unreadable_file_among_good_ones(run: Run, squares: Path) -> None:
    """It is in every form of the output, and in the exit code."""
    for i in range(3):
        noise_image(Path(f"p/{i}.png"), seed=i)
    Path("p/1.png").write_bytes(Path("p/1.png").read_bytes()[:50])
    code, out, err = run("classify", "run", "p", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["image"], row["unreadable"]) for row in rows] == [
        ("p/0.png", ""),
        ("p/2.png", ""),
        ("p/1.png", "truncated image"),
    ]
    assert (code, err) == (
        3,
        "p/1.png: truncated image\ndomainclip: 1 of 3 images cannot be read: 1 truncated image\n",
    )
    assert json.loads(run("classify", "run", "p", "--json")[1])["unreadable"] == [
        {"image": "p/1.png", "reason": "truncated image"}
    ]
    assert run("search", "run", "red", "--in", "p")[0] == 3
    assert run("embed", "run", "p", "--out", "e.npy")[0] == 3
    assert np.load("e.npy").shape[0] == 2


def test_files_of_every_kind_in_one_call(run: Run, squares: Path) -> None:
    """A FITS image, a tar shard, a table and a folder; each image has the class that it has alone."""
    astropy = pytest.importorskip("astropy.io.fits", reason="needs the astro extra")
    pixels = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    astropy.PrimaryHDU(pixels).writeto("field.fits")
    image = noise_image(Path("p/1.png"), seed=1)
    Path("t.csv").write_text("file_name\np/1.png\n")
    with tarfile.open("s.tar", "w") as archive:
        archive.add(image, "k.png")
    code, out, _ = run("classify", "run", "field.fits", "s.tar", "t.csv", "p", "--json")
    answers = {one["image"]: one["probabilities"] for one in json.loads(out)["images"]}
    assert (code, list(answers)) == (0, ["field.fits", "s.tar: k.png", "p/1.png"])
    model = load_model("run", device="cpu")
    for name, source in (("field.fits", "field.fits"), ("s.tar: k.png", image), ("p/1.png", image)):
        alone = model.classify([source])[0].probabilities
        assert answers[name] == pytest.approx(alone, abs=1e-5)


def test_other_classes_and_templates(run: Run, squares: Path) -> None:
    noise_image(Path("a.png"))
    code, out, _ = run(
        "classify",
        "run",
        "a.png",
        "--json",
        "--classes",
        "cat,dog",
        "--templates",
        "one {}",
        "--templates",
        "{}",
    )
    expected = load_model("run", device="cpu").classify(
        ["a.png"], {name: [f"one {name}", name] for name in ("cat", "dog")}
    )
    assert (code, json.loads(out)["images"][0]["probabilities"]) == (0, expected[0].probabilities)


def test_search_prints_ranks_cosines_and_names(run: Run, squares: Path) -> None:
    for i in range(3):
        noise_image(Path(f"p/{i}.png"), seed=i)
    code, out, err = run("search", "run", "--image", "p/1.png", "--in", "p", "--top", "2", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err) == (0, "")
    assert (rows[0]["rank"], rows[0]["image"]) == ("1", "p/1.png")
    assert float(rows[0]["cosine"]) == pytest.approx(1, abs=2e-6)
    assert len(rows) == 2
    document = json.loads(run("search", "run", "a red square", "--in", "p", "--json")[1])
    assert (document["searched"], len(document["results"])) == (3, 3)
    table = run("search", "run", "a red square", "--in", "p", "--top", "1")[1].splitlines()
    assert table[0].split() == ["rank", "cosine", "image"]
    assert table[1].split()[2] == document["results"][0]["image"]


def test_embed_prints_the_file(run: Run, squares: Path) -> None:
    for i in range(2):
        noise_image(Path(f"p/{i}.png"), seed=i)
    assert run("embed", "run", "p", "--out", "e.npy", "-q") == (0, "e.npy\n", "")
    model = load_model("run", device="cpu")
    np.testing.assert_array_equal(np.load("e.npy"), model.encode_images(["p/0.png", "p/1.png"]))
    facts = json.loads(Path("e.npy.json").read_text())
    assert (facts["model"], facts["fingerprint"], facts["ids"]) == (
        "run",
        model.fingerprint,
        ["p/0.png", "p/1.png"],
    )
    document = json.loads(run("embed", "run", "p", "--out", "e.csv", "--json")[1])
    assert (document["rows"], document["width"], document["out"]) == (2, model.width, "e.csv")


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("classify run no.png", 3, "no.png: no such file or folder"),
        ("classify rnu a.png", 4, 'rnu: no such run or model folder: did you mean "run"?'),
        ("classify run a.png --json --csv", 2, "--json and --csv: name one of them"),
        ("search run --in a.png", 2, "search: name words, or an image with --image, or both"),
        ("search run red", 2, "--in: name the images to search, as --in photos/"),
        ("search run red --in a.png --text-weight 2", 2, "--text-weight: must lie between 0 and 1, got 2"),
        (
            "embed run a.png --out e.txt",
            2,
            "--out e.txt: unknown kind of file: end its name in .parquet, .npy, .csv",
        ),
    ],
)
def test_errors_come_before_the_model(
    run: Run, squares: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: int, line: str
) -> None:
    noise_image(Path("a.png"))
    monkeypatch.setitem(sys.modules, "domainclip.inference.adapted_model", None)  # its import would fail
    assert run(*words.split()) == (code, "", f"domainclip: {line}\n")


def test_a_wrong_name_imports_neither_torch_nor_datasets(squares: Path) -> None:
    script = (
        "import sys\nfrom domainclip.cli.app import main\n"
        "try:\n    main(['classify', 'run', 'no.png'])\n"
        "except SystemExit:\n    print(sorted({'torch', 'datasets', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_model_without_classes_needs_them(run: Run, squares: Path) -> None:
    noise_image(Path("a.png"))
    Path("run/classes.json").unlink()
    code, _, err = run("classify", "run", "a.png")
    assert code == 2
    assert err == 'domainclip: --classes: the model records no classes: name them, as --classes "cat,dog"\n'
