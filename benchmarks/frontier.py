"""The figure docs/results/frontier.svg: gain in the domain against forgetting outside of it, four corpora.

    python benchmarks/frontier.py      (from the tables of benchmarks/ablations.py; nothing is run again)

Each mark is the mean of three seeds on the test split, with its 95 % interval on both axes: the change of
accuracy, of the recall at 1 of captions, and of images. The dashed line is a loss of one point.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

RUNS = Path(os.environ.get("DOMAINCLIP_ABLATIONS", "build/ablations"))
TARGET = Path("docs/results/frontier.svg")
PLANS = {
    "art_paintings_seeds": "paintings",
    "astronomy_seeds": "astronomy",
    "medical_xray_seeds": "X-rays",
    "multilingual_seeds": "multilingual photographs",
}
MEASURES = {("zero_shot", "accuracy"): "●", ("retrieval", "image_to_text_r1"): "▲"}
MEASURES |= {("retrieval", "text_to_image_r1"): "■"}
COLOURS = {"plain": "#8a5a00", "built-in recipe": "#0b5cad"}
WIDTH, HEIGHT, MARGIN, GAP = 400, 260, 52, 30  # of a panel, in pixels
X, Y = (-55.0, 15.0), (-20.0, 100.0)  # points: change outside of the domain, and in it
_TEXT = 'font-family="system-ui, sans-serif" fill="#222"'


@dataclass(frozen=True)
class Change:
    """The change from the base, in points, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Mark:
    """A variant of a plan by one measure."""

    variant: str
    measure: str  # the symbol
    inside: Change
    outside: Change


def main() -> None:
    """Write the figure, if the runs of all plans are here; else that of an earlier machine stays."""
    measured = {name: RUNS / name / "final.json" for name in PLANS}
    if missing := [name for name, file in measured.items() if not file.is_file()]:
        print(f"{TARGET} stays: no runs of {', '.join(missing)} here")
        return
    panels = {PLANS[name]: marks(json.loads(file.read_text())) for name, file in measured.items()}
    TARGET.write_text(figure(panels), encoding="utf-8")
    print(TARGET)


def marks(table: Mapping[str, Any]) -> list[Mark]:
    """The marks of a table of `ablate`, where a measure was taken both in the domain and outside of it."""
    outside = table["protocol"]["general"]
    changes = {
        (row["dataset"] == outside, (row["probe"], row["metric"]), one["variant"]): _change(one["difference"])
        for row in table["results"]
        for one in row["variants"]
    }
    return [
        Mark(variant, MEASURES[measure], change, changes[True, measure, variant])
        for (is_outside, measure, variant), change in changes.items()
        if not is_outside and measure in MEASURES and (True, measure, variant) in changes
    ]


def _change(difference: Mapping[str, float]) -> Change:
    return Change(*(100 * difference[key] for key in ("value", "low", "high")))


def figure(panels: Mapping[str, Sequence[Mark]]) -> str:
    """An SVG with a panel for each corpus, two beside each other."""
    rows = (len(panels) + 1) // 2
    width, height = 2 * WIDTH + GAP, rows * (HEIGHT + GAP) + 50
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        "<title>Gain in the domain against the change outside of it, in points</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *_legend(),
    ]
    for number, (name, of_panel) in enumerate(panels.items()):
        left, top = (number % 2) * (WIDTH + GAP), 50 + (number // 2) * (HEIGHT + GAP)
        lines += [f'<g transform="translate({left} {top})">', *_panel(name, of_panel), "</g>"]
    return "\n".join([*lines, "</svg>", ""])


def _legend() -> Iterator[str]:
    axis = "upwards: change in the domain, points"
    yield f'<text x="{2 * WIDTH + GAP}" y="20" font-size="13" text-anchor="end" {_TEXT}>{axis}</text>'
    symbols = "● accuracy   ▲ recall at 1 of captions   ■ recall at 1 of images"
    yield f'<text x="{MARGIN}" y="20" font-size="13" xml:space="preserve" {_TEXT}>{symbols}</text>'
    for number, (variant, colour) in enumerate(COLOURS.items()):
        text = f'font-family="system-ui, sans-serif" font-size="13" fill="{colour}"'
        yield f'<text x="{MARGIN + 140 * number}" y="40" {text}>{variant}</text>'


def _panel(name: str, of_panel: Sequence[Mark]) -> Iterator[str]:
    right, bottom = WIDTH, HEIGHT - MARGIN
    yield f'<text x="{MARGIN}" y="12" font-size="14" font-weight="600" {_TEXT}>{escape(name)}</text>'
    for value in range(-50, 11, 10):
        yield _line(across(value), 20, across(value), bottom, "#ddd" if value else "#555")
        yield _label(across(value), bottom + 15, f"{value:+d}" if value else "0", "middle")
    for value in range(-20, 101, 20):
        yield _line(MARGIN, down(value), right, down(value), "#ddd" if value else "#555")
        yield _label(MARGIN - 6, down(value) + 4, f"{value:+d}" if value else "0", "end")
    yield _line(across(-1), 20, across(-1), bottom, "#b00020", 'stroke-dasharray="4 3"')
    yield _label((MARGIN + right) / 2, bottom + 34, "change on general photographs, points", "middle")
    for mark in of_panel:
        yield from _cross(mark)


def _cross(mark: Mark) -> Iterator[str]:
    colour = COLOURS[mark.variant]
    x, y = across(mark.outside.value), down(mark.inside.value)
    yield _line(across(mark.outside.low), y, across(mark.outside.high), y, colour)
    yield _line(x, down(mark.inside.low), x, down(mark.inside.high), colour)
    yield f'<text x="{x:.1f}" y="{y + 5:.1f}" font-size="15" text-anchor="middle" fill="{colour}">'
    spoken = f"{mark.variant}: in the domain {mark.inside.value:+.1f}, outside {mark.outside.value:+.1f}"
    yield f"<title>{escape(spoken)}</title>{mark.measure}</text>"


def across(points: float) -> float:
    """The horizontal place of a change outside of the domain; those beyond the axis lie at its end."""
    return MARGIN + (WIDTH - MARGIN) * (min(max(points, X[0]), X[1]) - X[0]) / (X[1] - X[0])


def down(points: float) -> float:
    """The vertical place of a change in the domain."""
    share = (min(max(points, Y[0]), Y[1]) - Y[0]) / (Y[1] - Y[0])
    return (HEIGHT - MARGIN) - (HEIGHT - MARGIN - 20) * share


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="11" text-anchor="{anchor}" {_TEXT}>{text}</text>'


if __name__ == "__main__":
    main()
