"""`caption` as typed: the captions of the captioner, unreadable images, and a model without one."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainclip.cli.app import main
from domainclip.inference.adapted_model import load_model
from domainclip.models import loading
from domainclip.models.saving import save_model
from domainclip.objectives.base import Sizes
from domainclip.objectives.captioning import Captioning

IMAGES = ("a.png", "b.png")


@pytest.fixture
def folder(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the run `run` whose captioner knows two words, and the images `p`."""
    monkeypatch.chdir(tmp_path)
    model = loading.load_model(base)
    objective = Captioning(layers=1, width=4, heads=2)
    sizes = Sizes(model.width, vocabulary=np.array([300, 301]), caption_tokens=3)
    objective.add_to_model(model, objective.initial_weights(sizes, 0), objective.initial_memory(sizes, 0))
    save_model(model, Path("run/model"))
    Path("run/recipe.yaml").write_text("base: b\n")
    Path("p").mkdir()
    for name, colour in zip(IMAGES, ("red", "blue"), strict=True):
        Image.new("RGB", (40, 32), colour).save(Path("p") / name)
    return tmp_path


def test_the_captions_are_those_of_the_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = load_model("run", device="cpu").write_captions([Path("p") / name for name in IMAGES], beams=2)
    main_exit(0, "caption", "run", "p", "--beams", "2", "--json")
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert [one["caption"] for one in document["images"]] == expected
    assert "may repeat captions of the training items" in printed.err
    Path("p/c.png").write_bytes(b"no image")
    main_exit(3, "caption", "run", "p", "--beams", "2", "--csv", "-q")
    printed = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert [row["caption"] for row in rows] == [*expected, ""]
    assert [bool(row["unreadable"]) for row in rows] == [False, False, True]
    assert "note:" not in printed.err
    Path("p/c.png").unlink()
    main_exit(0, "caption", "run", "p", "--beams", "2")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["image", *(row["image"] for row in rows[:2])]


def test_a_model_without_a_captioner_is_refused_before_an_image_is_read(
    folder: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("p/a.png").write_bytes(b"no image")
    main_exit(4, "caption", str(base), "p")
    assert (
        "has no captioner: name a run that was trained with the objective captioning"
        in capsys.readouterr().err
    )


def main_exit(code: int, *arguments: str) -> None:
    ended = 0
    try:
        main([*arguments])
    except SystemExit as stop:
        ended = int(stop.code or 0)
    assert ended == code
