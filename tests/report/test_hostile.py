"""Fault 33: hostile class names, captions, paths and model names are inert in HTML, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import http.server
import io
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from domainclip.evaluation.evaluate import Evaluation
from domainclip.report.context import CorpusFacts, ReportContext
from domainclip.report.writer import write, write_comparison
from tests.report.made_results import GAIN, LOSS, PIXEL, context, evaluation, examples, row
from tests.report.test_writer import Page


def attacks(origin: str) -> list[str]:
    """Attacks that would run code, send requests or hide text if they were not escaped."""
    return [
        f"<script>document.title='owned';fetch('{origin}/script')</script>",
        f'"><img src={origin}/img onerror="document.title=\'owned\'">',
        f"'></style></title></script><iframe src='{origin}/frame'></iframe>",
        f"<svg/onload=document.title='owned'><a href='javascript:alert(1)'>{origin}/a</a>",
        f"![x]({origin}/md) [y](javascript:alert(1)) <{origin}/auto> | `code` ``` *b* _i_",
        "\u202egnp.exe\u2066 {{ 7*7 }} {% raw %} ${7*7}",
        "=cmd|' /C calc'!A0",
        f"@import url({origin}/css); }} body {{ background: url({origin}/bg) }}",
    ]


def reports(folder: Path, origin: str) -> list[str]:
    """A report and a comparison with every attack in every text field."""
    for number, text in enumerate(attacks(origin)):
        measured, about = _attacked(text)
        write(folder / f"report{number}", measured, about)
        models = {text: {"name": text}, f"{text} again": {"revision": text}, f"{text} third": {}}
        write_comparison(folder / f"report{number}", [measured, measured], about, models)
    return [
        f"report{number}/{name}.html"
        for number in range(len(attacks(origin)))
        for name in ("report", "compare")
    ]


def _attacked(text: str) -> tuple[Evaluation, ReportContext]:
    entry = evaluation().protocol[0]
    entry["dataset"] = text
    reliability = [{"confidence": 0.5, "accuracy": 0.5, "n": 3}]
    prompts = {text: {"positive": [text], "negative": [text]}}
    entry["details"] = {text: text, "prompts": prompts, "reliability": reliability}
    entry["adapted_details"] = {text: [text], "reliability": reliability}
    rows = [replace(GAIN, dataset=text), row(metric=f"accuracy/{text}", dataset=text), LOSS]
    measured = evaluation(rows, protocol=[entry], warnings=[text])
    facts = CorpusFacts(text, text, text, text, {text: (1, 1)}, {text: 1}, notes=[text], findings=[text])
    return measured, context(
        title=text,
        command=text,
        recipe=text,
        base={"name": text},
        corpus=facts,
        warnings=[text],
        citations=[text],
        versions={text: text},
        examples=examples(text, PIXEL),
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A server of the folder, and the requests that it received."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            return

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=site.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{site.server_address[1]}", asked
    site.shutdown()
    site.server_close()
    thread.join()


def shown(page: str, profile: Path) -> tuple[str, list[str]]:
    """The DOM of the page in a browser, and the console output."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser here")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={profile}", "--virtual-time-budget=2000", "--dump-dom", page]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "<html" in process.stdout, process.stderr[-500:]
    return process.stdout, [line for line in process.stderr.splitlines() if "CONSOLE" in line]


def test_a_browser_sees_no_dialog_no_request_and_no_error(
    tmp_path: Path, server: tuple[str, list[str]]
) -> None:
    origin, asked = server
    pages = reports(tmp_path, origin)
    # All of them in frames of one page, so that one start of a browser is enough.
    frames = "".join(f"<iframe src='{page}'></iframe>" for page in pages)
    (tmp_path / "all.html").write_text(f"<title>all</title>{frames}", encoding="utf-8")
    dom, console = shown(f"{origin}/all.html", tmp_path / "profile")
    assert console == []
    assert "<title>all</title>" in dom
    wanted = {"/all.html", "/favicon.ico", *(f"/{page}" for page in pages)}
    assert set(asked) - wanted == set()
    assert len([path for path in asked if path.endswith(".html")]) == 1 + len(pages)


def test_the_browser_detects_unescaped_attacks(tmp_path: Path, server: tuple[str, list[str]]) -> None:
    """The same attacks in a page without escaping, to show that the test above can fail."""
    origin, asked = server
    raw = "".join(f"<p>{text}</p>" for text in attacks(origin))
    (tmp_path / "raw.html").write_text(f"<!doctype html><title>raw</title>{raw}", encoding="utf-8")
    dom, _ = shown(f"{origin}/raw.html", tmp_path / "profile")
    assert "<title>owned</title>" in dom
    assert {"/script", "/img", "/frame"} <= set(asked)
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    # Another name and profile: a page from the browser's cache would report nothing.
    (tmp_path / "policy.html").write_text(f"<!doctype html>{policy}<title>raw</title>{raw}", encoding="utf-8")
    _, console = shown(f"{origin}/policy.html", tmp_path / "profile2")
    assert console  # blocked requests are reported there


def test_rendered_markdown_has_no_active_element(tmp_path: Path) -> None:
    reports(tmp_path, "http://x.invalid")
    # HTML is let through, as on most sites: only the escaping stands between a name and the page.
    render = MarkdownIt("commonmark", {"html": True}).enable("table").render
    files = sorted(tmp_path.rglob("*.md"))
    assert len(files) == 3 * len(attacks(""))
    for file in files:
        page = Page(render(file.read_text(encoding="utf-8")))
        tags = {tag for tag, _ in page.elements}
        ours = {"h1", "h2", "h3", "p", "ul", "li", "strong", "pre", "code", "details", "summary", "em"}
        assert tags <= ours | {"table", "thead", "tbody", "tr", "th", "td"}, file
        assert "em" not in tags
        names = {name for _, attributes in page.elements for name in attributes}
        assert names <= {"style", "class"}  # how a table aligns its columns
        assert "\u202e" not in page.text


def test_json_preserves_the_text_and_reverses_none(tmp_path: Path) -> None:
    reports(tmp_path, "http://x.invalid")
    for number, text in enumerate(attacks("http://x.invalid")):
        for name in ("results.json", "results_compare.json"):
            raw = (tmp_path / f"report{number}" / name).read_text(encoding="utf-8")
            assert "\u202e" not in raw
            assert "\u2066" not in raw
            assert json.loads(raw)["run"]["title"] == text


def test_no_cell_of_a_csv_is_a_formula(tmp_path: Path) -> None:
    for page in reports(tmp_path, "http://x.invalid"):
        elements = Page((tmp_path / page).read_text(encoding="utf-8")).elements
        links = [str(attributes["href"]) for tag, attributes in elements if tag == "a"]
        assert links
        for link in links:
            cells = [
                cell for line in csv.reader(io.StringIO(unquote(link.partition(",")[2]))) for cell in line
            ]
            texts = [cell for cell in cells if not cell.lstrip("-").replace(".", "", 1).isdigit()]
            assert len(texts) >= 3
            assert [cell for cell in texts if cell.startswith(("=", "+", "-", "@", "\t", "\r"))] == []
            assert "\u202e" not in "".join(cells)
