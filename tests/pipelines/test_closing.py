"""The next commands after a run can be typed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domainclip.pipelines.closing import next_commands
from tests.data.made_corpora import noise_image


def measured(image: Path | str | None, classes: Any = ("cat",)) -> Any:
    items = [] if image is None else [{"image": {"path": str(image)}}]
    return SimpleNamespace(items=items, classes=classes)


def recipe(path: Path | str) -> Any:
    return SimpleNamespace(corpus=SimpleNamespace(path=str(path)))


def first(run: str, path: Path | str, items: Any) -> str:
    return next(iter(next_commands(Path(run), recipe(path), items)))


def test_the_folder_of_the_corpus_is_classified(tmp_path: Path) -> None:
    folder = tmp_path / "my films"
    image = noise_image(folder / "DOE_JANE" / "a.png")
    assert first("runs/a-1", folder, measured(image)) == f"Try it: domainclip classify runs/a-1 '{folder}'"
    (folder / "table.csv").touch()
    assert first("runs/a b", folder / "table.csv", measured(image)).endswith(
        f"classify 'runs/a b' '{folder}'"
    )


def test_a_corpus_without_classes_is_searched(tmp_path: Path) -> None:
    image = noise_image(tmp_path / "a.png")
    line = first("runs/a-1", tmp_path, measured(image, {}))
    assert line == f'Try it: domainclip search runs/a-1 "a photo" --in {tmp_path}'


@pytest.mark.parametrize("place", ["/nowhere/a.png", "", None])
def test_images_that_are_no_files_are_not_named(tmp_path: Path, place: str | None) -> None:
    lines = list(next_commands(Path("runs/a-1"), recipe(tmp_path), measured(place)))
    assert lines == ["On data from elsewhere: domainclip eval runs/a-1 --against base corpus.path=NEW"]


def test_shards_are_named_by_their_pattern() -> None:
    line = first("r", "/data/s-{0..9}.tar", measured("/data/s-0.tar#offset=1&size=2"))
    assert line == "Try it: domainclip classify r '/data/s-{0..9}.tar'"
