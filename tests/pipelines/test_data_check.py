from __future__ import annotations

import base64
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainclip.cli.app import main
from domainclip.data.images.decode import decode_image
from domainclip.errors import RecipeError
from domainclip.models import loading
from domainclip.pipelines.data_check import check, contact_sheet
from domainclip.pipelines.data_check import page as data_check_page
from domainclip.pipelines.data_check.contact_sheet import fits
from domainclip.pipelines.data_check.target import from_card, from_recipe
from tests.data.image_copies import COPIES, film
from tests.data.made_corpora import dicom_file
from tests.support.tiny_models import tiny_siglip2_naflex

Said = tuple[int, str, str]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Twelve films in three splits, one caption too long, one hostile."""
    folder = tmp_path / "films"
    folder.mkdir()
    lines = ["file_name,text,label,group,split"]
    for i, split in enumerate(["train"] * 8 + ["val"] * 2 + ["test"] * 2):
        film(i).save(folder / f"{i}.png")
        text = {1: "<script>alert(1)</script> & [bold]", 2: "a red cat " * 40}.get(i, f"a film {i}")
        lines.append(f"{i}.png,{text.strip()},{'cat' if i % 2 else 'dog'},g{i},{split}")
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


RECIPE = """
base: {{path: {base}}}
corpus:
  path: {corpus}
  templates: ["a {{}}"]
  min_items: 1
  privacy: {{identifiers: {identifiers}}}
strategy: full
train: {{augmentation: crop}}
"""


@pytest.fixture
def recipe(tmp_path: Path, base: Path, corpus: Path) -> Path:
    file = tmp_path / "films.yaml"
    file.write_text(RECIPE.format(base=base, corpus=corpus, identifiers="none"), encoding="utf-8")
    return file


def _run(capsys: pytest.CaptureFixture[str], *words: object) -> Said:
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_sound_corpus_exits_with_0(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    code, out, error = _run(capsys, "data", "check", "-r", recipe)
    assert (code, error) == (0, "")
    lines = out.splitlines()
    guesses = [line for line in lines if line.startswith("note")]
    assert guesses[0] == (
        "note     columns guessed from their names: image file_name, texts text, labels label, group group, "
        "split split (corpus.columns.image=COLUMN names another)"
    )
    assert [line for line in lines if line not in guesses] == [
        "warning  12.5% of the distinct training captions are truncated to 77 tokens; 95 % have at most 122",
        "info     train 8 items of 8 groups; validation 2 items of 2 groups; test 2 items of 2 groups",
        "info     short sides of 160 to 160 pixels, half of them at most 160; stored as 12 RGB",
        "info     burned-in text: unknown according to the card",
        "0 errors, 1 warning",
    ]


def test_a_leak_exits_with_3_and_says_where(
    capsys: pytest.CaptureFixture[str], corpus: Path, tmp_path: Path
) -> None:
    COPIES["cut"](film(2)).save(corpus / "11.png")
    found = tmp_path / "found.json"
    code, out, _ = _run(capsys, "data", "check", corpus, "privacy.identifiers=none", "--json", found, "--all")
    assert code == 3
    assert out.startswith("error    nearly the same image in two splits: 1 in train and test; one of them: ")
    assert "[row 3 and row 12]\n" in out
    told = json.loads(found.read_text(encoding="utf-8"))
    assert list(told) == [
        *("schema_version", "corpus", "ok", "leaks", "findings", "classes", "tokens", "scripts", "decoders"),
        "notes",
    ]
    assert (told["schema_version"], told["ok"], len(told["leaks"])) == (1, False, 1)
    assert told["corpus"]["splits"]["train"] == {"items": 8, "groups": 8}
    assert {key: told["findings"][0][key] for key in ("level", "code", "count", "where")} == {
        "level": "error",
        "code": "near_duplicates",
        "count": 1,
        "where": ["row 3 and row 12"],
    }


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data", "check"], "data: name a corpus: --recipe RECIPE, or --card CARD and a path"),
        (
            ["data", "check", "-r", "a", "-c", "b"],
            "data: use --recipe or --card, not both; corpus.card=CARD overrides a recipe's card",
        ),
        (
            ["data", "preview", "-c", "class_folders", "x"],
            'data preview: "x": name the page last, e.g. preview.html',
        ),
    ],
)
def test_one_clear_line(capsys: pytest.CaptureFixture[str], words: list[str], line: str) -> None:
    assert _run(capsys, *words) == (2, "", f"domainclip: {line}\n")


def test_the_sheet_shows_what_training_sees(
    capsys: pytest.CaptureFixture[str], recipe: Path, base: Path, corpus: Path, tmp_path: Path
) -> None:
    page = tmp_path / "new" / "preview.html"
    code, out, error = _run(capsys, "data", "preview", "-r", recipe, "--items", 12, page)
    assert (code, out) == (0, f"{page}\n")
    assert error.startswith("note: columns guessed from their names: image file_name, ")
    text = page.read_text(encoding="utf-8")
    # Inert: the caption of row 2 is text, and nothing is fetched.
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; [bold]" in text
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert text.count("<img") == 12
    # The truncated end of a caption is struck through; the rest fits into the token limit.
    (cut,) = re.findall(r"<del><span[^>]*>truncated: </span>([^<]*)</del>", text)
    model = loading.load_model(base)
    whole = ("a red cat " * 40).strip()
    read = whole[: -len(cut)]
    assert whole == read + cut
    assert model.text_tokenizer.count([read])[0] <= 77 < model.text_tokenizer.count([read + cut[:4]])[0]
    # The picture of a test item is the base's own preprocessing of it, but for the JPEG.
    source = re.search(r'<img src="data:image/jpeg;base64,([^"]*)" alt="test item 12, row 12"', text)
    assert source is not None
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source[1]))).convert("RGB")).astype(int)
    wanted = model.image_preprocessor(decode_image({"path": str(corpus / "11.png"), "bytes": None}))[
        "pixels"
    ].astype(int)
    assert shown.shape == wanted.shape
    assert np.abs(shown - wanted).mean() < 6


def test_training_items_are_augmented_and_the_others_are_not(recipe: Path, tmp_path: Path) -> None:
    def shown(*changes: str) -> list[str]:
        found = check.check_corpus(from_recipe(str(recipe), changes))
        return [str(item.source) for item in contact_sheet.items(found, 12)]

    plain, cropped = shown("train.augmentation=none"), shown()
    assert [a == b for a, b in zip(plain, cropped, strict=True)] == [False] * 8 + [True] * 4
    assert shown() == cropped  # the first epoch, always the same


def test_ids_are_pseudonyms_where_someone_might_be_named(
    base: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOMAINCLIP_SECRET", "key")
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE.format(base=base, corpus=corpus, identifiers="unknown"), encoding="utf-8")
    found = check.check_corpus(from_recipe(str(file), []))
    page = data_check_page.write_preview(found, tmp_path / "p.html", 12).read_text(encoding="utf-8")
    assert "Items are\n  named by keyed pseudonyms" in page
    assert ".png" not in page
    assert "g11" not in page
    assert str(tmp_path) not in page


def test_a_page_of_findings_holds_no_picture_and_no_caption(recipe: Path, tmp_path: Path) -> None:
    found = check.check_corpus(from_recipe(str(recipe), []))
    page = data_check_page.write_page(found, tmp_path / "check.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "red cat" not in page
    assert "No error prevents training on this corpus." in page
    with pytest.raises(RecipeError) as caught:
        data_check_page.write_page(found, tmp_path / "check.html" / "x.html")
    assert str(caught.value) == (
        f"{tmp_path / 'check.html' / 'x.html'}: cannot be written: File exists: name another file"
    )


def test_dicom_files_say_how_they_became_pictures(tmp_path: Path) -> None:
    stored = np.asarray(film(1, 80).convert("L")).astype(np.uint16) * 16
    dicom_file(tmp_path / "a.dcm", stored, PatientID="p", WindowCenter=2048, WindowWidth=4096)
    (tmp_path / "metadata.csv").write_text("file,text\na.dcm,a film\n", encoding="utf-8")
    found = check.check_corpus(from_card(None, str(tmp_path), ["reader=dicom"]))
    (item,) = contact_sheet.items(found, 4)
    assert "window" in item.pipeline
    assert item.problem == ""
    assert [(row.files, row.decoder) for row in found.decoders] == [(1, "pydicom")]


def test_what_cannot_be_read_is_said_and_not_replaced(recipe: Path, corpus: Path) -> None:
    (corpus / "0.png").write_bytes(b"no picture")
    found = check.check_corpus(from_recipe(str(recipe), ["corpus.max_unusable=0.5"]))
    first = next(contact_sheet.items(found, 12))
    assert (first.source, first.problem) == ("", "not an image")


def test_patches_are_laid_side_by_side_again(tmp_path: Path) -> None:
    base = loading.load_model(tiny_siglip2_naflex(tmp_path / "siglip2"))
    assert base.image_preprocessor.patch
    flat = Image.new("RGB", (40, 24))
    flat.paste((255, 0, 0), (0, 0, 20, 24))
    shown = contact_sheet._picture(base.image_preprocessor(flat), base)
    assert shown.size == (40, 24)  # a size that fits already: nothing is resized
    assert np.array_equal(np.asarray(shown), np.asarray(flat))


def test_a_caption_is_cut_where_the_base_stops(base: Path) -> None:
    model = loading.load_model(base)
    assert fits("a cat", model) == ("a cat", "", model.text_tokenizer.count(["a cat"])[0])
    assert fits("anything", None) == ("anything", "", 0)
    read, cut, tokens = fits("cat " * 100, model)
    assert tokens == 102
    assert (read.split(), len(cut.split())) == (["cat"] * 75, 25)


def test_help_needs_no_torch() -> None:
    import subprocess

    code = (
        "import sys\nfrom domainclip.cli.app import app\n"
        "try:\n    app(['data', 'check', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_all_findings_are_listed_however_many_items_are_unusable(corpus: Path) -> None:
    """Half of the rows are unusable, and the leak among the others is found all the same."""
    table = corpus / "metadata.csv"
    _, *rows = table.read_text(encoding="utf-8").splitlines()
    for file in sorted(corpus.glob("*.png"))[: len(rows) // 2]:
        file.unlink()
    found = check.check_corpus(from_card(None, str(corpus), []))
    first = found.findings[0]
    assert (first.level, first.code) == ("error", "unusable_items")
    assert first.count == len(first.where) == len(rows) // 2
    assert "missing file" in first.text
    assert len(found.findings) > 1
    assert found.corpus.card.max_unusable == 0.01
