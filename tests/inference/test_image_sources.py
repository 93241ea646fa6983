"""Arguments become a list of images: files, folders, patterns, tables and tar shards; nothing is dropped."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from domainclip.data.images.fits_settings import FitsSettings
from domainclip.data.images.image_settings import ImageSettings
from domainclip.errors import DataError, ModelError, RecipeError
from domainclip.inference.image_sources import Rendering, SourceList, list_sources
from domainclip.inference.typed_files import TypedFile, check_model, check_new_file, find_files
from tests.data.made_corpora import dicom_file, noise_image, table


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def listed(*words: str, column: str | None = None) -> SourceList:
    return list_sources(find_files(words), column)


def names(*words: str) -> list[str]:
    return [source.name for source in listed(*words).sources]


def test_names_are_those_that_were_typed_and_what_lies_below_them() -> None:
    for name in ("a/b/two.png", "a/one.png", "three.png"):
        noise_image(Path(name))
    assert names("three.png", "a") == ["three.png", "a/one.png", "a/b/two.png"]
    assert names("a/", "./three.png") == ["a/one.png", "a/b/two.png", "./three.png"]


def test_a_file_that_is_named_twice_is_read_once() -> None:
    noise_image(Path("a/one.png"))
    assert names("a/one.png", "a/*.png", "./a/one.png") == ["a/one.png"]


def test_patterns_match_in_sorted_order_and_a_real_name_comes_first() -> None:
    for name in ("x/2.png", "x/1.png", "x/y/3.png", "x/[1].png"):
        noise_image(Path(name))
    assert names("x/[12].png") == ["x/1.png", "x/2.png"]
    assert names("x/[1].png") == ["x/[1].png"]  # a file has this name
    assert names("x/**/*.png") == ["x/1.png", "x/2.png", "x/[1].png", "x/y/3.png"]


def test_names_in_any_script() -> None:
    noise_image(Path("bilder/Größe 1.png"))
    noise_image(Path("bilder/図.png"))
    assert names("bilder") == ["bilder/Größe 1.png", "bilder/図.png"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("flim.png", "flim.png: no such file or folder$"),  # a similar name may be a patient's
        ("*.jpg", r"\*.jpg: no file has a name of this pattern"),
        ("https://example.org/a.png", "an address, not a file: fetch it first"),
    ],
)
def test_a_word_that_names_nothing(word: str, message: str) -> None:
    noise_image(Path("film.png"))
    with pytest.raises(DataError, match=message):
        find_files([word])


def test_a_folder_without_images_names_what_it_holds() -> None:
    Path("shards").mkdir()
    Path("shards/a.tar").touch()
    with pytest.raises(DataError, match=r"shards: no images .* in it: name its .tar files themselves"):
        listed("shards")
    noise_image(Path("mixed/a.png"))
    Path("mixed/film.mp4").touch()
    assert listed("mixed").notes == ["mixed: files that are not images are left out: 1 .mp4"]


def test_rows_of_a_table_name_images_in_its_folder() -> None:
    table(Path("t"), [{"file_name": "images/é.png", "text": "a"}, {"file_name": "images/b.png", "text": "b"}])
    with Path("t/metadata.csv").open("a", encoding="utf-8") as stream:
        stream.write("../secret.png,c\n,d\n")
    noise_image(Path("secret.png"))
    sources = listed("t/metadata.csv").sources
    assert [(one.name, one.fault) for one in sources] == [
        ("images/é.png", ""),
        ("images/b.png", ""),
        ("t/metadata.csv: row 3", "lies outside the folder of the table: move or copy it inside"),
        ("t/metadata.csv: row 4", "empty cell"),
    ]
    assert sources[0].image["path"] == str(Path("t/images/é.png").resolve())


def test_the_column_of_a_table_is_named_or_guessed() -> None:
    table(Path("t"), [{"file_name": "a.png", "scan": "b.png"}])
    assert names("t/metadata.csv") == ["a.png"]
    assert listed("t/metadata.csv", column="scan").sources[0].name == "b.png"
    with pytest.raises(DataError, match=r'no column "scna" \(--image-column\): did you mean "scan"\?'):
        listed("t/metadata.csv", column="scna")
    Path("u.csv").write_text("one,two\n1,2\n")
    with pytest.raises(DataError, match="name it with --image-column; there are: one, two"):
        listed("u.csv")


def test_samples_of_tar_shards_and_their_faults() -> None:
    image = noise_image(Path("i.png")).read_bytes()
    for number in (0, 1):
        with tarfile.open(f"s-{number}.tar", "w") as archive:
            for name, data in (
                (f"k{number}.png", image),
                (f"k{number}.txt", b"text"),
                ("note.txt", b"alone"),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    cut = Path("s-1.tar").read_bytes()[:600]
    Path("s-1.tar").write_bytes(cut)
    found = listed("s-{0..1}.tar")
    assert [(one.name, one.fault) for one in found.sources] == [
        ("s-0.tar: k0.png", ""),
        ("s-1.tar: member 1", "cut tar"),
    ]
    assert found.notes == ["s-0.tar: 1 samples without an image are left out"]


def test_dicom_files_without_a_suffix_are_images_of_a_folder() -> None:
    dicom_file(Path("study/IM0001"), np.zeros((4, 4), np.uint16))
    Path("study/README").write_text("text")
    assert names("study") == ["study/IM0001"]
    assert names("study/IM0001#frame=0") == ["study/IM0001#frame=0"]


def test_images_are_shown_as_in_the_corpus_of_the_run() -> None:
    scan = dicom_file(Path("scan.dcm"), np.zeros((4, 4), np.uint16))
    fits = Path("field.fits")
    fits.write_bytes(b"SIMPLE  =                    T" + b" " * 3000)
    rendering = Rendering(ImageSettings(fits=FitsSettings(stretch="log")), "lung")
    files = [TypedFile(str(file), str(file)) for file in (scan, fits)]
    shown = [one.image["path"] for one in list_sources(files, rendering=rendering).sources]
    assert shown == ["scan.dcm#window=lung", "field.fits#stretch=log"]
    typed = [TypedFile("scan.dcm#window=1", "scan.dcm#window=1")]  # takes precedence
    assert list_sources(typed, rendering=rendering).sources[0].image["path"] == "scan.dcm#window=1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/pest-1", r'runs/pest-1: no such run or model folder: did you mean "pets-1"\?'),
        ("/nowhere/run", "/nowhere/run: no such run or model folder"),
        ("pets", "pets: no such run or model folder"),
        ("film.png", "film.png: a file: name the run folder"),
        (
            "runs/begun",
            "runs/begun: this run has no model yet: continue it with domainclip finetune --resume",
        ),
        ("runs/several", "runs/several: holds a run for each seed: name one, as runs/several/seed-0"),
        ("runs", "runs: neither a run folder nor a model folder"),
    ],
)
def test_a_name_that_is_no_run(name: str, message: str) -> None:
    for folder in (
        "runs/pets-1/model",
        "runs/begun",
        "runs/several/seed-0/model",
        "runs/pets-1/checkpoints/8",
    ):
        Path(folder).mkdir(parents=True)
    Path("runs/pets-1/model/adapter_config.json").write_text("{}")
    for name_of_file in ("MANIFEST.json", "state.json"):
        Path("runs/pets-1/checkpoints/8", name_of_file).touch()
    Path("runs/begun/recipe.yaml").write_text("base: b\n")
    noise_image(Path("film.png"))
    with pytest.raises(ModelError, match=message):
        check_model(name)
    for valid in (
        "runs/pets-1",
        "runs/pets-1/model",
        "runs/pets-1/checkpoints/8",
        "openai/clip-vit-base-patch32",
    ):
        check_model(valid)


def test_a_file_to_write_is_new_and_of_a_known_kind() -> None:
    Path("old.csv").touch()
    for name, message in (
        ("old.csv", "exists already"),
        ("a.txt", "end its name in .csv, .npy"),
        ("no/a.csv", "no such folder"),
    ):
        with pytest.raises(RecipeError, match=message):
            check_new_file(Path(name), (".csv", ".npy"), "--out")
