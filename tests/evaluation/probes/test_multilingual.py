from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from scipy.stats import spearmanr

from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.evaluation.probes import multilingual
from domainclip.evaluation.probes.multilingual import Multilingual
from tests.evaluation.probes.array_encoder import CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import (
    WordEncoder,
    metric_of,
    metric_value,
    scores_by_id,
    shuffled,
)

N = 12


def multilingual_set(captions: list[list[tuple[str, str]]]) -> EvaluationSet:
    """One item for each list of (language, text)."""
    rows = [{"id": f"{i:02d}", "texts": [text for _, text in item]} for i, item in enumerate(captions)]
    data = evaluation_set(rows)
    whole = [
        {**row, "language": [language for language, _ in item]}
        for row, item in zip(data.items, captions, strict=True)
    ]
    return replace(data, items=Dataset.from_list(whole, features=data.items.features))


def world(
    languages: str = "en de", wrong: tuple[int, ...] = (), n: int = N
) -> tuple[WordEncoder, EvaluationSet]:
    """Every caption lies on its image, but German captions of the items in `wrong` on the next one."""
    captions = [[(language, f"{language} {i}") for language in languages.split()] for i in range(n)]
    texts = {
        text: np.eye(n)[(i + 1) % n if language == "de" and i in wrong else i]
        for i, pairs in enumerate(captions)
        for language, text in pairs
    }
    return WordEncoder({f"{i:02d}": np.eye(n)[i] for i in range(n)}, texts), multilingual_set(captions)


def test_recall_by_language_by_hand() -> None:
    model, data = world(wrong=(0, 1, 2))
    results = Multilingual()(model, data)
    assert metric_value(results, "text_to_image_r1/en") == 1
    assert metric_value(results, "text_to_image_r1/de") == pytest.approx(9 / 12)
    assert metric_value(results, "mean_r1") == pytest.approx((1 + 9 / 12) / 2)
    assert metric_value(results, "worst_language_r1") == pytest.approx(9 / 12)
    assert metric_value(results, "agreement") == pytest.approx(9 / 12)
    assert [
        metric_of(results, f"text_to_image_r1/{language}").chance for language in ("de", "en")
    ] == pytest.approx([1 / 12] * 2)
    assert results.details == {"items": {"de": 12, "en": 12}}


def test_languages_by_direction_and_against_english_by_hand() -> None:
    """German captions of 0, 1 and 2 lie on the next image: so images 1 and 2 rank another caption first.

    Of image 0, all cosines are 0: a tie of twelve. Image 3 has its caption and that of 2 in a tie.
    """
    model, data = world(wrong=(0, 1, 2))
    results = Multilingual()(model, data)
    assert metric_value(results, "image_to_text_r1/en") == 1
    by_image = [1 / 12, 0, 0, 1 / 2, *[1.0] * 8]
    assert metric_of(results, "image_to_text_r1/de").scores == pytest.approx(by_image)
    german = metric_of(results, "image_to_text_minus_english/de")
    assert german.scores == pytest.approx(np.array(by_image) - 1)
    other = metric_of(results, "text_to_image_minus_english/de")
    assert other.scores.tolist() == [-1.0] * 3 + [0.0] * 9
    for metric in (german, other):
        assert (metric.comparable, metric.unit, metric.chance) == (False, "difference", 0)
    assert not [metric for metric in results.metrics if metric.name.endswith("minus_english/en")]


def test_english_is_measured_on_the_items_of_the_other_language() -> None:
    """Half of 24 items have a German caption: chance is that of twelve captions in both languages."""
    model, _ = world(n=24)
    captions = [[("en", f"en {i}"), *([("de", f"de {i}")] if i % 2 else [])] for i in range(24)]
    results = Multilingual()(model, multilingual_set(captions))
    assert metric_of(results, "image_to_text_r1/en").chance == pytest.approx(1 / 24)
    assert metric_of(results, "image_to_text_r1/de").chance == pytest.approx(1 / 12)
    german = metric_of(results, "image_to_text_minus_english/de")
    assert (len(german.ids), german.chance, german.scores.tolist()) == (12, 0, [0.0] * 12)


def test_without_english_no_language_is_compared_with_it() -> None:
    model, data = world("de fr")
    names = [metric.name for metric in Multilingual()(model, data).metrics]
    assert "image_to_text_r1/fr" in names
    assert not [name for name in names if "english" in name]


def test_the_worst_language_is_selected_in_each_resample() -> None:
    model, data = world(wrong=(0, 1, 2))
    metric = metric_of(Multilingual()(model, data), "worst_language_r1")
    weights = np.zeros((3, N))
    weights[0, :3], weights[1, 3:] = 1, 1
    values = metric.aggregate(metric.scores, weights)
    assert values[:2].tolist() == [0.0, 1.0]
    assert np.isnan(values[2])


def test_spearman_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    model, data = world()
    model.text_vectors = {text: rng.normal(size=N) for text in model.text_vectors}
    results = Multilingual()(model, data)
    images = model.images(data.items).astype(float)
    for i in range(N):
        a, b = (
            np.round(images @ model.texts([f"{language} {i}"])[0].astype(float), 6)
            for language in ("de", "en")
        )
        assert scores_by_id(results, "spearman")[f"{i:02d}"] == pytest.approx(spearmanr(a, b).statistic)


def test_captions_of_one_language_are_averaged_per_item() -> None:
    model, _ = world()
    captions = [[("en", f"en {i}"), ("en", f"en more {i}"), ("de", f"de {i}")] for i in range(N)]
    for i in range(N):
        model.text_vectors[f"en more {i}"] = np.eye(N)[i if i < 3 else 0]
    results = Multilingual()(model, multilingual_set(captions))
    assert scores_by_id(results, "text_to_image_r1/en") == {
        f"{i:02d}": 1.0 if i < 3 else 0.5 for i in range(N)
    }
    assert metric_value(results, "mean_r1") == pytest.approx(((3 + 9 / 2) / 12 + 1) / 2)


def test_a_language_with_few_items_is_left_out() -> None:
    model, _ = world()
    captions = [[("en", f"en {i}"), ("de", f"de {i}")] for i in range(N)]
    for i in range(3):
        captions[i].append(("fr", f"fr {i}"))
    captions[3].append(("", "in an unknown language"))
    results = Multilingual()(model, multilingual_set(captions))
    assert results.details == {"items": {"de": 12, "en": 12}, "languages_with_few_items": {"fr": 3}}
    assert "text_to_image_r1/fr" not in [metric.name for metric in results.metrics]


def test_a_collapsed_model_scores_chance() -> None:
    _, data = world()
    results = Multilingual()(CollapsedEncoder(), data)
    for metric in results.metrics:
        assert metric_value(results, metric.name) == pytest.approx(metric.chance)


def test_results_do_not_depend_on_row_order() -> None:
    model, data = world("en de fr", wrong=(0, 5), n=40)
    first, second = (
        Multilingual(max_items=30, ranked=20)(model, data),
        Multilingual(max_items=30, ranked=20)(model, shuffled(data)),
    )
    for name in ("agreement", "spearman", "text_to_image_r1/de"):
        assert scores_by_id(first, name) == pytest.approx(scores_by_id(second, name))


def test_missing_input_is_reported() -> None:
    model, data = world("en")
    assert Multilingual()(model, data).details == {
        "not_measured": "there are no two languages with 10 items or more each"
    }


@pytest.mark.parametrize("cells", [1, 40, 100, 4_000_000])
def test_agreement_does_not_depend_on_block_size_and_blocks_stay_small(
    cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = world("en de fr", wrong=(0, 1, 2))
    expected = Multilingual()(model, data)
    sizes = []

    def counting_cosines(queries: np.ndarray, images: np.ndarray) -> np.ndarray:
        sizes.append(len(queries) * len(images))
        return rounded_cosines(queries, images)

    monkeypatch.setattr(multilingual, "_CELLS", cells)
    monkeypatch.setattr(multilingual, "rounded_cosines", counting_cosines)
    results = Multilingual()(model, data)
    assert max(sizes) <= max(cells, 3 * N)
    for name in ("agreement", "spearman"):
        assert scores_by_id(results, name) == scores_by_id(expected, name)
