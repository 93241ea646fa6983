"""A card that is fitted to another table names what was guessed, and the key of what was left out."""

from __future__ import annotations

from pathlib import Path

from domainclip.data.cards import load_card
from domainclip.data.readers.sources.assumed_card import fit_card
from tests.data.made_corpora import noise_image


def test_every_absent_column_has_its_guess_or_its_key(tmp_path: Path) -> None:
    noise_image(tmp_path / "0.png")
    made = tmp_path / "films.csv"
    made.write_text("path,caption,finding\n0.png,a,x\n")
    keys = {"image": "file_name", "texts": ["report"], "labels": "label", "group": "patient"}
    notes = fit_card(load_card(None, {"columns": keys}), str(made), ["path"]).notes
    assert [note.partition("no column of this corpus: ")[2] for note in notes] == [
        '"path" is guessed; corpus.columns.image=COLUMN names another',
        '"caption" is guessed; corpus.columns.texts=COLUMN names another',
        "each image is a group; corpus.columns.group=COLUMN names one",
        "left out; corpus.columns.labels=COLUMN names one",
    ]
