"""General captions of the user, as anchor texts beside those that are made of the tokenizer's words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from domainclip import seeding
from domainclip.components import WeightedObjectives
from domainclip.config.recipe import Recipe
from domainclip.data.corpus import Corpus
from domainclip.data.text.captions import normalise
from domainclip.errors import DataError

_KEY = "anchor_texts.path"


@dataclass(frozen=True)
class AnchorCaptions:
    """The captions of a file."""

    texts: tuple[str, ...] = ()
    note: str = ""  # how many they are, for the user; empty where the recipe names no file


def load_anchor_captions(
    recipe: Recipe, objectives: WeightedObjectives, corpus: Corpus, retention: Corpus | None
) -> AnchorCaptions:
    """At most `anchor_texts.count` lines of the file, without those that are captions of measured items.

    Raises: DataError for a file without a line that can be used, or that is no text.
    """
    settings = recipe.anchor_texts
    if settings.path is None or "anchor_text" not in objectives.needs:
        return AnchorCaptions()
    lines = _lines(Path(settings.path))
    measured = _measured_captions(corpus, retention)
    usable = [line for line in lines if normalise(line) not in measured]
    if not usable:
        raise DataError(f"{_KEY}: no line of it can be used as an anchor text: write one caption a line")
    drawn = [usable[row] for row in seeding.sample(usable, settings.count, "anchor captions")]
    note = f"anchor texts: {len(drawn)} of {len(lines)} captions of the file"
    if left_out := len(lines) - len(usable):
        note += f", {left_out} left out, which are captions of measured items"
    return AnchorCaptions(tuple(drawn), note)


def _lines(file: Path) -> list[str]:
    """The distinct lines of a text file that are not empty, in their order."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        fault = "is no UTF-8 text" if isinstance(error, UnicodeDecodeError) else "cannot be read"
        raise DataError(f"{_KEY}: the file {fault}: name a text file with one caption a line") from None
    return list(dict.fromkeys(stripped for line in text.splitlines() if (stripped := line.strip())))


def _measured_captions(corpus: Corpus, retention: Corpus | None) -> frozenset[str]:
    held_out = [corpus.splits["validation"], corpus.splits["test"]]
    held_out += [] if retention is None else list(retention.splits.values())
    return frozenset(normalise(text) for items in held_out for texts in items["texts"][:] for text in texts)
