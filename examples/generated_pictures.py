"""General pictures with captions, drawn from a seed: what the quickstart base learned, and its retention set.

    python examples/generated_pictures.py FOLDER --count 800        (about 3 seconds)
    python examples/generated_pictures.py FILE --captions           (captions of other pictures, one a line)

A picture is 64 pixels square and shows one of 40 classes: shapes, simple things, textures and digits, in
varied colour, size, place, number and style. The caption names some of that, and what is normal or
missing. The base learned from seeds below 1000; the held-out folder is seed 1000, so it was never seen.
"""

from __future__ import annotations

import argparse
import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFilter

SIZE = 64
CANVAS = 2 * SIZE  # drawn at twice the size, so that edges come out smooth
HELD_OUT_SEED = 1000
CAPTIONS_SEED = 2000  # of pictures that nothing is measured on: general texts of the same kind
Plane = NDArray[np.float64]

# An object is a few primitives in the unit square: Ellipse, Rectangle, Polygon, Line; "-" cuts a hole.
OBJECTS = {
    "circle": "E 0 0 1 1",
    "oval": "E 0 .24 1 .76",
    "ring": "E 0 0 1 1;-E .22 .22 .78 .78",
    "crescent": "E 0 0 1 1;-E .3 -.05 1.2 .85",
    "square": "R .06 .06 .94 .94",
    "bar": "R 0 .41 1 .59",
    "triangle": "P .5 0 1 .95 0 .95",
    "diamond": "P .5 0 .9 .5 .5 1 .1 .5",
    "hexagon": "P .25 .07 .75 .07 1 .5 .75 .93 .25 .93 0 .5",
    "star": "P .5 0 .62 .35 1 .36 .7 .59 .81 .95 .5 .74 .19 .95 .3 .59 0 .36 .38 .35",
    "cross": "R .36 0 .64 1;R 0 .36 1 .64",
    "heart": "E 0 .05 .53 .55;E .47 .05 1 .55;P .04 .42 .96 .42 .5 1",
    "arrow": "R 0 .38 .6 .62;P .55 .08 1 .5 .55 .92",
    "house": "R .12 .45 .88 1;P .5 0 1 .46 0 .46;-R .4 .66 .6 1",
    "tree": "R .42 .6 .58 1;E .15 0 .85 .45;E .02 .25 .98 .7",
    "flower": "E .3 0 .7 .4;E .6 .2 1 .56;E .53 .6 .87 .96;E .13 .6 .47 .96;E 0 .2 .36 .56;-E .4 .4 .6 .6",
    "face": "E 0 0 1 1;-E .25 .28 .4 .43;-E .6 .28 .75 .43;-R .28 .66 .72 .75",
    "fish": "E 0 .25 .75 .75;P .65 .5 1 .2 1 .8;-E .15 .4 .25 .5",
    "boat": "P 0 .65 1 .65 .8 1 .2 1;R .46 0 .53 .65;P .56 .05 .95 .55 .56 .55",
    "car": "R 0 .45 1 .75;P .2 .45 .3 .2 .7 .2 .85 .45;E .1 .62 .36 .88;E .64 .62 .88 .88;-R .4 .3 .6 .42",
    "cloud": "E 0 .4 .45 .8;E .22 .18 .7 .75;E .52 .35 1 .8;R .2 .6 .8 .8",
    "sun": "E .28 .28 .72 .72;L .5 0 .5 1;L 0 .5 1 .5;L .15 .15 .85 .85;L .15 .85 .85 .15",
}
TEXTURES = ("stripes", "checkerboard", "dots", "waves", "grid", "grain", "gradient", "clouds of fog")
UNCOUNTED = ("stripes", "dots", "waves", "grain", "clouds of fog")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# A digit is the lit bars, a to g, of a seven-segment display.
LIT = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
BARS = ".2 0 .8 .14;.66 0 .8 .57;.66 .43 .8 1;.2 .86 .8 1;.2 .43 .34 1;.2 0 .34 .57;.2 .43 .8 .57"
OUTLINES = OBJECTS | {
    f"digit {name}": ";".join("R " + BARS.split(";")["abcdefg".index(bar)] for bar in lit)
    for name, lit in zip(DIGITS, LIT, strict=True)
}
CLASSES = (*OBJECTS, *TEXTURES, *(f"digit {name}" for name in DIGITS))

LIGHT = ("white", "yellow", "pink", "orange", "grey")
DARK = ("black", "blue", "purple", "brown", "green", "red")
STYLES = {"filled": "", "outlined": "thin outlined", "soft": "soft"}

# Wordings that mean the same are divided by "|".
SYNONYMS = {
    "circle": "circle|round spot|disc",
    "bar": "bar|line|strip",
    "grain": "grain|noise|fine noise",
    "clouds of fog": "clouds of fog|haze|soft blurred patches",
    "cross": "cross|plus sign",
    "crescent": "crescent|moon",
}
WIDTHS = {"tiny": (14, 17), "small": (18, 25), "medium": (27, 36), "large": (40, 50), "huge": (52, 60)}
PERIODS = {"small": 6, "medium": 9, "large": 13, "huge": 18}
SIZE_WORDS = {
    "tiny": "tiny|very small",
    "small": "small|little",
    "medium": "medium|moderate",
    "large": "large|big|wide",
    "huge": "huge|very large|enlarged",
}
PLACES = {
    (-1, -1): "in the upper left|at the top left|in the left upper corner",
    (0, -1): "at the top|in the upper part|above the middle",
    (1, -1): "in the upper right|at the top right|in the right upper corner",
    (-1, 0): "on the left|on the left side|at the left edge",
    (0, 0): "in the middle|in the centre|centrally",
    (1, 0): "on the right|on the right side|at the right edge",
    (-1, 1): "in the lower left|at the bottom left|in the left lower corner",
    (0, 1): "at the bottom|in the lower part|below the middle",
    (1, 1): "in the lower right|at the bottom right|in the right lower corner",
}
FAULTS = {  # of the picture as a whole
    "normal": "The picture is normal.|Normal exposure.|Clear and sharp.|No fault is seen.",
    "bright": "The picture is too bright.|Overexposed.|Increased brightness.",
    "dark": "The picture is too dark.|Underexposed.|Reduced light.",
    "hazy": "The picture is hazy.|Low contrast.|Everything is faint.",
    "blurred": "The picture is blurred.|Edges are blurred.|Not sharp.",
    "grainy": "The picture is grainy.|There is noise all over.|Mild noise is present.",
}


class Picture(NamedTuple):
    """One item: the picture, a sentence or two about it, and its class."""

    image: Image.Image
    caption: str
    name: str


@dataclass(frozen=True)
class Scene:
    """Everything that is drawn, and may be said."""

    name: str
    colour: str
    ground: str
    size: str
    places: tuple[tuple[int, int], ...]  # (column, row) of each object, -1 to 1
    style: str
    fault: str


def make(seed: int, count: int, start: int = 0, ease: float = 0.0) -> list[Picture]:
    """`count` pictures; item i depends on (seed, start + i) alone, so longer runs begin with the same.

    `ease`: how often a feature is held simple (white on black, one, large, in the middle): for a curriculum.
    """
    return [_picture(np.random.default_rng([seed, i]), i, ease) for i in range(start, start + count)]


def _picture(rng: Generator, index: int, ease: float) -> Picture:
    # Every class in turn: all are equally frequent whatever the count.
    scene = _scene(CLASSES[index % len(CLASSES)], rng, ease)
    return Picture(_draw(scene, rng), _describe(scene, rng), scene.name)


def _scene(name: str, rng: Generator, ease: float) -> Scene:
    simple = rng.random(5) < ease
    grey = simple[0] or rng.random() < 0.3
    light, dark = rng.choice(["white", "grey"] if grey else LIGHT), "black" if grey else rng.choice(DARK)
    colour, ground = (light, dark) if simple[0] or rng.random() < 0.5 else (dark, light)
    several = name in OBJECTS and not simple[1] and rng.random() < 0.15
    number = int(rng.integers(2, 5)) if several else 1
    places = [list(PLACES)[i] for i in rng.choice(len(PLACES), number, replace=False)]
    if simple[1] or (not several and rng.random() < 0.3):
        places = [(0, 0)]
    elif number == 2 and rng.random() < 0.5:
        places = [(-1, places[0][1]), (1, places[0][1])]  # one on each side
    shares = [0, 0.1, 0.3, 0.3, 0.3] if number == 1 else [0.4, 0.6, 0, 0, 0]
    size = "large" if simple[2] and number == 1 else rng.choice(list(WIDTHS), p=shares)
    style = "filled"
    if name in OBJECTS and not simple[3] and rng.random() < 0.35:
        style = rng.choice(list(STYLES))
    fault = "normal" if simple[4] or rng.random() < 0.65 else rng.choice(list(FAULTS))
    return Scene(name, colour, ground, size, tuple(places), style, fault)


def _draw(scene: Scene, rng: Generator) -> Image.Image:
    mask = _texture(scene, rng) if scene.name in TEXTURES else _objects(scene, rng)
    ground, colour = (ImageColor.getrgb(c) + rng.normal(0, 12, 3) for c in (scene.ground, scene.colour))
    shade = 1 + rng.uniform(-0.15, 0.15) * np.linspace(-1, 1, SIZE)[:, None, None]
    pixels = (ground * (1 - mask[..., None]) + colour * mask[..., None]) * shade
    return _spoil(np.clip(pixels, 0, 255), scene.fault, rng)


def _spoil(pixels: Plane, fault: str, rng: Generator) -> Image.Image:
    """The picture with its fault, and the little noise that every picture has."""
    gain, offset = {"bright": (0.55, 140), "dark": (0.45, 0), "hazy": (0.4, 75)}.get(fault, (1, 0))
    noise = rng.normal(0, 34 if fault == "grainy" else rng.uniform(0, 7), pixels.shape[:2])
    image = Image.fromarray(np.clip(pixels * gain + offset + noise[..., None], 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(1.3)) if fault == "blurred" else image


def _objects(scene: Scene, rng: Generator) -> Plane:
    """How much of each pixel is covered, (64, 64) in 0 to 1."""
    canvas = Image.new("L", (CANVAS, CANVAS))
    for place in scene.places:
        stamp = _stamp(scene, 2 * int(rng.integers(*WIDTHS[scene.size])), rng)
        x, y = (int((CANVAS - stamp.width) * (step + 1) / 2 + rng.normal(0, 3)) for step in place)
        canvas.paste(255, (x, y), stamp)
    return np.asarray(canvas.reduce(2), dtype=np.float64) / 255


def _stamp(scene: Scene, width: int, rng: Generator) -> Image.Image:
    """One object as a mask of the given width, turned a little."""
    mask = Image.new("L", (width, width))
    _primitives(ImageDraw.Draw(mask), OUTLINES[scene.name], width)
    if scene.style == "outlined":
        mask.paste(0, (0, 0), mask.filter(ImageFilter.MinFilter(5)))
    turned = mask.rotate(float(rng.uniform(-12, 12)), Image.Resampling.BILINEAR)
    return turned.filter(ImageFilter.GaussianBlur(width / 12)) if scene.style == "soft" else turned


def _primitives(draw: ImageDraw.ImageDraw, outline: str, width: int) -> None:
    shapes: dict[str, Any] = {"E": draw.ellipse, "R": draw.rectangle, "P": draw.polygon, "L": draw.line}
    for part in outline.split(";"):
        kind, *numbers = part.split()
        points = [float(number) * (width - 1) for number in numbers]
        shapes[kind[-1]](points, fill=0 if kind.startswith("-") else 255, width=max(2, width // 14))


def _texture(scene: Scene, rng: Generator) -> Plane:
    """A texture in 0 to 1 over the whole picture, or over the half or corner that the place names."""
    row, column = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    period, angle, turn = PERIODS[scene.size], rng.uniform(-0.2, 0.2), rng.uniform(0, 2 * np.pi)
    u = (np.cos(angle) * column + np.sin(angle) * row) / period + rng.random()
    v = (np.cos(angle) * row - np.sin(angle) * column) / period + rng.random()
    noise = rng.normal(0, 0.45, row.shape)
    coarse = rng.random((SIZE // period, SIZE // period)).astype(np.float32)
    fog = Image.fromarray(coarse).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    field = {
        "stripes": 0.5 + 2 * _wave(v),
        "checkerboard": 0.5 + 4 * _wave(u / 2) * _wave(v / 2),
        "dots": 3 * (_wave(u) + _wave(v)) - 2.4,
        "waves": 0.5 + 2 * _wave(v + 0.3 * _wave(u / 3)),
        "grid": 3 * np.maximum(_wave(u), _wave(v)) - 2.2,
        "grain": 0.5 + noise,
        "gradient": 0.5 + (np.cos(turn) * column + np.sin(turn) * row) / SIZE,
        "clouds of fog": 2.5 * np.asarray(fog, dtype=np.float64) - 0.75,
    }[scene.name]
    across, down = scene.places[0]
    window = (across * (column + 0.5) >= 0) & (down * (row + 0.5) >= 0)
    return np.asarray(np.clip(field, 0, 1) * window)


def _wave(turns: Plane) -> Plane:
    return np.asarray(np.sin(2 * np.pi * turns), dtype=np.float64)


def _describe(scene: Scene, rng: Generator) -> str:
    def said(share: float, wordings: str) -> str:
        return str(rng.choice(wordings.split("|"))) if rng.random() < share else ""

    count, noun = len(scene.places), said(1, SYNONYMS.get(scene.name, scene.name))
    subject = [
        said(0.4, "There is|The picture shows|A picture of|We see|Seen here:"),
        "" if scene.name in UNCOUNTED else ("a", "two", "three", "four")[count - 1],
        said(0.5, SIZE_WORDS[scene.size]),
        said(0.8, STYLES[scene.style]),
        said(0.75, scene.colour),
        noun if count == 1 else noun + {"fish": "", "cross": "es"}.get(noun, "s"),
        said(0.7, _where(scene)),
        said(0.4, f"on a {scene.ground} ground|over {scene.ground}|against {scene.ground}"),
    ]
    sentence = re.sub(r"\ba (?=[aeio])", "an ", " ".join(word for word in subject if word))
    rest = (said(0.35, FAULTS[scene.fault]), said(0.2, _absent(scene, rng)))
    return " ".join([sentence[0].upper() + sentence[1:] + ".", *(part for part in rest if part)])


def _where(scene: Scene) -> str:
    if len(scene.places) == 1:
        whole = scene.name in TEXTURES and scene.places[0] == (0, 0)
        return "all over|everywhere" if whole else PLACES[scene.places[0]]
    if len(scene.places) == 2 and {column for column, _ in scene.places} == {-1, 1}:
        return "on both sides|on the left and on the right|one on each side"
    return "scattered|in several places|apart from each other"


def _absent(scene: Scene, rng: Generator) -> str:
    """True sentences about what is not there."""
    other = rng.choice([name for name in OBJECTS if name != scene.name])
    wordings = f"No {other}.|There is no {other}.|Without any {other}.|No sign of the {other}."
    (column, *others) = {column for column, _ in scene.places}
    clear = {-1: "|The right side is clear.", 1: "|The left side is clear."}
    return wordings if others else wordings + clear.get(column, "")


def write(folder: Path, count: int = 800) -> Path:
    """A folder with images/ and metadata.csv (file_name, text, label, split); gives the table's path."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    table = folder / "metadata.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "text", "label", "split"])
        for index, picture in enumerate(make(HELD_OUT_SEED, count)):
            name = f"images/{index:05d}.png"
            picture.image.save(folder / name)
            rows.writerow([name, picture.caption, picture.name, "test"])
    return table


def write_captions(file: Path, count: int = 800) -> Path:
    """A text file with the captions of other pictures, one a line; gives its path."""
    captions = [picture.caption for picture in make(CAPTIONS_SEED, count)]
    file.write_text("\n".join([*captions, ""]), encoding="utf-8")
    return file


def main() -> None:
    """Write the held-out folder, or the captions of others."""
    parser = argparse.ArgumentParser(description="Write general pictures with captions.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=800)
    parser.add_argument("--captions", action="store_true", help="write a text file of captions alone")
    asked = parser.parse_args()
    print((write_captions if asked.captions else write)(asked.folder, asked.count))


if __name__ == "__main__":
    main()
