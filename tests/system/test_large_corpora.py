"""Whole runs on shards, streams, prepared corpora and kept pixels: the same weights by every way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import streaming
from domainclip import disk_cache
from domainclip.cli.app import main
from domainclip.config import loading
from domainclip.errors import DataError, RecipeError
from domainclip.pipelines import finetune
from domainclip.training.run_context import RunOptions
from tests.conftest import make_corpus
from tests.data.made_shards import tar
from tests.support.processes import FORKING


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def _shards(folder: Path, rows: Path) -> Path:
    """The tiny corpus as tar shards, named after their splits."""
    lines = [line.split(",") for line in (rows / "metadata.csv").read_text().splitlines()[1:]]
    for split in ("train", "val", "test"):
        own = [line for line in lines if line[4] == split]
        for shard in range(2):
            members = []
            for name, text, label, group, _ in own[shard::2]:
                told = {"text": text, "label": label, "group_id": group}
                key = Path(name).stem
                members += [
                    (f"{key}.png", (rows / name).read_bytes()),
                    (f"{key}.json", json.dumps(told).encode()),
                ]
            tar(folder / f"{split}-{shard}.tar", members)
    return folder


COLUMNS = ["corpus.columns.image=", "corpus.columns.split="]


def _train(recipe_file: Path, folder: Path, *changes: str, resume: bool = False) -> dict[str, torch.Tensor]:
    chosen = loading.load_recipe(str(recipe_file), ["evaluate.bootstrap_samples=100", *changes])
    finetune.finetune(chosen, RunOptions(folder=folder, quiet=True, resume=resume))
    return load_file(next((folder / "model").glob("*.safetensors")))


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def test_kept_pixels_change_no_weight(recipe_file: Path, tmp_path: Path) -> None:
    plain = _train(recipe_file, tmp_path / "plain", "train.pixel_cache_gb=0")
    assert disk_cache.entries("pixels") == []
    kept = _train(recipe_file, tmp_path / "kept")
    again = _train(recipe_file, tmp_path / "again")
    assert len(disk_cache.entries("pixels")) == 1
    assert _equal(plain, kept)
    assert _equal(plain, again)


@pytest.mark.parametrize("form", ["tar", "arrow"])
def test_a_prepared_corpus_trains_the_same_weights(recipe_file: Path, tmp_path: Path, form: str) -> None:
    plain = _train(recipe_file, tmp_path / "plain")
    with pytest.raises(SystemExit) as done:
        main(
            ["data", "prepare", "out", "-r", str(recipe_file), "--size", "64", "--to", form, "--workers", "1"]
        )
    assert done.value.code in (0, None)
    assert _equal(plain, _train(recipe_file, tmp_path / "prepared", "corpus.path=out"))


def test_what_the_base_takes_is_what_is_prepared(
    recipe_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["data", "prepare", "out", "-r", str(recipe_file), "--workers", "1"])
    said = capsys.readouterr()
    assert said.out == "out/manifest.json\n"
    assert said.err.splitlines()[-1] == "40 train, 8 validation, 16 test in 3 shards"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"] == {
        "short_side": 32,
        "format": "png",
        "resample": 3,
        "items_a_shard": 500,
        "identifiers": "refuse",
    }
    # Shrunk as the base's own processor does it, so what the model sees stays the same.
    assert _equal(_train(recipe_file, tmp_path / "a"), _train(recipe_file, tmp_path / "b", "corpus.path=out"))


@pytest.fixture
def shard_recipe(recipe_file: Path, corpus: Path, tmp_path: Path) -> Path:
    """The recipe, on tar shards of the same corpus."""
    folder = _shards(tmp_path / "shards", corpus)
    text = recipe_file.read_text().replace(f"path: {corpus}", f"path: {folder}", 1)
    text = (
        text.replace("image: file_name, ", "")
        .replace(", split: split", "")
        .replace("corpus:\n", "corpus:\n  reader: webdataset\n")
    )
    file = tmp_path / "shards.yaml"
    file.write_text(text)
    return file


def test_a_stream_trains_and_resumes_to_the_same_weights(shard_recipe: Path, tmp_path: Path) -> None:
    streamed = ["corpus.options.streaming=true", "train.save_every=3"]
    whole = _train(shard_recipe, tmp_path / "whole", *streamed)
    _train(shard_recipe, tmp_path / "cut", *streamed)
    checkpoints = tmp_path / "cut" / "checkpoints"
    last = max(checkpoints.glob("step-*"))
    for file in last.iterdir():  # as if it had been stopped before
        file.unlink()
    last.rmdir()
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-000003", "step-000006"]
    assert _equal(whole, _train(shard_recipe, tmp_path / "cut", *streamed, resume=True))
    stored = _train(shard_recipe, tmp_path / "stored")
    assert not _equal(whole, stored)  # the same pairs in another order


def test_a_stream_prepares_to_what_its_shards_do(shard_recipe: Path, tmp_path: Path) -> None:
    for name, more in (("stored", []), ("streamed", ["corpus.options.streaming=true"])):
        with pytest.raises(SystemExit) as done:
            main(["data", "prepare", name, "-r", str(shard_recipe), "--size", "64", "--workers", "1", *more])
        assert done.value.code in (0, None)
    one, other = (
        {f.name: f.read_bytes() for f in (tmp_path / n).glob("*.tar")} for n in ("stored", "streamed")
    )
    assert one == other
    assert len(one) == 3


def test_what_a_stream_cannot_do_is_refused(shard_recipe: Path, tmp_path: Path) -> None:
    curation = ['curation.labels_to_captions.templates=["a {}"]']
    with pytest.raises(RecipeError) as error:
        _train(shard_recipe, tmp_path / "a", "corpus.options.streaming=true", *curation)
    assert str(error.value) == (
        "curation.labels_to_captions: needs all training pairs at once, and a stream shows a few: leave it out, or "
        "store the corpus with domainclip data prepare and train on that"
    )


def test_a_recipe_may_not_run_a_pipe(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^corpus.path: pipe: is not read, and no command is ever run"):
        _train(
            recipe_file,
            tmp_path / "a",
            "corpus.reader=webdataset",
            f"corpus.path=pipe:touch {tmp_path}/x",
            *COLUMNS,
        )
    assert not (tmp_path / "x").exists()


def test_prepare_options(recipe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, text in (
        (
            ["-r", "a", "--card", "b", "corpus.path=c"],
            "data prepare: name a recipe with --recipe or a card with --card: one of the two",
        ),
        (["-r", str(recipe_file), "--format", "gif"], '--format: "gif": known: jpeg, png, webp.'),
        (["-r", str(recipe_file), "--to", "zip"], '--to: "zip": known: arrow, tar.'),
        (
            ["--card", "general", "train.epochs=3"],
            "data prepare --card: name the corpus with corpus.path=PATH; other keys are corpus.…",
        ),
    ):
        with pytest.raises(SystemExit) as done:
            main(["data", "prepare", "out", *arguments])
        assert done.value.code == 2
        assert text in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_see_every_id_once_also_after_a_stop(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The twin of `make streaming`, which does it with 100,000 pairs and starts each process anew."""
    monkeypatch.setattr(streaming.multiprocessing, "get_context", lambda _: FORKING)
    monkeypatch.setenv("DOMAINCLIP_CACHE", "set by the benchmark")
    streaming.measure(2000, processes=2, quick=True)
    assert (
        "2,000 pairs, 2 processes, stopped at step 11 of 25: every id once: yes;" in capsys.readouterr().out
    )


CARD = """---
pretty_name: Squares
domainclip:
  columns: {image: file_name, texts: text, labels: label, group: group_id, split: split}
---
"""


def test_a_card_alone_is_enough(tmp_path: Path) -> None:
    make_corpus(tmp_path / "source", 16)
    (tmp_path / "squares.md").write_text(CARD)
    with pytest.raises(SystemExit) as done:
        main(["data", "prepare", "out", "--card", "squares.md", "--workers", "1", "corpus.path=source"])
    assert done.value.code in (0, None)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"] == {"train": 16, "validation": 0, "test": 0}
    assert manifest["settings"]["short_side"] == 256
    assert manifest["corpus"]["card"] == "squares"
