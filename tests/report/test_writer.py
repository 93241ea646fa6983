from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from domainclip.evaluation.controls import NullControl
from domainclip.evaluation.evaluate import Evaluation
from domainclip.evaluation.split_usage import SplitUsage
from domainclip.evaluation.verdicts import NO_VERDICT, WORSE
from domainclip.report import redaction, writer
from domainclip.report.context import CorpusFacts, ReportContext
from domainclip.report.writer import write
from tests.report.made_results import (
    ALIKE,
    ALONE,
    GAIN,
    LOSS,
    PART,
    PIXEL,
    RUN,
    context,
    errors,
    evaluation,
    examples,
    row,
)

HOSTILE = "<script>alert(1)</script>\"onerror='alert(2)'</style></title>{{ 7*7 }}\u202egpj.`|=cmd http://x.invalid/a.png"


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


def written(folder: Path, measured: Evaluation, about: ReportContext) -> dict[str, str]:
    page = write(folder, measured, about)
    assert page == folder / "report.html"
    return {name: (folder / f"report.{name}").read_text(encoding="utf-8") for name in ("html", "md")}


def hostile() -> tuple[Evaluation, ReportContext]:
    entry = evaluation().protocol[0]
    entry["dataset"] = HOSTILE
    entry["details"] = {HOSTILE: HOSTILE, "prompts": {HOSTILE: {"positive": [HOSTILE], "negative": []}}}
    measured = evaluation(
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
        examples=examples(HOSTILE, PIXEL),
    )
    return measured, about


def test_six_files_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "run", evaluation(), context())
    names = sorted(file.name for file in (tmp_path / "run").iterdir())
    assert names == ["items.parquet", "report.html", "report.md", "results.json", "table.md", "table.tex"]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, evaluation(), context())
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_hostile_text_is_inert_in_html(tmp_path: Path) -> None:
    page = Page(written(tmp_path, *hostile())["html"])
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "link", "object", "embed", "base", "form"}
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "srcdoc"}
    leads_to = {str(attributes["href"])[:14] for _, attributes in page.elements if "href" in attributes}
    assert leads_to == {"data:text/csv;", "data:text/plai"}
    sources = [attributes["src"] for _, attributes in page.elements if "src" in attributes]
    assert len(sources) == 4  # two examples with their heat maps
    assert all(re.fullmatch("data:image/png;base64,[A-Za-z0-9+/=]+", str(source)) for source in sources)
    assert "{{ 7*7 }}" in page.text  # shown, never computed
    raw = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "\u202e" not in raw
    assert "\\u202egpj" in page.text
    assert raw.count("<style>") == raw.count("</style>") == raw.count("</title>") == 1


def test_hostile_text_is_inert_in_markdown_and_json(tmp_path: Path) -> None:
    text = written(tmp_path, *hostile())["md"]
    fenced = re.sub(r"^(`{3,})\n.*?\n\1$", "", text, flags=re.S | re.M)
    ours = re.sub(r"^<details><summary>Table of \d+</summary>$|^</details>$", "", fenced, flags=re.M)
    assert "<" not in ours
    assert "\u202e" not in text
    tables = [line for line in fenced.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert widths <= {3, 4, 9}  # no cell was split in two
    data = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert data["run"]["title"] == HOSTILE


def test_the_page_loads_no_resources(tmp_path: Path) -> None:
    text = written(tmp_path, evaluation(), context())["html"]
    assert "<script" not in text
    # Links to papers are allowed; nothing is loaded.
    assert "http" not in text.replace("http-equiv", "").replace('<a href="https://arxiv.org/abs/', "")
    assert "url(" not in text
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": policy}) in Page(text).elements


def test_the_page_works_with_a_screen_reader(tmp_path: Path) -> None:
    page = Page(written(tmp_path, evaluation(), context(examples=examples()))["html"])
    scopes = [attributes.get("scope") for tag, attributes in page.elements if tag == "th"]
    assert scopes
    assert set(scopes) == {"col", "row"}
    spoken = [a for tag, a in page.elements if a.get("role") == "img" and tag != "span"]
    assert len(spoken) == 7  # three metrics, one class, two curves, gain against forgetting
    assert all(attributes.get("aria-label") for attributes in spoken)
    assert [a["alt"] for tag, a in page.elements if tag == "img"] == ["Image with caption: a cat"] * 2
    captions = sum(tag == "caption" for tag, _ in page.elements)
    assert captions == sum(tag == "table" for tag, _ in page.elements) > 2


def test_examples_mark_right_and_wrong_answers_in_words_and_name_what_is_absent(tmp_path: Path) -> None:
    page = Page(written(tmp_path, evaluation(), context(examples=examples(heat=PIXEL)))["html"])
    marks = [
        a.get("aria-label") for tag, a in page.elements if tag == "span" and "mark" in (a.get("class") or "")
    ]
    # Two images; of each, a class and two captions of the base, then of the adapted model.
    expected = ["wrong", "wrong", "right", "right", "right", "wrong"] * 2
    assert [mark for mark in marks if mark] == expected
    for text in ("Newly right: 1 of 2", "Newly wrong: none", "rank 3", "to the highest (orange)"):
        assert text in page.text
    without = Page(written(tmp_path, evaluation(), context(examples=examples()))["html"]).text
    assert "orange" not in without


def test_the_order_of_sections(tmp_path: Path) -> None:
    cell = row(metric="accuracy/sex=F", probe="subgroups")
    measured = evaluation([GAIN, ALIKE, PART, LOSS, cell], diagnostics=[errors()])
    page = Page(written(tmp_path, measured, context())["html"]).text
    headings = [
        "In short",
        "What changed",
        "Where it errs",
        "Worst subgroups",
        "All metrics",
        "Before and after",
        "Results by class",
        "Training",
        "Data",
        "How this was measured",
        "Sources",
        "Reproduce",
    ]
    places = [page.index(heading) for heading in headings]
    assert places == sorted(places)
    assert "Trained parameters 1,000 of 4,000 (25.00%)" in page
    assert "ln 128 = 4.85" in page


def test_losses_are_as_prominent_as_gains(tmp_path: Path) -> None:
    texts = written(tmp_path, evaluation(), context())
    for text in (Page(texts["html"]).text, texts["md"]):
        assert "▼ Got worse" in text
        assert "zero-shot macro accuracy on general: 0.498 → 0.058, −0.440" in text
    quiet = written(tmp_path, evaluation([GAIN, ALIKE, PART]), context())
    for text in (Page(quiet["html"]).text, quiet["md"]):
        assert "None of 3 metrics got significantly worse." in text


def test_an_invalid_evaluation_comes_first_without_verdicts(tmp_path: Path) -> None:
    texts = written(tmp_path, evaluation(), context(invalid=["patient-level leak: 3 groups"]))
    for text in (Page(texts["html"]).text, texts["md"]):
        assert (
            text.index("This evaluation is not valid")
            < text.index("patient-level leak")
            < text.index("In short")
        )
        assert "a significant gain" not in text
        assert "▲" not in text


def test_a_single_model_is_reported_without_a_difference(tmp_path: Path) -> None:
    texts = written(tmp_path, evaluation([ALONE]), context(run=None, training=(), adapted={}))
    for text in (Page(texts["html"]).text, texts["md"]):
        assert "zero-shot macro accuracy is 0.079" in text
        assert "Adapted" not in text
        assert "Got worse" not in text


def test_scores_are_under_pseudonyms(tmp_path: Path) -> None:
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


def test_no_pseudonym_is_tied_to_a_subgroup(tmp_path: Path) -> None:
    cell = replace(GAIN, probe="subgroups", metric="accuracy/sex=F")
    texts = written(tmp_path, evaluation([GAIN, cell]), context())
    table = pq.read_table(tmp_path / "items.parquet").to_pydict()
    assert set(table["probe"]) == {"zero_shot"}
    assert len(table["item"]) == 8
    assert "sex=F" in texts["html"]  # the metric itself is reported


def test_alarms_are_in_the_training_section(tmp_path: Path) -> None:
    alarm = "while training, step 50: the loss has stood at chance"
    run = replace(RUN, facts={"objectives": {"contrastive": 1.0}, "alarms": ["chance"]})
    texts = written(tmp_path, evaluation(), context(run=run, warnings=["few groups", alarm]))
    for text, heading, end in (
        (texts["html"], 'id="training"', "</section>"),
        (texts["md"], "## Training", "## Data"),
    ):
        section = text.partition(heading)[2].partition(end)[0]
        assert section.count("step 50: the loss has stood at chance") == 1
        assert "few groups" not in section
        assert text.count("step 50: the loss has stood at chance") == 2  # and among the warnings
        assert "Alarms" in section
    plain = written(tmp_path, evaluation(), context(warnings=["few groups"]))
    assert "while training" not in plain["html"] + plain["md"]


@pytest.mark.parametrize(
    ("terms", "shown"),
    [
        ({"contrastive": 1.0}, True),
        ({"sigmoid": 1.0}, False),
        ({"contrastive": 0.5}, False),
        ({"contrastive": 1.0, "anchor_to_base": 0.1}, False),
    ],
)
def test_chance_is_drawn_if_it_is_known(tmp_path: Path, terms: dict[str, float], shown: bool) -> None:
    texts = written(tmp_path, evaluation(), context(run=replace(RUN, facts={"objectives": terms})))
    assert ("Loss; dashed: chance, ln 128 = 4.85" in texts["html"]) is shown


def test_the_page_fits_a_narrow_screen(tmp_path: Path) -> None:
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


def test_controls_split_usage_and_calibration_are_in_html_and_markdown(tmp_path: Path) -> None:
    control = NullControl("zero_shot", "test", "macro_accuracy", "no difference shown", 0.04, 100)
    points = [{"confidence": 0.9, "accuracy": 0.5, "n": 8}]
    entry = evaluation().protocol[0]
    entry = {**entry, "details": {"reliability": points}, "adapted_details": {"reliability": points}}
    readings = SplitUsage("test", 7, 4, 2)
    texts = written(tmp_path, evaluation(controls=[control], protocol=[entry]), context(readings=readings))
    for text in (Page(texts["html"]).text, texts["md"]):
        assert "the test split has been read 7 times, for 4 adapted models, with 2 sets of prompts" in text
        assert (
            "the intervals hold the luck of the items, and not that of the seed (train.seeds=3 has both)"
            in text
        )
        assert "This is evaluation 7 of the test split, for 4 adapted models" in text
        assert "evaluate.split=validation at the end of domainclip finetune or eval" in text
        assert "a significant difference in 4 of 100 swaps (one in twenty is expected)" in text
    twice = written(tmp_path, evaluation(), context(readings=SplitUsage("test", 2, 2, 1)))
    assert "This is evaluation" not in twice["html"] + twice["md"]
    assert "Calibration" in Page(texts["html"]).text
    assert "base: confidence 0.90, accuracy 0.50, n 8" in texts["html"]
    assert "reliability" not in texts["md"].lower()  # the list of points is not a row of the protocol


def test_many_probes_have_a_short_summary(tmp_path: Path) -> None:
    rows = [
        row(probe=f"probe_{i}", metric=metric, dataset=name, primary=metric == "main")
        for name in ("test", "general")
        for i in range(8)
        for metric in ("main", "second", "third")
    ]
    page = written(tmp_path, evaluation(rows), context())["html"]
    assert page.count('class="answer ') == 16  # a line for each question, not for each metric
    assert "12 more questions" in page  # two probes are open, in the domain and outside it
    assert "Of 16 questions: 16 gained, 0 lost." in page
    assert "All 48 metrics" in page


def test_headings_and_folds_are_in_order(tmp_path: Path) -> None:
    """Heading levels increase by one, and each fold has a summary."""
    page = Page(written(tmp_path, *hostile())["html"])
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    folds = [tag for tag, _ in page.elements if tag in ("details", "summary")]
    assert folds.count("details") == folds.count("summary") > 0


def test_colours_have_sufficient_contrast() -> None:
    """WCAG 2.2: contrast of text at least 4.5, of marks 3, in light and dark mode."""
    style = (Path(writer.__file__).parent / "templates" / "base.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", part)) for part in style.split("@media (prefers")[:2]
    )
    assert len(light) == len(dark) > 10
    for colours in (light, dark):
        for ground in ("paper", "card", "faint"):
            for text in ("ink", "soft", "accent"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
            assert contrast(colours["base"], colours[ground]) >= 3, ground
        for verdict in ("better", "worse", "care"):
            for ground in ("paper", "card", f"{verdict}-wash"):
                assert contrast(colours[verdict], colours[ground]) >= 4.5, (verdict, ground)
        for ground in ("better-wash", "worse-wash", "care-wash"):
            assert contrast(colours["ink"], colours[ground]) >= 4.5
            assert contrast(colours["accent"], colours[ground]) >= 4.5


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' relative luminances."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_report_contains_no_private_data(tmp_path: Path) -> None:
    """The encoded downloads must not match a pattern of private data."""
    texts = written(tmp_path, evaluation(), context())
    assert "data:text/csv" in texts["html"]
    assert [match for text in texts.values() for match in redaction.search(text)] == []


def test_a_failed_control_stands_beside_its_metric_wherever_that_is_shown(tmp_path: Path) -> None:
    fault = "the control r1_shuffled of the base is 0.371, where chance is 0.039"
    failed = [
        replace(one, control_fault=fault, verdict=NO_VERDICT, probe="retrieval") for one in (GAIN, LOSS)
    ]
    measured = evaluation([GAIN, LOSS, *failed])
    texts = written(tmp_path / "run", measured, context())
    page = Page(texts["html"])
    assert page.text.count(f"this is not judged, since {fault}") == 2
    assert page.text.count("not judged, since a control failed") == 2
    assert texts["md"].count("this is not judged, since the control r1\\_shuffled of the base is 0.371") == 2
    # The plots: not drawn against forgetting, and marked before and after.
    assert "Not drawn, since a control failed: retrieval." in page.text
    assert page.text.count("n 8, control failed") == 2
    spoken = [label for _, values in page.elements if (label := values.get("aria-label"))]
    assert not any("retrieval: domain" in label for label in spoken)
    assert sum(f"not judged, since {fault}" in label for label in spoken) == 2
    results = json.loads((tmp_path / "run" / "results.json").read_text())["results"]
    assert [(one["verdict"], one["not_judged"]) for one in results] == [
        *(("better", ""), ("worse", "")),
        *[("not judged", fault)] * 2,
    ]
    writer.write_comparison(tmp_path / "three", [measured, measured], context(), {"a": {}, "b": {}, "c": {}})
    assert f"since {fault}" in (tmp_path / "three" / "compare.html").read_text()
    compared = json.loads((tmp_path / "three" / "results_compare.json").read_text())["results"]
    assert [one["not_judged"] for one in compared] == ["", "", fault, fault]


def test_both_models_are_named_with_their_hash(tmp_path: Path) -> None:
    write(tmp_path, evaluation(), context())
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["adapted"] == {"name": "art_paintings-1", "weights_sha256": "5e1f2a"}
    for page in ("report.html", "report.md"):
        text = (tmp_path / page).read_text()
        assert "vit-tiny-clip" in text
        assert "5e1f2a" in text
        assert "second model" not in text
