"""`eval RUN corpus.path=NEW`: a corpus from elsewhere, in one command, whatever its layout."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset as DicomDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from domainclip.config import loading
from domainclip.config.recipe import Recipe
from domainclip.data.cards import load_card
from domainclip.data.corpus import load_corpus
from domainclip.errors import DataError, DomainclipError, RecipeError
from domainclip.evaluation import contamination
from domainclip.pipelines import evaluated_models, run_folder
from domainclip.pipelines.eval_request import EvalRequest, TrainedRun
from domainclip.pipelines.evaluate import evaluate_models
from domainclip.pipelines.external_evaluation import _rewrite_card, folder_of, statement
from domainclip.pipelines.measured_corpus import MeasuredCorpus, load_measured_corpus
from domainclip.pipelines.protocol import evaluation_sets
from domainclip.report import external_evaluations
from domainclip.report.external_evaluations import ExternalEvaluation
from domainclip.report.model_card import write_card
from tests.conftest import COLOURS, RECIPE
from tests.support.run_folders import results
from tests.support.tiny_models import tiny_clip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, base: Path, corpus: Path) -> Path:
    """A run on the squares as it lies on the disk: its model is another tiny CLIP."""
    folder = tmp_path_factory.mktemp("finished")
    file = folder / "squares.yaml"
    file.write_text(RECIPE.format(base=base, corpus=corpus) + "probes: [zero_shot]\n", encoding="utf-8")
    recipe = loading.load_recipe(str(file))
    trained = load_corpus(load_card(None, recipe.corpus.overrides()), recipe.corpus.path)
    (folder / "run").mkdir()
    run_folder.begin_run(folder / "run", recipe, contamination.record(trained), trained)
    tiny_clip(folder / "run" / "model", seed=3)
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "squares-1"))


def squares(folder: Path, count: int = 12, border: int = 90) -> list[tuple[str, str]]:
    """Images that differ from those of the corpus, with the class of each."""
    folder.mkdir(parents=True)
    names = sorted(COLOURS)
    listed = []
    for i in range(count):
        image = Image.new("RGB", (44, 44), (border, border, border))
        ImageDraw.Draw(image).rectangle((i, 5, 20 + i, 30), fill=COLOURS[names[i % 4]])
        image.save(folder / f"{i:02d}.png")
        listed.append((f"{i:02d}.png", names[i % 4]))
    return listed


def table(file: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def measured(run: Path, *changes: str, **options: Any) -> tuple[Path, dict[str, Any]]:
    """The folder of the report and its results."""
    page = evaluate_models(EvalRequest(models=[str(run)], overrides=changes, **options))
    assert page is not None
    return page.parent, json.loads((page.parent / "results.json").read_text(encoding="utf-8"))


def items(data: dict[str, Any]) -> int:
    return int(data["protocol"]["probes"][0]["items"])


# --- one command for each layout ------------------------------------------------------------------------


def test_a_table_without_splits_is_measured_whole(run: Path, tmp_path: Path, caplog: Any) -> None:
    listed = squares(tmp_path / "clinic" / "png")
    rows = [[f"png/{name}", label.capitalize()] for name, label in listed]
    rows.append(["png/00.png", ""])  # neither class nor caption
    table(tmp_path / "clinic" / "labels.csv", ["path", "class"], rows)
    folder, data = measured(run, f"corpus.path={tmp_path / 'clinic'}", against="base")
    assert folder == run / "eval" / "clinic"
    assert items(data) == 12
    assert data["protocol"]["external"] == (
        "external test set: all 12 items are measured; none was trained on"
    )
    assert "all 12 items are measured; none was trained on" in caplog.text
    assert "left out: 1 empty caption" in data["warnings"]
    assert "all 12 items are measured; none was trained on" in (folder / "report.md").read_text()
    prompts = data["protocol"]["probes"][0]["details"]["prompts"]
    assert sorted(prompts) == sorted(COLOURS)  # the classes of the run, not "Red"
    assert prompts["red"]["positive"] == ["a red square"]
    assert data["corpus"]["name"] == "External test set"
    assert data["protocol"]["split_usage"] == {
        "split": "all",
        "evaluations": 1,
        "adapted_models": 1,
        "prompts": 1,
    }


def test_class_folders(run: Path, tmp_path: Path) -> None:
    for name, label in squares(tmp_path / "flat"):
        (tmp_path / "folders" / label.upper()).mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "flat" / name, tmp_path / "folders" / label.upper())
    _, data = measured(run, f"corpus.path={tmp_path / 'folders'}")
    assert items(data) == 12
    (accuracy,) = (
        row for row in data["results"] if row["metric"] == "accuracy" and row["probe"] == "zero_shot"
    )
    assert accuracy["items"] == 12


def test_a_folder_of_dicom_files_with_a_table(run: Path, tmp_path: Path) -> None:
    (tmp_path / "dicom" / "files").mkdir(parents=True)
    rows = []
    for i in range(6):
        file = tmp_path / "dicom" / "files" / f"image{i}"
        write_dicom(
            file, f"patient {i // 2}", np.full((20, 24), 40 * i, np.uint16) + np.arange(24, dtype=np.uint16)
        )
        rows.append([f"files/{file.name}", ("red", "blue")[i % 2]])
    table(tmp_path / "dicom" / "list.csv", ["file", "label"], rows)
    _, data = measured(run, f"corpus.path={tmp_path / 'dicom'}")
    assert items(data) == 6
    assert data["corpus"]["splits"]["test"] == {"items": 6, "groups": 3}  # the patients of the files
    assert any("corpus.reader: dicom, by its files" in text for text in data["warnings"])


def write_dicom(file: Path, patient: str, pixels: np.ndarray) -> None:
    data = DicomDataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", generate_uid()
    data.PatientID, data.Modality = patient, "CR"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = pixels.astype("<u2").tobytes()
    data.save_as(file, enforce_file_format=True)


def read(run: Path, *changes: str) -> tuple[MeasuredCorpus, str]:
    """The corpus as `eval` reads it, and the statement of the report; nothing is measured."""
    recipe = loading.load_recipe(str(run / "recipe.yaml"), changes)
    of_run = TrainedRun(run, loading.load_recipe(str(run / "recipe.yaml")))
    found = load_measured_corpus(recipe, of_run, changes, own_recipe=True)
    return found, statement(found, of_run, evaluation_sets(recipe, found.corpus, None)[0])


def test_the_splits_of_an_external_corpus_are_used(run: Path, tmp_path: Path) -> None:
    listed = squares(tmp_path / "new")
    rows = [[name, label, ("train", "test")[i % 3 == 0]] for i, (name, label) in enumerate(listed)]
    table(tmp_path / "new" / "metadata.csv", ["file_name", "label", "split"], rows)
    new = f"corpus.path={tmp_path / 'new'}"
    found, text = read(run, new)
    assert text == "external test set: its test split, 4 of 12 items, is measured; none was trained on"
    assert len(found.corpus.splits["train"]) == 8  # without captions: probes may fit on them
    _, text = read(run, new, "corpus.columns.split=")
    assert text == "external test set: all 12 items are measured; none was trained on"
    table(
        tmp_path / "new" / "metadata.csv", ["file_name", "label", "split"], [[*r[:2], "train"] for r in rows]
    )
    with pytest.raises(DataError) as error:
        read(run, new)
    assert str(error.value).startswith("corpus.path: none of 12 items is in the test split")
    assert 'corpus.columns.split=""' in str(error.value)


def test_another_recipe_lends_its_card_and_the_base_is_that_of_the_run(
    run: Path, recipe_file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    text = recipe_file.read_text().replace(
        str(loading.load_recipe(str(recipe_file)).base.path), "nobody/nothing"
    )
    other.write_text(text + "curation: {labels_to_captions: {templates: ['a {}']}}\n")
    listed = squares(tmp_path / "new")
    table(
        tmp_path / "new" / "metadata.csv", ["file_name", "label", "split"], [[*row, "test"] for row in listed]
    )
    _, data = measured(run, f"corpus.path={tmp_path / 'new'}", recipe=str(other), against="base")
    assert items(data) == 12
    assert data["base"]["name"] == "clip"  # "nobody/nothing" was never asked for


def test_runs_with_different_bases_have_no_common_base(run: Path, tmp_path: Path) -> None:
    second = tmp_path / "runs" / "squares-2"
    shutil.copytree(run, second)
    text = (second / "recipe.yaml").read_text()
    recipe = loading.load_recipe(str(run / "recipe.yaml"))
    (second / "recipe.yaml").write_text(text.replace(recipe.base.path, str(run / "model")))
    with pytest.raises(RecipeError) as error:
        evaluate_models(EvalRequest(models=[str(run), str(second)], against="base"))
    assert str(error.value) == (
        "eval: base: the 2 runs have 2 different bases: name one of them with --against, or compare the runs without base"
    )


# --- the corpus of the run at another place -------------------------------------------------------------


@pytest.mark.parametrize("with_splits", [True, False])
def test_a_copy_of_the_trained_corpus_is_not_external(
    run: Path, recipe_file: Path, corpus: Path, tmp_path: Path, with_splits: bool
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    if not with_splits:  # then the card divides it, and the run was trained on its part
        with (copy / "metadata.csv").open(newline="", encoding="utf-8") as stream:
            lines = list(csv.reader(stream))
        table(copy / "metadata.csv", lines[0][:-1], [line[:-1] for line in lines[1:]])
        change = "corpus.columns.split="
        recipe: Recipe = loading.load_recipe(str(recipe_file), [change, f"corpus.path={copy}"])
        trained = load_corpus(load_card(None, recipe.corpus.overrides()), recipe.corpus.path)
        run_folder.begin_run(run, recipe, contamination.record(trained), trained)
        shutil.copytree(copy, tmp_path / "moved")
        copy = tmp_path / "moved"
    found, text = read(run, f"corpus.path={copy}")
    assert found.external is False
    assert text.startswith("no external test set was measured")
    assert 0 < len(found.corpus.splits["test"]) < 30


def test_images_that_were_trained_on_are_named(run: Path, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "mixed")
    with (corpus / "metadata.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))[:20]
    table(
        tmp_path / "mixed" / "metadata.csv", ["file", "label"], [[r["file_name"], r["label"]] for r in rows]
    )
    _, text = read(run, f"corpus.path={tmp_path / 'mixed'}")
    assert text == "external test set: all 20 items are measured; 20 were trained on"


# --- faults are reported before any weight is loaded ----------------------------------------------------

FAULTS = {
    "no such path": (
        ["corpus.path={new}/nothing"],
        "corpus.path: {new}/nothing does not exist: name a table",
    ),
    "no such column": (
        ["corpus.path={new}", "corpus.columns.labels=findng"],
        'metadata.csv: no column "findng" (corpus.columns.labels): did you mean "finding"?',
    ),
    "no image column": (
        ["corpus.path={new}/other.csv"],
        "other.csv: no column names the images: set corpus.columns",
    ),
    "nothing to measure": (
        ["corpus.path={new}/bare.csv"],
        "bare.csv: no column names classes or captions: set corpus.columns.labels or corpus.columns.texts; "
        "there are: file, age",
    ),
    "no class": (
        ["corpus.path={new}/people"],
        "corpus.path: no folder in it has the name of a class of the run",
    ),
    "no layout": (
        ["corpus.path={new}/notes.txt"],
        "corpus.path: notes.txt is neither a table nor a folder of images",
    ),
    "wrong classes": (
        ["corpus.path={new}", "corpus.columns.labels=finding"],
        "--classes: no item of test has one of",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_of_the_corpus_is_reported_before_a_weight_is_loaded(
    case: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluated_models, "load_model", lambda *_: pytest.fail("weights were loaded"))
    new = tmp_path / "new"
    listed = squares(new, 4)
    table(new / "metadata.csv", ["file", "finding"], listed)
    table(new / "other.csv", ["number", "label"], [["1", "red"]])
    table(new / "bare.csv", ["file", "age"], [["00.png", "40"]])
    (new / "notes.txt").write_text("a note")
    for person in ("Smith John", "Doe Jane"):
        squares(new / "people" / person, 2, border=len(person))
    changes, message = FAULTS[case]
    options = {"classes": "cat,dog"} if case == "wrong classes" else {}
    with pytest.raises(DomainclipError) as error:
        measured(run, *(change.format(new=new) for change in changes), **options)
    assert str(error.value).startswith(message.format(new=new))
    assert "Smith" not in str(error.value)


# --- what the run and its card state --------------------------------------------------------------------


def test_the_run_and_its_card_state_that_it_was_done(run: Path, tmp_path: Path) -> None:
    (run / "results.json").write_text(results().model_dump_json(), encoding="utf-8")
    write_card(run, results())
    before = (run / "README.md").read_text(encoding="utf-8")
    assert "**Not measured.** The results above hold for the sources of the training data" in before
    listed = squares(tmp_path / "new")
    table(tmp_path / "new" / "metadata.csv", ["file_name", "label"], listed)
    measured(run, f"corpus.path={tmp_path / 'new'}", "corpus.pretty_name=Hospital B", against="base")
    (line,) = (run / "external.jsonl").read_text(encoding="utf-8").splitlines()
    entry = json.loads(line)
    assert (entry["corpus"], entry["items"], entry["groups"]) == ("Hospital B", 12, 12)
    assert str(tmp_path) not in line
    card = (run / "README.md").read_text(encoding="utf-8")
    assert "**Not measured.** The results above" not in card
    assert "- Hospital B, 12 items, 12 groups" in card
    # A card that was edited stays as it is; of one corpus, the card quotes the last evaluation.
    (run / "README.md").write_text(card + "\nBy hand.\n", encoding="utf-8")
    again = ExternalEvaluation.model_validate(entry | {"corpus": "Hospital C"})
    external_evaluations.add(run, again)
    _rewrite_card(run, before)
    assert (run / "README.md").read_text(encoding="utf-8") == card + "\nBy hand.\n"
    assert [known.corpus for known in external_evaluations.load(run)] == ["Hospital C"]


def test_two_corpora_of_one_name_have_two_reports(run: Path) -> None:
    """A folder with a report on another corpus is not written over; one on the same corpus is."""

    def of(fingerprint: str) -> MeasuredCorpus:
        corpus = SimpleNamespace(fingerprint=fingerprint)
        return MeasuredCorpus(corpus, external=True, name="new")  # type: ignore[arg-type]

    assert folder_of(run / "eval", of("a" * 64)) == run / "eval" / "new"
    (run / "eval" / "new").mkdir(parents=True)
    (run / "eval" / "new" / "results.json").write_text(json.dumps({"corpus": {"fingerprint": "a" * 64}}))
    assert folder_of(run / "eval", of("a" * 64)) == run / "eval" / "new"
    assert folder_of(run / "eval", of("b" * 64)) == run / "eval" / "new-bbbbbbbb"
