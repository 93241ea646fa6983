"""Scene text: values worked by hand, misspelt words, and a model that reads no letters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from domainclip.data.schema import WRITTEN
from domainclip.errors import RecipeError
from domainclip.evaluation.probes.scene_text import SceneText, misspellings
from tests.evaluation.probes.array_encoder import ArrayEncoder, CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import (
    WordEncoder,
    metric_of,
    metric_value,
    scores_by_id,
    shuffled,
)


def row(name: str, *words: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "meta": {WRITTEN: list(words)}, **more}


def test_average_precision_by_hand() -> None:
    """The query "stop": images at ranks 1 and 3 of 4 are right, (1/1 + 2/3) / 2; "taxi": rank 2, 1/2."""
    images = {"a": [1.0, 0.1], "b": [0.8, 0.3], "c": [0.5, 0.5], "d": [0.1, 1.0]}
    encoder = ArrayEncoder(images, {"stop": [1, 0], "taxi": [0, 1]})
    data = evaluation_set([row("a", "Stop"), row("b"), row("c", "STOP", "taxi"), row("d")])
    results = SceneText()(encoder_without_spelling(encoder), data)
    stop, taxi = (1 + 2 / 3) / 2, 1 / 2
    assert scores_by_id(results, "average_precision") == pytest.approx({"a": stop, "c": (stop + taxi) / 2})
    assert scores_by_id(results, "r1") == {"a": 1, "c": 0.5}
    assert results.primary == "average_precision"
    assert results.details == {"words": 2, "images_with_words": 2, "template": "{}"}


def encoder_without_spelling(encoder: ArrayEncoder) -> WordEncoder:
    """Misspelt words get random directions."""
    return WordEncoder(encoder.image_vectors, encoder.text_vectors)


def test_a_model_that_reads_letters_knows_the_spelling_and_one_that_does_not_is_at_chance() -> None:
    words = [first + second + "ll" for first in "bcdfg" for second in "aeiou"]

    def letters(word: str) -> np.ndarray:
        vector = np.zeros(4 * 26)
        for place, letter in enumerate(word):
            vector[26 * place + ord(letter) - 97] = 1
        return vector

    class Reads(CollapsedEncoder):
        def images(self, items: Any) -> np.ndarray:
            return np.stack([letters(name) / 2 for name in items["id"]]).astype(np.float32)

        def texts(self, texts: Any) -> np.ndarray:
            return np.stack([letters(text) / 2 for text in texts]).astype(np.float32)

    class Blind(Reads):
        """It knows the length of the word, and nothing else."""

        def texts(self, texts: Any) -> np.ndarray:
            return np.stack([np.eye(104)[len(text)] for text in texts]).astype(np.float32)

    data = evaluation_set([row(word, word) for word in words])
    assert metric_value(SceneText()(Reads(), data), "spelling") == 1
    assert metric_value(SceneText()(Reads(), data), "average_precision") == 1
    assert metric_value(SceneText()(Blind(), data), "spelling") == pytest.approx(1 / 5)
    assert metric_of(SceneText()(Blind(), data), "spelling").chance == pytest.approx(1 / 5)


def test_misspellings_are_stable_and_none_is_another_word() -> None:
    variants = misspellings("cat", 75, ["cat", "bat", "cut"])
    assert len(variants) == 73 == len(set(variants))  # 3 places x 25 letters, without bat and cut
    assert {"bat", "cut", "cat"}.isdisjoint(variants)
    assert all(sum(a != b for a, b in zip("cat", v, strict=True)) == 1 for v in variants)
    assert misspellings("cat", 4, ["cat"]) == misspellings("cat", 4, ["cat"])
    assert misspellings("to", 4, []) == misspellings("停車", 4, []) == []


def test_the_template_holds_the_word() -> None:
    texts = {f'the word "{word}"': vector for word, vector in (("ab", [1, 0]), ("cd", [0, 1]))}
    data = evaluation_set([row("a", "ab"), row("b", "cd")])
    results = SceneText(template='the word "{}"')(ArrayEncoder({"a": [1, 0], "b": [0, 1]}, texts), data)
    assert metric_value(results, "r1") == 1
    assert [metric.name for metric in results.metrics] == [
        "average_precision",
        "r1",
    ]  # two letters have no spelling
    with pytest.raises(RecipeError, match=r"probes\.scene_text\.template: .* must hold \{\} once"):
        SceneText(template="no place")


def test_a_collapsed_model_scores_chance() -> None:
    data = evaluation_set([row("a", "stop"), row("b", "taxi"), row("c", "hotel")])
    results = SceneText()(CollapsedEncoder(), data)
    for each in results.metrics:
        assert metric_value(results, each.name) == pytest.approx(each.chance), each.name


def test_results_do_not_depend_on_row_order() -> None:
    names = [f"{i:02d}" for i in range(20)]
    encoder = WordEncoder({n: np.random.default_rng(int(n)).normal(size=6) for n in names})
    data = evaluation_set([row(n, ("stop", "taxi", "hotel")[i % 3]) for i, n in enumerate(names)])
    probe = SceneText(max_items=15)
    for name in ("average_precision", "r1", "spelling"):
        assert scores_by_id(probe(encoder, data), name) == scores_by_id(probe(encoder, shuffled(data)), name)


def test_missing_input_is_reported() -> None:
    results = SceneText()(CollapsedEncoder(), evaluation_set([row("a", "stop"), row("b")]))
    assert results.details == {"not_measured": "there are no two words in columns.written"}
