"""The graph proposes what the exact search finds, follows the index, and is made again where it does not fit."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from domainclip.errors import RecipeError
from domainclip.inference import vector_graph
from domainclip.inference.vector_graph import VectorGraph

pytest.importorskip("usearch")

SIZE, WIDTH = 2000, 24


def made(seed: int = 0, size: int = SIZE) -> dict[str, np.ndarray]:
    """Vectors around 40 centres, by digest."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, WIDTH)) + 2 * rng.normal(size=(40, WIDTH))[rng.integers(40, size=size)]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return {f"digest-{i}": row for i, row in enumerate(rows.astype(np.float32))}


def reader(
    vectors: Mapping[str, np.ndarray], read: list[str] | None = None
) -> Callable[[Sequence[str]], dict[str, np.ndarray]]:
    """Reads vectors as a store does, and notes which."""

    def go(digests: Sequence[str]) -> dict[str, np.ndarray]:
        if read is not None:
            read.extend(digests)
        return {digest: vectors[digest] for digest in digests if digest in vectors}

    return go


def recall(graph: VectorGraph, vectors: Mapping[str, np.ndarray], queries: int = 50, k: int = 10) -> float:
    """The share of the k exact matches that the graph proposes."""
    names, rows = list(vectors), np.stack(list(vectors.values()))
    hits = 0
    for query in rows[:queries]:
        exact = {names[i] for i in np.argsort(-(rows @ query), kind="stable")[:k]}
        hits += len(exact & graph.propose(query, k))
    return hits / (queries * k)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> VectorGraph:
    made_graph = VectorGraph(tmp_path_factory.mktemp("graph") / "a.index", WIDTH)
    made_graph.update(list(made()), reader(made()))
    return made_graph


def test_the_exact_matches_are_proposed(graph: VectorGraph) -> None:
    vectors = made()
    assert recall(graph, vectors) > 0.99
    proposed = graph.propose(vectors["digest-7"], 10)
    assert 10 <= len(proposed) < SIZE / 2, "a graph that proposes everything is no graph"
    assert stat.S_IMODE(graph.file.stat().st_mode) == 0o600


def test_vectors_of_other_images_are_not_proposed(graph: VectorGraph) -> None:
    """The control: against other vectors under the same names, the recall is that of a guess."""
    other = dict(zip(made(), made(seed=1).values(), strict=True))
    assert recall(graph, other) < 0.4


def test_it_follows_the_index(tmp_path: Path) -> None:
    vectors, read = made(size=60), list[str]()
    first = VectorGraph(tmp_path / "a.index", WIDTH)
    first.update(list(vectors), reader(vectors, read))
    assert sorted(read) == sorted(vectors)
    new = {"new": made(seed=3, size=1)["digest-0"]}
    after = {**dict(list(vectors.items())[5:]), **new}
    read.clear()
    again = VectorGraph(tmp_path / "a.index", WIDTH)
    again.update(list(after), reader(after, read))
    assert "new" in read
    assert len(set(read)) < 20, "only a few vectors are compared, and the new one is added"
    proposed = again.propose(new["new"], 200)
    assert proposed == set(after)


@pytest.mark.parametrize("fault", ["another model", "damaged", "cut", "another width"])
def test_what_does_not_fit_is_made_again(tmp_path: Path, fault: str) -> None:
    vectors, read = made(size=60), list[str]()
    file = tmp_path / "a.index"
    graph = VectorGraph(file, WIDTH)
    graph.update(list(vectors), reader(vectors))
    if fault == "another model":
        vectors = dict(zip(vectors, made(seed=5, size=60).values(), strict=True))
    elif fault == "damaged":
        graph.file.write_bytes(b"no graph" * 50)
    elif fault == "cut":
        graph.file.write_bytes(graph.file.read_bytes()[:900])
    else:
        other = VectorGraph(file, 3)
        other.update(["x"], lambda digests: {"x": np.ones(3, np.float32) / np.sqrt(3)})
    again = VectorGraph(file, WIDTH)
    again.update(list(vectors), reader(vectors, read))
    assert set(read) == set(vectors)
    assert recall(again, vectors, queries=10) == 1


def test_without_its_library_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_graph, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r'--approximate: needs usearch: pip install "domainclip\[index\]"'):
        vector_graph.check_installed()
