"""Small generated corpora in the forms that people have: for the tutorials and the notebooks. Seconds each.

    python examples/make_corpora.py table museum            (a CSV file beside its photos)
    python examples/make_corpora.py folders shop            (a folder for each class)
    python examples/make_corpora.py fits sky                (FITS files with a table)
    python examples/make_corpora.py art paintings           (paintings with title, artist and style)
    python examples/make_corpora.py languages catalogue     (captions in four languages)
    python examples/make_corpora.py changes changed         (pairs of images with one change between them)
    python examples/make_corpora.py words signs             (images in which words are written)

DICOM files come from make_phantoms.py. Same seed, same bytes. `new/` in each folder has no captions.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageColor, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parent))
import generated_pictures as drawn

OBJECTS = ("boat", "fish", "flower", "house", "star", "tree")
NEW = 6  # images without captions, in new/
SPLITS = ("train", "train", "train", "val", "test")
GALAXIES = ("spiral galaxy", "elliptical galaxy", "open cluster")
STYLES = {"cubist": "P", "pointillist": "E", "minimalist": "R"}
ARTISTS = ("A. Lindqvist", "B. Okafor", "C. Moreau", "D. Tanaka")
# A caption of "{colour} {noun}" in each language, and the nouns.
LANGUAGES = {
    "en": ("a {0} {1}", ("boat", "fish", "flower", "house", "star", "tree")),
    "de": ("{1}, {0}", ("Boot", "Fisch", "Blume", "Haus", "Stern", "Baum")),
    "fr": ("{1} de couleur {0}", ("bateau", "poisson", "fleur", "maison", "étoile", "arbre")),
    "es": ("{1} de color {0}", ("barco", "pez", "flor", "casa", "estrella", "árbol")),
}
COLOURS = {
    "white": ("white", "weiß", "blanche", "blanco"),
    "yellow": ("yellow", "gelb", "jaune", "amarillo"),
    "orange": ("orange", "orange", "orange", "naranja"),
}


# Written into images; the words of a split are in no other, so a model that finds them reads their letters.
WORDS = (
    *("apple", "bread", "cheese", "coffee", "garden", "hotel", "island", "market", "museum", "office"),
    *("paper", "pharmacy", "police", "quiet", "radio", "river", "school", "silver", "station", "stop"),
    *("summer", "taxi", "tea", "theatre", "ticket", "tower", "train", "winter", "yellow", "zebra"),
)


def write_table(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    """A CSV file of the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def draw_object(name: str, colour: str, rng: Generator, size: str = "large") -> Image.Image:
    """An object of a colour before a background of dark shapes, 96 pixels square."""
    image = Image.new("RGB", (96, 96), tuple(int(v) for v in rng.integers(10, 60, 3)))
    canvas = ImageDraw.Draw(image)
    for _ in range(6):
        corners = [(int(x), int(y)) for x, y in rng.integers(-10, 106, (4, 2))]
        canvas.polygon(corners, tuple(int(v) for v in rng.integers(0, 110, 3)))
    scene = drawn.Scene(name, colour, "black", size, ((0, 0),), "filled", "normal")
    stamp = drawn._stamp(scene, int(1.5 * rng.integers(*drawn.WIDTHS[size])), rng)
    place = tuple(int(v) for v in rng.integers(0, 96 - stamp.width, 2))
    image.paste(ImageColor.getrgb(colour), place, stamp)
    return image


def table(folder: Path, items: int) -> Path:
    """Photos of museum objects, two of each, and table.csv: file, caption, kind, object."""
    rows = []
    for i in range(items):
        rng = np.random.default_rng([1, i // 2, i % 2])
        name, colour = OBJECTS[i // 2 % 6], list(COLOURS)[i // 12 % 3]
        size = ("small", "medium", "large", "huge")[i // 36 % 4]
        file = _save(draw_object(name, colour, rng, size), folder / "photos" / f"{i:04d}.png")
        caption = f"A {size} {colour} {name}, inventory drawing {i // 2}."
        rows.append({"file": f"photos/{file.name}", "caption": caption, "kind": name, "object": f"O{i // 2}"})
    _new_objects(folder)
    return write_table(folder / "table.csv", rows)


def folders(folder: Path, items: int) -> Path:
    """A folder for each of six classes."""
    for i in range(items):
        colour = list(COLOURS)[i // 6 % 3]
        image = draw_object(OBJECTS[i % 6], colour, np.random.default_rng([2, i]))
        _save(image, folder / "products" / OBJECTS[i % 6] / f"{i:04d}.png")
    _new_objects(folder)
    return folder / "products"


def languages(folder: Path, items: int) -> Path:
    """Photos with a caption column for each of four languages."""
    rows = []
    for i in range(items):
        colour = list(COLOURS)[i // 6 % 3]
        image = draw_object(OBJECTS[i % 6], colour, np.random.default_rng([3, i]))
        file = _save(image, folder / "photos" / f"{i:04d}.png")
        captions = {
            f"text_{code}": f"{template.format(COLOURS[colour][n], nouns[i % 6])}, {i}"
            for n, (code, (template, nouns)) in enumerate(LANGUAGES.items())
        }
        rows.append({"file_name": f"photos/{file.name}", **captions, "group_id": f"P{i}"})
    _new_objects(folder)
    return write_table(folder / "metadata.csv", rows)


def art(folder: Path, items: int) -> Path:
    """Paintings in three styles, with title and artist."""
    rows = []
    for i in range(items):
        style = list(STYLES)[i % 3]
        file = _save(_painting(style, np.random.default_rng([4, i])), folder / "paintings" / f"{i:04d}.png")
        rows.append(
            {
                "file_name": f"paintings/{file.name}",
                "title": f"Untitled painting no. {i}",
                "artist": ARTISTS[i // 3 % 4],
                "style": style,
                "group_id": f"W{i}",
                "split": SPLITS[i // 3 % 5],
            }
        )
    for i in range(NEW):
        _save(_painting(list(STYLES)[i % 3], np.random.default_rng([5, i])), folder / "new" / f"{i}.png")
    return write_table(folder / "metadata.csv", rows)


def changes(folder: Path, items: int) -> Path:
    """Pairs of images that differ in the colour or the kind of their object, with the change in words.

    Each image is the reference of the other. The candidates of a query are the images of five other pairs of
    its split, and its target.
    """
    pairs, rows = items // 2, []
    names = [[f"images/{pair:04d}{side}.png" for side in "ab"] for pair in range(pairs)]
    for pair in range(pairs):
        objects, colours = _two_scenes(pair)
        others = [p for p in range(pairs) if p != pair and p % 5 == pair % 5]
        drawn_pairs = np.random.default_rng([8, pair, 1]).permutation(others)[:5]
        for side in range(2):
            image = draw_object(objects[side], colours[side], np.random.default_rng([8, pair]))
            _save(image, folder / names[pair][side])
            if objects[0] == objects[1]:
                change = f"the same {objects[side]} in {colours[side]}"
            else:
                change = f"a {objects[side]} instead of the {objects[1 - side]}"
            rows.append(
                {
                    "file_name": names[pair][side],
                    "text": f"A {colours[side]} {objects[side]}.",
                    "label": objects[side],
                    "reference": names[pair][1 - side],
                    "change": change,
                    "candidates": ";".join(
                        [names[pair][side], *(names[other][side] for other in drawn_pairs)]
                    ),
                    "group_id": f"P{pair}",
                    "split": SPLITS[pair % 5],
                }
            )
    return write_table(folder / "metadata.csv", rows)


def _two_scenes(pair: int) -> tuple[tuple[str, str], tuple[str, str]]:
    """The objects and the colours of both images of a pair: one of them changes."""
    rng = np.random.default_rng([8, pair, 0])
    first, second = (OBJECTS[i] for i in rng.permutation(len(OBJECTS))[:2])
    one, other = (list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:2])
    return ((first, first), (one, other)) if pair % 2 else ((first, second), (one, one))


def words(folder: Path, items: int) -> Path:
    """Images with one or two words in them, in capitals or not; the split follows from the word."""
    rows = []
    for i in range(items):
        rng = np.random.default_rng([9, i])
        word = i % len(WORDS)
        same_split = [other for other in range(len(WORDS)) if other % 5 == word % 5 and other != word]
        written = [WORDS[word]] + ([WORDS[int(rng.choice(same_split))]] if rng.random() < 0.25 else [])
        file = _save(_sign(written, rng), folder / "images" / f"{i:04d}.png")
        rows.append(
            {
                "file_name": f"images/{file.name}",
                "text": f'The word "{" and ".join(written)}" on a sign.',
                "written": ";".join(written),
                "group_id": f"S{i}",
                "split": SPLITS[word % 5],
            }
        )
    return write_table(folder / "metadata.csv", rows)


def _sign(written: Sequence[str], rng: Generator) -> Image.Image:
    """Words one above the other, light on dark or dark on light, each as large as fits."""
    light, dark = (tuple(int(v) for v in rng.integers(low, low + 60, 3)) for low in (195, 0))
    ground, ink = (dark, light) if rng.random() < 0.5 else (light, dark)
    image = Image.new("RGB", (128, 96), ground)
    canvas = ImageDraw.Draw(image)
    capitals, height = rng.random() < 0.5, 96 // len(written)
    for line, word in enumerate(written):
        text = word.upper() if capitals else word
        size = int(rng.integers(24, 40))
        while canvas.textlength(text, ImageFont.load_default(size)) > 118:
            size -= 1
        font = ImageFont.load_default(size)
        x = int(rng.integers(2, 127 - int(canvas.textlength(text, font))))
        y = line * height + int(rng.integers(1, max(2, height - size - 6)))
        canvas.text((x, y), text, ink, font)
    return image


def _painting(style: str, rng: Generator) -> Image.Image:
    """Polygons, dots or few rectangles, in colours of one palette."""
    image = Image.new("RGB", (96, 80), tuple(int(v) for v in rng.integers(190, 255, 3)))
    canvas = ImageDraw.Draw(image)
    for _ in range({"cubist": 14, "pointillist": 260, "minimalist": 2}[style]):
        x, y = rng.integers(0, 96), rng.integers(0, 80)
        fill = tuple(int(v) for v in rng.integers(20, 230, 3))
        if style == "cubist":
            canvas.polygon([(int(x + a), int(y + b)) for a, b in rng.integers(-26, 26, (4, 2))], fill)
        elif style == "pointillist":
            canvas.ellipse((int(x), int(y), int(x) + 4, int(y) + 4), fill)
        else:
            canvas.rectangle((int(x) // 2, int(y) // 2, int(x) // 2 + 40, int(y) // 2 + 30), fill)
    return image


def fits(folder: Path, items: int) -> Path:
    """Fields of the sky as FITS files, two of each object, with OBJECT and FILTER in the header."""
    rows = []
    for i in range(items):
        kind = GALAXIES[i // 2 % 3]
        file = _write_fits(folder / "fields" / f"{i:04d}.fits", kind, "rg"[i % 2], i // 2)
        text = f"{kind.capitalize()} in field {i // 2}, {'red' if i % 2 == 0 else 'green'} band."
        name = f"fields/{file.name}"
        split = SPLITS[i // 6 % 5]
        rows.append(
            {"file_name": name, "text": text, "label": kind, "group_id": f"G{i // 2}", "split": split}
        )
    for i in range(NEW):
        _write_fits(folder / "new" / f"{i}.fits", GALAXIES[i % 3], "r", 10_000 + i)
    return write_table(folder / "metadata.csv", rows)


def _write_fits(path: Path, kind: str, band: str, seed: int) -> Path:
    from astropy.io import fits as astropy_fits

    rng = np.random.default_rng([6, seed])
    grid = (np.mgrid[:72, :72] - 36) / 36
    row, column = (grid - rng.uniform(-0.5, 0.5, (2, 1, 1))) / rng.uniform(0.5, 1.5)
    radius, angle = np.hypot(row, column), np.arctan2(row, column)
    if kind == "spiral galaxy":
        light = np.exp(-radius * 4) * (1.2 + np.cos(2 * angle + 9 * radius + rng.uniform(0, 6)))
    elif kind == "elliptical galaxy":
        light = 2 * np.exp(-np.hypot(row * rng.uniform(1.2, 2.5), column) * 5)
    else:
        light = np.zeros_like(radius)
        for y, x in rng.normal(0, 0.4, (30, 2)):
            light += rng.uniform(0.5, 2) * np.exp(-((row - y) ** 2 + (column - x) ** 2) * 900)
    for y, x in rng.uniform(-1, 1, (8, 2)):  # stars of the foreground
        light += rng.uniform(0.5, 2) * np.exp(-((grid[0] - y) ** 2 + (grid[1] - x) ** 2) * 400)
    counts = rng.poisson(np.maximum(light, 0) * 900 + 60).astype(np.float32)
    header = astropy_fits.Header({"OBJECT": kind, "FILTER": band, "EXPTIME": 90.0})
    path.parent.mkdir(parents=True, exist_ok=True)
    astropy_fits.PrimaryHDU(counts, header).writeto(path, overwrite=True)
    return path


def _new_objects(folder: Path) -> None:
    for i, name in enumerate(OBJECTS):
        _save(draw_object(name, "white", np.random.default_rng([7, i])), folder / "new" / f"{i}.png")


def _save(image: Image.Image, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


CORPORA: dict[str, Callable[[Path, int], Path]] = {
    "table": table,
    "folders": folders,
    "fits": fits,
    "art": art,
    "languages": languages,
    "changes": changes,
    "words": words,
}


def main() -> None:
    """Write a corpus."""
    parser = argparse.ArgumentParser(description="Write a small generated corpus.")
    parser.add_argument("kind", choices=CORPORA)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=120)
    options = parser.parse_args()
    print(CORPORA[options.kind](options.folder, options.items))


if __name__ == "__main__":
    main()
