"""Search is exact, and its index follows the files: changed, removed, renamed, damaged, shared by processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from domainclip.errors import DataError, ModelError, RecipeError
from domainclip.inference import search as search_module
from domainclip.inference.adapted_model import AdaptedModel, load_model
from domainclip.inference.image_sources import ImageSource, list_sources
from domainclip.inference.saved_index import read_contents
from domainclip.inference.search import Query, SearchResult, search
from domainclip.inference.typed_files import find_files
from domainclip.inference.vector_store import VectorStore
from domainclip.pipelines import search as pipelines_search
from tests.data.made_corpora import noise_image

WORDS = Query("a red square")


@pytest.fixture(scope="module")
def model(base: Path) -> AdaptedModel:
    return load_model(base, device="cpu")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def encoded(model: AdaptedModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images that each search encodes."""
    counts: list[int] = []
    stream = search_module.encode_stream

    def counting(encoder: object, sources: list[ImageSource], progress: object) -> Iterator[object]:
        if sources:
            counts.append(len(sources))
        return stream(encoder, sources, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(search_module, "encode_stream", counting)
    return counts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        noise_image(tmp_path / "photos" / f"{i}.png", seed=i)
    return tmp_path / "photos"


def found(model: AdaptedModel, query: Query = WORDS, top: int = 10) -> SearchResult:
    return search(model, query, list_sources(find_files(["photos"])).sources, top)


def ranking(result: SearchResult) -> list[str]:
    return [match.name for match in result.matches]


def test_the_results_are_those_of_all_cosines(model: AdaptedModel, folder: Path) -> None:
    files = [f"photos/{i}.png" for i in range(6)]
    cosines = model.similarity(files, ["a red square"])[:, 0]
    expected = [files[i] for i in np.argsort(-cosines, kind="stable")]
    result = found(model, top=4)
    assert ranking(result) == expected[:4]
    assert [match.cosine for match in result.matches] == pytest.approx(sorted(cosines)[::-1][:4], abs=2e-6)
    assert result.searched == 6


def test_blocks_do_not_change_the_result(
    model: AdaptedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = found(model, top=3)
    monkeypatch.setattr(search_module, "_BLOCK", 2)
    assert found(model, top=3) == whole


def test_an_image_finds_itself_and_both_are_a_weighted_sum(model: AdaptedModel, folder: Path) -> None:
    image = Query(image="photos/3.png")
    assert ranking(found(model, image))[0] == "photos/3.png"
    text, picture = model.encode_texts(["a red square"])[0], model.encode_images(["photos/3.png"])[0]
    total = 0.25 * text + 0.75 * picture
    both = Query("a red square", "photos/3.png", 0.25).vector(model)
    np.testing.assert_allclose(both, total / np.linalg.norm(total), atol=1e-6)
    # The borders are the queries of one kind alone.
    for weight, alone in ((1.0, text), (0.0, picture)):
        np.testing.assert_allclose(
            Query("a red square", "photos/3.png", weight).vector(model), alone, atol=1e-6
        )


def test_only_new_and_changed_images_are_encoded(
    model: AdaptedModel, folder: Path, encoded: list[int]
) -> None:
    found(model)
    found(model)
    assert encoded == [6]  # once
    noise_image(folder / "1.png", seed=20)
    noise_image(folder / "new.png", seed=21)
    (folder / "2.png").unlink()
    (folder / "3.png").rename(folder / "renamed.png")
    (folder / "copy.png").write_bytes((folder / "4.png").read_bytes())
    result = found(model)
    assert encoded == [6, 2]
    assert set(ranking(result)) == {f"photos/{n}.png" for n in ("0", "1", "4", "5", "new", "renamed", "copy")}
    fresh = model.similarity([match.name for match in result.matches], ["a red square"])[:, 0]
    assert [match.cosine for match in result.matches] == pytest.approx(fresh, abs=2e-6)


def test_unreadable_images_are_listed_with_their_copies(model: AdaptedModel, folder: Path) -> None:
    (folder / "b.png").write_bytes((folder / "0.png").read_bytes()[:60])
    (folder / "c.png").write_bytes((folder / "b.png").read_bytes())
    (folder / "empty.png").touch()
    result = found(model)
    assert [(one.name, one.reason) for one in result.unreadable] == [
        ("photos/b.png", "truncated image"),
        ("photos/c.png", "truncated image"),
        ("photos/empty.png", "empty file"),
    ]
    assert len(result.matches) == result.searched == 6
    for file in folder.glob("[0-5].png"):
        file.unlink()
    with pytest.raises(DataError, match="none of 3 images can be read: truncated image"):
        found(model)


def test_a_damaged_index_is_made_again(
    model: AdaptedModel, folder: Path, encoded: list[int], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    whole = found(model)
    file = next(tmp_path.glob("cache/indexes/*/vectors.sqlite"))
    assert file.stat().st_mode & 0o77 == 0
    file.write_bytes(b"no database" * 1000)
    assert found(model) == whole
    assert "the index is damaged: it is made again" in caplog.text
    assert encoded == [6, 6]


def test_a_damaged_vector_is_computed_again(
    model: AdaptedModel, folder: Path, encoded: list[int], tmp_path: Path
) -> None:
    whole = found(model)
    with sqlite3.connect(next(tmp_path.glob("cache/indexes/*/vectors.sqlite"))) as database:
        digest, vector = database.execute("SELECT * FROM vectors LIMIT 1").fetchone()
        flipped = vector[:20] + bytes([vector[20] ^ 1]) + vector[21:]
        database.execute("UPDATE vectors SET vector = ? WHERE digest = ?", (flipped, digest))
    assert found(model) == whole
    assert encoded == [6, 1]


def test_a_cache_that_cannot_be_written_costs_only_time(
    model: AdaptedModel,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = found(model)
    (tmp_path / "file").touch()
    monkeypatch.setenv("DOMAINCLIP_CACHE", str(tmp_path / "file"))
    assert found(model) == whole
    assert "it is made for this search only" in caplog.text


def test_two_stores_write_at_the_same_time(tmp_path: Path) -> None:
    vectors = {str(i): np.full(4, i, np.float32) for i in range(3)}
    with VectorStore("model", 4) as one, VectorStore("model", 4) as other:
        one.write({"0": vectors["0"], "1": vectors["1"]})
        other.write({"1": vectors["1"], "2": vectors["2"]})
        assert one.read(["0", "1", "2", "3"]).keys() == {"0", "1", "2"}
        np.testing.assert_array_equal(other.read(["0"])["0"], vectors["0"])
    with VectorStore("another model", 4) as third:
        assert third.read(["0"]) == {}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(), "name words, or an image with --image"),
        (Query("a", text_weight=1.5), "--text-weight: must lie between 0 and 1, got 1.5"),
    ],
)
def test_a_query_that_cannot_be(model: AdaptedModel, folder: Path, query: Query, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        found(model, query)


def ask_for(
    model: AdaptedModel, monkeypatch: pytest.MonkeyPatch, where: str, **options: object
) -> SearchResult:
    """The command's pipeline, with a model that is loaded already."""
    monkeypatch.setattr(pipelines_search, "open_model", lambda name: model)
    request = pipelines_search.SearchRequest(
        model="m",
        query=WORDS,
        files=find_files([where]),
        **options,  # type: ignore[arg-type]
    )
    return pipelines_search.search(request)[0]


def test_an_index_in_a_file_follows_its_folder_and_outlives_it(
    model: AdaptedModel, folder: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    index = tmp_path / "photos.index"
    made = ask_for(model, monkeypatch, "photos", index=index)
    assert index.stat().st_mode & 0o77 == 0
    noise_image(folder / "new.png", seed=21)
    (folder / "2.png").unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    updated = ask_for(model, monkeypatch, "../photos.index")
    assert encoded == [6, 1]
    assert set(ranking(updated)) == set(ranking(made)) - {"photos/2.png"} | {"photos/new.png"}
    folder.rename(tmp_path / "gone")
    assert ask_for(model, monkeypatch, "../photos.index") == updated
    assert encoded == [6, 1]


def test_an_approximate_search_gives_exact_cosines(
    model: AdaptedModel, folder: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of so few images the graph proposes all, also once some are gone and others are copies."""
    pytest.importorskip("usearch")
    index = tmp_path / "photos.index"
    exact = ask_for(model, monkeypatch, "photos", top=3)
    assert ask_for(model, monkeypatch, "photos", index=index, top=3, approximate=True) == exact
    (folder / "copy.png").write_bytes((folder / "4.png").read_bytes())
    (folder / "2.png").unlink()
    (folder / "broken.png").write_bytes(b"no image")
    after = ask_for(model, monkeypatch, "photos.index", approximate=True)
    assert after == ask_for(model, monkeypatch, "photos")
    assert (len(after.matches), len(after.unreadable)) == (6, 1)
    folder.rename(tmp_path / "gone")
    assert ask_for(model, monkeypatch, "photos.index", approximate=True).matches == after.matches
    assert encoded == [6, 6, 1, 1]
    with pytest.raises(RecipeError, match="--approximate: needs an index in a file"):
        ask_for(model, monkeypatch, "gone", approximate=True)


def test_an_index_that_cannot_be_used(
    model: AdaptedModel, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path
) -> None:
    index = tmp_path / "photos.index"
    ask_for(model, monkeypatch, "photos", index=index)
    image = folder / "0.png"
    content = image.read_bytes()
    with pytest.raises(RecipeError, match="exists already, and is no index: name another file"):
        ask_for(model, monkeypatch, "photos", index=image)
    assert image.read_bytes() == content
    with pytest.raises(ModelError, match="index: an index of another model"):
        read_contents(index, "photos.index", "another fingerprint")
    index.write_bytes(index.read_bytes()[:100] + b"\0" * 8000)
    with pytest.raises(DataError, match="the index is damaged: delete it and make it again with --index"):
        ask_for(model, monkeypatch, "photos.index")
