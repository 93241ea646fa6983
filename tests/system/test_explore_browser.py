"""The page of `explore` in headless Chromium: by keyboard, on a narrow screen, without a console error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from domainclip.pipelines.explore import ExploreRequest, open_page
from tests.inference.explorer.explored_runs import squares_run
from tests.support.browser import PROGRAM, Browser, browser

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")
PAGES = ("", "?words=a+red+square", "?page=map", "?page=prompts", "?page=item&row=3", "?order=up")
UNNAMED = """[...document.querySelectorAll("input:not([type=hidden]), select, textarea, button, a, svg.map, img")]
  .filter((one) => !(one.labels && one.labels.length) && !one.textContent.trim() && !one.ariaLabel && !one.alt
    && !one.getAttribute("aria-labelledby")).map((one) => one.outerHTML)"""
# The smallest ratio of the luminances of texts and of their backgrounds [WCAG 2.2, 1.4.3].
CONTRAST = """(() => {
  const parts = (color) => { const [r, g, b, a = 1] = color.match(/[\\d.]+/g).map(Number); return { r, g, b, a }; };
  const light = ({ r, g, b }) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (one) => { const c = parts(getComputedStyle(one).backgroundColor);
    return c.a || !one.parentElement ? c : behind(one.parentElement); };
  return Math.min(...[...document.querySelectorAll("body *:not(svg *)")].filter((one) => one.checkVisibility()
    && [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())).map((one) => {
      const [a, b] = [light(parts(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05); }));
})()"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, base: Path, corpus: Path) -> Iterator[str]:
    run = squares_run(tmp_path_factory.mktemp("runs") / "squares-1", base, corpus)
    server = open_page(ExploreRequest(run=str(run), split="train")).server
    with server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server.address
        server.shutdown()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_every_page_is_whole(shown: Browser, address: str) -> None:
    """Nothing is wider than the screen, all controls have names, texts have contrast, in both colour schemes."""
    for width, dark in ((1280, False), (390, True)):
        shown.size(width, dark=dark)
        for page in PAGES:
            shown.errors.clear()
            shown.open(address + page)
            assert shown.run("document.documentElement.scrollWidth <= innerWidth"), page
            assert shown.run(UNNAMED) == [], page
            assert shown.run(CONTRAST) >= 4.5, page
            assert shown.run("document.querySelectorAll('h1').length") == 1
            expected = [] if page != "?order=up" else ["Failed to load resource: the server responded"]
            assert [error[: len(expected[0])] if expected else error for error in shown.errors] == expected, (
                page
            )
    assert shown.addresses
    assert [one for one in shown.addresses if not one.startswith((address, "about:"))] == []


def test_a_search_by_keyboard(shown: Browser, address: str) -> None:
    shown.size(1280)
    shown.errors.clear()
    shown.open(address)
    shown.press("/", "/")
    assert shown.run("document.activeElement.id") == "words"
    shown.type("a red square")
    shown.press("Enter")
    shown.wait("document.querySelectorAll('.searched > section').length === 2")
    shown.wait("document.getElementById('live').textContent.includes('Right answers')")
    assert shown.run("document.activeElement.id") == "words", "the focus stays where it was"
    assert shown.run("new URLSearchParams(location.search).get('words')") == "a red square"
    shown.run("document.getElementById('label').value = 'red'")
    shown.run("document.getElementById('label').dispatchEvent(new Event('change', { bubbles: true }))")
    shown.wait("location.search.includes('label=red')")
    shown.wait("document.getElementById('status').textContent.startsWith('10 of 40')")
    shown.run("history.back()")
    shown.wait("document.getElementById('status').textContent.startsWith('All 40')")
    assert shown.errors == []


def test_a_map_by_keyboard(shown: Browser, address: str) -> None:
    shown.errors.clear()
    shown.open(f"{address}?page=map")
    shown.run("document.getElementById('svg-1').focus()")
    shown.press("ArrowRight")
    shown.wait("document.querySelector('#detail .item') !== null")
    assert shown.run("document.querySelectorAll('svg.map .at').length") == 2, (
        "the item is marked on both maps"
    )
    first = shown.run("document.querySelector('#detail a').getAttribute('href')")
    shown.press("ArrowDown")
    shown.wait(f"document.querySelector('#detail a').getAttribute('href') !== {first!r}")
    shown.press(" ")
    shown.press("ArrowRight")
    shown.press(" ")
    shown.wait("new URLSearchParams(location.search).get('box') !== null")
    shown.wait("document.getElementById('drop-box') !== null")
    assert shown.run("document.activeElement.id") == "results"
    assert shown.errors == []
