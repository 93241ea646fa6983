from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from domainclip.evaluate import WORSE, Evaluation
from domainclip.report import CorpusFacts, Example, ReportContext, write
from tests.report.made import ALIKE, ALONE, GAIN, LOSS, PART, context, evaluation, row

HOSTILE = "<script>alert(1)</script>\"onerror='alert(2)'</style></title>{{ 7*7 }}\u202egpj.`|=cmd http://x.invalid/a.png"
PIXEL = bytes.fromhex("89504e470d0a1a0a")


class Page(HTMLParser):
    """What a browser would make of the page: its elements, their attributes, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def written(folder: Path, found: Evaluation, about: ReportContext) -> dict[str, str]:
    page = write(folder, found, about)
    assert page == folder / "report.html"
    return {name: (folder / f"report.{name}").read_text(encoding="utf-8") for name in ("html", "md")}


def hostile() -> tuple[Evaluation, ReportContext]:
    entry = evaluation().protocol[0]
    entry["dataset"] = HOSTILE
    entry["details"] = {HOSTILE: HOSTILE, "prompts": {HOSTILE: {"positive": [HOSTILE], "negative": []}}}
    found = evaluation(
        [replace(GAIN, dataset=HOSTILE), row(metric=f"accuracy/{HOSTILE}"), LOSS],
        protocol=[entry],
        warnings=[HOSTILE],
    )
    facts = CorpusFacts(
        HOSTILE,
        HOSTILE,
        HOSTILE,
        HOSTILE,
        {HOSTILE: (1, 1)},
        {HOSTILE: 1},
        notes=[HOSTILE],
        findings=[HOSTILE],
    )
    about = context(
        title=HOSTILE,
        command=HOSTILE,
        recipe=HOSTILE,
        base={"name": HOSTILE},
        corpus=facts,
        warnings=[HOSTILE],
        invalid=[HOSTILE],
        citations=[HOSTILE],
        examples=[Example(PIXEL, HOSTILE, 3, 1)],
    )
    return found, about


def test_four_files_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "run", evaluation(), context())
    names = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert names == ["items.parquet", "report.html", "report.md", "results.json"]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, evaluation(), context())
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_hostile_text_is_inert_in_the_page(tmp_path: Path) -> None:
    page = Page(written(tmp_path, *hostile())["html"])
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "link", "object", "embed", "a", "base", "form"}
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("href", "srcdoc")}
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert sources == ["data:image/png;base64,iVBORw0KGgo="]
    assert "{{ 7*7 }}" in page.text  # shown, never computed
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "\u202e" not in raw
    assert "\\u202egpj" in page.text
    assert raw.count("<style>") == raw.count("</style>") == raw.count("</title>") == 1


def test_hostile_text_is_inert_in_markdown_and_json(tmp_path: Path) -> None:
    text = written(tmp_path, *hostile())["md"]
    fenced = re.sub(r"^(`{3,})\n.*?\n\1$", "", text, flags=re.S | re.M)
    assert "<" not in fenced
    assert "\u202e" not in text
    tables = [line for line in fenced.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert widths <= {3, 4, 9}  # no cell was split in two
    data = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert data["run"]["title"] == HOSTILE


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    text = written(tmp_path, evaluation(), context())["html"]
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": policy}) in Page(text).elements


def test_the_page_can_be_heard(tmp_path: Path) -> None:
    page = Page(written(tmp_path, evaluation(), context(examples=[Example(PIXEL, "a cat", 2, 1)]))["html"])
    scopes = [attributes.get("scope") for tag, attributes in page.elements if tag == "th"]
    assert scopes
    assert set(scopes) == {"col", "row"}
    spoken = [attributes for tag, attributes in page.elements if attributes.get("role") == "img"]
    assert len(spoken) == 6  # three figures of the domain and retention, one class, two curves
    assert all(attributes.get("aria-label") for attributes in spoken)
    assert [a["alt"] for tag, a in page.elements if tag == "img"] == ["Picture described by: a cat"]
    captions = sum(tag == "caption" for tag, _ in page.elements)
    assert captions == sum(tag == "table" for tag, _ in page.elements) > 2


def test_the_sections_stand_in_order(tmp_path: Path) -> None:
    page = Page(written(tmp_path, evaluation(), context())["html"]).text
    headings = [
        "In short",
        "All figures",
        "What changed",
        "Before and after",
        "Class by class",
        "Training",
        "Data",
        "How this was measured",
        "Sources",
        "Run it again",
    ]
    places = [page.index(heading) for heading in headings]
    assert places == sorted(places)
    assert "Weights that learned 1,000 of 4,000 (25.00%)" in page
    assert "ln 128 = 4.85" in page


def test_losses_are_as_loud_as_gains(tmp_path: Path) -> None:
    texts = written(tmp_path, evaluation(), context())
    for text in (Page(texts["html"]).text, texts["md"]):
        assert "▼ Got worse" in text
        assert "zero-shot macro accuracy on general: 0.498 → 0.058, −0.440" in text
    quiet = written(tmp_path, evaluation([GAIN, ALIKE, PART]), context())
    for text in (Page(quiet["html"]).text, quiet["md"]):
        assert "Nothing got significantly worse of 3 measured." in text


def test_an_invalid_evaluation_says_so_first_and_claims_nothing(tmp_path: Path) -> None:
    texts = written(tmp_path, evaluation(), context(invalid=["patient-level leak: 3 groups"]))
    for text in (Page(texts["html"]).text, texts["md"]):
        assert (
            text.index("This evaluation is not valid")
            < text.index("patient-level leak")
            < text.index("In short")
        )
        assert "a real gain" not in text
        assert "▲" not in text


def test_a_single_model_is_reported_without_a_difference(tmp_path: Path) -> None:
    texts = written(tmp_path, evaluation([ALONE]), context(run=None, training=()))
    for text in (Page(texts["html"]).text, texts["md"]):
        assert "zero-shot macro accuracy is 0.079" in text
        assert "Adapted" not in text
        assert "Got worse" not in text


def test_scores_leave_under_pseudonyms(tmp_path: Path) -> None:
    matrix = replace(GAIN, metric="macro_auroc", base_scores=GAIN.base_scores[:, None], adapted_scores=None)
    texts = written(tmp_path, evaluation([GAIN, ALONE, matrix]), context())
    table = pq.read_table(tmp_path / "items.parquet").to_pydict()
    assert list(table) == ["probe", "dataset", "metric", "item", "group", "base", "adapted"]
    assert len(table["item"]) == 16
    assert table["base"][:8] == GAIN.base_scores.tolist()
    assert table["adapted"][8:] == [None] * 8
    assert table["item"][:8] == table["item"][8:]  # the same item keeps its name
    assert len(set(table["item"])) == 8
    everything = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"patient-" not in everything
    assert b"Smith" not in everything
    assert "Smith" not in texts["html"] + texts["md"]


def test_a_telephone_meets_no_wide_page(tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser here")
    many = [row(metric=f"accuracy/{'long ' * 9}{i}", verdict=WORSE) for i in range(50)]
    write(tmp_path, evaluation([GAIN, *many, LOSS]), hostile()[1])
    # A frame as wide as a telephone; its script, not the report's, asks how wide the page became.
    frame = (
        "<iframe id=f src=report.html style='width:390px;height:900px'></iframe><p id=w></p><script>"
        "onload=()=>{const d=f.contentDocument.documentElement;"
        "w.textContent=d.scrollWidth+' of '+d.clientWidth}</script>"
    )
    (tmp_path / "frame.html").write_text(frame, encoding="utf-8")
    command: list[Any] = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
    ]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "frame.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    width = re.search(r"(\d+) of (\d+)", shown)
    assert width, shown[:500]
    assert int(width[1]) <= int(width[2]) <= 390
