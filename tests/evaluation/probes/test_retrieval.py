from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score
from torchmetrics.retrieval import RetrievalMAP

from domainclip import registry
from domainclip.data.cards import Card
from domainclip.errors import RecipeError
from domainclip.evaluation.base import Probe, ProbeResult
from domainclip.evaluation.metrics import ranking
from domainclip.evaluation.metrics.retrieval_gallery import build_galleries
from domainclip.evaluation.probes.retrieval import Retrieval
from tests.evaluation.probes.array_encoder import ArrayEncoder, CollapsedEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import metric_of, metric_value


def random_model(rows: list[dict[str, Any]], seed: int = 0, width: int = 3) -> ArrayEncoder:
    rng = np.random.default_rng(seed)
    texts = sorted({text for row in rows for text in row["texts"]})
    images = {str(row["id"]): rng.normal(size=width).tolist() for row in rows}
    return ArrayEncoder(images, {text: rng.normal(size=width).tolist() for text in texts})


def test_it_is_a_probe() -> None:
    assert isinstance(Retrieval(), Probe)


def test_recall_and_rank_by_hand() -> None:
    rows = [{"id": "a", "texts": ["one", "two"]}, {"id": "b", "texts": ["three"]}]
    images: dict[str, list[float]] = {"a": [1, 0, 0], "b": [0, 1, 0]}
    # Image a: "three" .9, "one" .6, "two" 0. Image b: "two" .8, "three" .436, "one" 0.
    texts = {"one": [0.6, 0, 0.8], "two": [0, 0.8, 0.6], "three": [0.9, 0.436, 0]}
    results = Retrieval()(ArrayEncoder(images, texts), evaluation_set(rows))
    assert metric_of(results, "image_to_text_r1").scores.tolist() == [0, 0]
    assert metric_of(results, "image_to_text_median_rank").scores.tolist() == [2, 2]
    assert metric_of(results, "text_to_image_r1").scores.tolist() == [1, 0, 0]
    assert metric_of(results, "text_to_image_r1").ids == ["a#0", "a#1", "b#2"]
    assert metric_of(results, "image_to_text_r1").chance == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert results.primary == "image_to_text_r1"
    assert metric_of(results, "image_to_text_median_rank").higher_is_better is False
    assert [m.name for m in results.metrics if "_r5" in m.name] == []  # a gallery of three


def test_a_caption_of_several_images_is_relevant_for_all_of_them() -> None:
    """Fault 39."""
    rows = [
        {"id": f"{i:02d}", "texts": [text]} for i, text in enumerate(["No finding.", "no  FINDING.", "mass"])
    ]
    images: dict[str, list[float]] = {"00": [1, 0], "01": [1, 0.1], "02": [0, 1]}
    texts = {"No finding.": [1, 0], "no  FINDING.": [1, 0], "mass": [0, 1]}
    results = Retrieval()(ArrayEncoder(images, texts), evaluation_set(rows))
    assert metric_value(results, "image_to_text_r1") == 1
    # The caption ranks image 00 first, which is relevant for item 01 with an equal caption.
    assert metric_of(results, "text_to_image_r1").scores.tolist() == [1, 1, 1]
    assert results.details["galleries"] == {"all": {"images": 3, "captions": 2}}
    # The commonest answer, "No finding." or one of its images, is right two times in three.
    assert metric_of(results, "image_to_text_r1").chance == pytest.approx(2 / 3)
    assert metric_of(results, "text_to_image_r1").chance == pytest.approx(2 / 3)
    assert metric_of(results, "image_to_text_median_rank").chance == 1
    assert metric_of(results, "image_to_text_map").chance == pytest.approx((1 + 1 + 1 / 2) / 3)


@pytest.mark.parametrize(
    ("column", "expected"), [("truth", [1, 1, 1]), ("group", [0, 0, 1])], ids=["truth key", "group alone"]
)
def test_captions_are_right_for_all_images_of_their_truth_key(column: str, expected: list[int]) -> None:
    """A group alone is what is split and resampled: it makes nothing right."""
    rows = [{"id": name, "texts": [f"text {name}"], column: name[0]} for name in ("m31a", "m31b", "n7")]
    images = {"m31a": [1, 0, 0], "m31b": [0, 1, 0], "n7": [0, 0, 1]}
    texts = {"text m31a": [0, 1, 0], "text m31b": [1, 0, 0], "text n7": [0, 0, 1]}
    results = Retrieval()(ArrayEncoder(images, texts), evaluation_set(rows))
    assert metric_of(results, "image_to_text_r1").scores.tolist() == expected
    assert metric_of(results, "text_to_image_r1").scores.tolist() == expected


def test_the_caption_of_the_patients_other_finding_is_a_wrong_answer() -> None:
    """20 patients with two films of different findings; each film ranks one caption first.

    Base and adapted rank a caption of the patient first 11 times of 40, as the patient would count; but only 1
    and 3 times the film's. Named as the truth, the patient hides the gain.
    """
    rows = [{"id": f"{i:02d}", "texts": [f"film {i:02d}"], "group": f"{i // 2}"} for i in range(40)]
    texts: dict[str, list[float]] = {f"film {i:02d}": np.eye(40)[i].tolist() for i in range(40)}

    def shares(of_the_film: int, truth: str) -> float:
        """Images at 0, 2, 4 … rank their caption first, the next ones that of the other film."""
        answer = {i: i if i < 2 * of_the_film else i ^ 1 for i in range(0, 22, 2)}
        images = {f"{i:02d}": np.eye(40)[answer.get(i, (i + 7) % 40)].tolist() for i in range(40)}
        data = evaluation_set([{**row, "truth": row[truth]} for row in rows])
        result = Retrieval()(ArrayEncoder(images, texts), data)
        assert metric_of(result, "image_to_text_r1").groups == [str(i // 2) for i in range(40)]
        return metric_value(result, "image_to_text_r1")

    assert [40 * shares(right, "id") for right in (1, 3)] == pytest.approx([1, 3])
    assert [40 * shares(right, "group") for right in (1, 3)] == pytest.approx([11, 11])


def test_a_collapsed_model_scores_chance() -> None:
    rows = [{"id": f"{i}", "texts": [f"text {i}"]} for i in range(21)]
    results = Retrieval()(CollapsedEncoder(), evaluation_set(rows))
    assert metric_value(results, "image_to_text_r1") == pytest.approx(1 / 21)
    assert metric_value(results, "text_to_image_r10") == pytest.approx(10 / 21)
    assert metric_value(results, "text_to_image_median_rank") == 11
    for metric in results.metrics:
        assert metric.chance == pytest.approx(metric_value(results, metric.name))


def brute_force(rows: list[dict[str, Any]], model: ArrayEncoder) -> dict[str, float]:
    """The plain definitions: one loop per query, no blocks, no sparse matrices."""
    data = evaluation_set(rows)
    images = model.images(data.items).astype(float)
    distinct = sorted({str(text) for row in rows for text in row["texts"]})
    texts = model.texts(distinct).astype(float)
    cosines = np.round(images @ texts.T, 6)

    def right(item: dict[str, Any], text: str) -> bool:
        return any(text in other["texts"] and other["truth"] == item["truth"] for other in rows)

    truth = np.array([[right(row, text) for text in distinct] for row in rows])
    to_text = [truth[i, np.argsort(-cosines[i])[:5]].any() for i, row in enumerate(rows) if row["texts"]]
    with_text = [i for i, row in enumerate(rows) if row["texts"]]
    to_image = []
    for row in rows:
        for text in row["texts"]:
            column = distinct.index(text)
            best = np.argsort(-cosines[with_text, column])[:5]
            to_image.append(truth[np.array(with_text)[best], column].any())
    return {"image_to_text_r5": float(np.mean(to_text)), "text_to_image_r5": float(np.mean(to_image))}


@pytest.mark.parametrize("block", [1, 7, 512])
def test_blocks_equal_the_plain_definition_on_a_ragged_set(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "BLOCK", block)
    monkeypatch.setattr(ranking, "TILE", 2 * block - 1)
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = [
        {
            "id": f"{i:02d}",
            "texts": [f"text {t}" for t in rng.choice(25, rng.integers(0, 4), replace=False)],
            "truth": f"g{rng.integers(0, 20)}",
        }
        for i in range(37)
    ]
    model = random_model(rows)
    results = Retrieval()(model, evaluation_set(rows))
    for name, expected in brute_force(rows, model).items():
        assert metric_value(results, name) == pytest.approx(expected)
    assert results.details["items_without_text"] == sum(not row["texts"] for row in rows)


def test_each_language_has_its_own_gallery() -> None:
    rows: list[dict[str, Any]] = [
        {
            "id": f"{i}{language}",
            "texts": [f"{language} {i}"],
            "language": language,
            "group": f"{i}{language}",
        }
        for i in range(4)
        for language in ("de", "en")
    ]
    images = {str(row["id"]): np.eye(5)[i // 2].tolist() for i, row in enumerate(rows)}
    texts: dict[str, list[float]] = {f"en {i}": np.eye(5)[i].tolist() for i in range(4)}
    texts |= {f"de {i}": [0, 0, 0, 0, 1] for i in range(4)}
    results = Retrieval()(ArrayEncoder(images, texts), evaluation_set(rows))
    assert metric_value(results, "image_to_text_r1/en") == 1
    assert metric_value(results, "image_to_text_r1/de") == pytest.approx(1 / 4)  # four equal captions
    assert metric_value(results, "image_to_text_r1") == pytest.approx((1 + 1 / 4) / 2)
    assert results.details["galleries"] == {
        "de": {"images": 4, "captions": 4},
        "en": {"images": 4, "captions": 4},
    }


def test_reason_is_given_when_nothing_is_measured() -> None:
    rows = [{"id": "0", "texts": ["one"]}, {"id": "1", "texts": ["One "]}, {"id": "2", "texts": [" "]}]
    results = Retrieval()(CollapsedEncoder(), evaluation_set(rows))
    assert (results.metrics, results.primary) == ([], "")
    assert results.details == {"not_measured": "there are no two different captions"}


def test_ranks_and_shares_of_the_gallery() -> None:
    rows = [{"id": f"{i:02d}", "texts": [f"text {i}"]} for i in range(20)]
    model = random_model(rows, seed=2)
    results = Retrieval(percent=(10, 45))(model, evaluation_set(rows))
    cosines = np.round(
        model.images(evaluation_set(rows).items).astype(float)
        @ model.texts([f"text {i}" for i in range(20)]).astype(float).T,
        6,
    )
    ranks = (cosines > np.diag(cosines)[:, None]).sum(axis=1) + 1
    assert metric_value(results, "image_to_text_mean_rank") == pytest.approx(ranks.mean())
    assert metric_value(results, "image_to_text_map") == pytest.approx((1 / ranks).mean())
    assert metric_value(results, "image_to_text_top_10_percent") == pytest.approx((ranks <= 2).mean())
    assert metric_value(results, "text_to_image_top_45_percent") == pytest.approx(
        (((cosines > np.diag(cosines)).sum(axis=0) + 1) <= 9).mean()
    )
    assert metric_of(results, "image_to_text_top_10_percent").chance == pytest.approx(0.1)


def test_pairwise_counts_only_the_first_caption_of_the_same_item() -> None:
    rows = [
        {"id": "a", "texts": ["No finding.", "clear"]},
        {"id": "b", "texts": ["no finding."]},
        {"id": "c", "texts": ["mass"]},
    ]
    images: dict[str, list[float]] = {"a": [1, 0], "b": [1, 0.1], "c": [0, 1]}
    texts: dict[str, list[float]] = {
        "No finding.": [1, 0],
        "no finding.": [1, 0],
        "clear": [1, 0],
        "mass": [0, 1],
    }
    pairwise = Retrieval(preset="pairwise")(ArrayEncoder(images, texts), evaluation_set(rows))
    assert metric_of(pairwise, "image_to_text_r1").scores == pytest.approx([0.5, 0.5, 1])
    assert metric_of(pairwise, "text_to_image_r1").ids == ["a#0", "b#1", "c#2"]  # in the order of the items
    assert pairwise.details["galleries"] == {"all": {"images": 3, "captions": 3}}
    multi = Retrieval()(ArrayEncoder(images, texts), evaluation_set(rows))
    # "No finding." is one entry, relevant for both; for b it ties with "clear".
    assert metric_of(multi, "image_to_text_r1").scores.tolist() == [1, 0.5, 1]


def test_shuffled_captions_are_those_of_another_group() -> None:
    """Of two groups each gets the captions of the other; so does every one of five."""
    for groups in (2, 5):
        data = evaluation_set([{"id": f"{i}", "texts": [f"text {i}"]} for i in range(groups)])
        (gallery,) = build_galleries(data)
        shuffled = gallery.shuffled(0).toarray()
        assert shuffled.sum(axis=0).tolist() == shuffled.sum(axis=1).tolist() == [1] * groups
        assert not (shuffled & gallery.by_image.toarray()).any()


def test_shuffled_captions_score_chance() -> None:
    rows = [{"id": f"{i:03d}", "texts": [f"text {i}"], "truth": f"g{i // 2}"} for i in range(100)]
    images = {str(row["id"]): np.eye(100)[i].tolist() for i, row in enumerate(rows)}
    model = ArrayEncoder(images, {f"text {i}": np.eye(100)[i].tolist() for i in range(100)})
    results = Retrieval()(model, evaluation_set(rows))
    assert metric_value(results, "image_to_text_r1") == 1
    # A perfect model never ranks another item's caption first; chance is 2 of 100.
    assert metric_value(results, "image_to_text_r1_shuffled") == 0
    blind = Retrieval()(CollapsedEncoder(), evaluation_set(rows))
    assert metric_value(blind, "image_to_text_r1_shuffled") == pytest.approx(2 / 100)
    again = Retrieval(seed=1)(random_model(rows), evaluation_set(rows))
    other = Retrieval(seed=2)(random_model(rows), evaluation_set(rows))
    first, second = (metric_of(run, "image_to_text_r1_shuffled").scores for run in (again, other))
    assert (first != second).any()


def test_a_gallery_of_fixed_size_is_drawn_by_id() -> None:
    rows = [{"id": f"{i:02d}", "texts": [f"text {i}"]} for i in range(30)]
    results = Retrieval(gallery=12)(random_model(rows), evaluation_set(rows))
    ids = metric_of(results, "image_to_text_r1").ids
    assert len(ids) == 12
    assert metric_of(results, "image_to_text_r1").chance == pytest.approx(1 / 12)
    backwards = Retrieval(gallery=12)(random_model(rows), evaluation_set(rows[::-1]))
    assert sorted(metric_of(backwards, "image_to_text_r1").ids) == sorted(ids)
    assert results.details["images_asked_for"] == 12
    few = Retrieval(gallery=50)(random_model(rows), evaluation_set(rows))
    assert few.details["galleries"] == {"all": {"images": 30, "captions": 30}}


def test_image_to_image_relevance_is_the_label_and_excludes_the_same_patient() -> None:
    rows = [
        {
            "id": f"{i:02d}",
            "labels": [["cat", "dog", "owl"][i % 3]],
            "group": f"g{i // 2}",
            "texts": [f"text {i}"],
        }
        for i in range(18)
    ]
    model = random_model(rows)
    results = Retrieval()(model, evaluation_set(rows))
    unit = model.images(evaluation_set(rows).items).astype(float)
    cosines = np.round(unit @ unit.T, 6)
    expected = []
    for i in range(18):
        gallery = [j for j in range(18) if j // 2 != i // 2]
        expected.append(average_precision_score([j % 3 == i % 3 for j in gallery], cosines[i, gallery]))
    assert metric_of(results, "image_to_image_map").scores == pytest.approx(expected)
    assert results.details["image_to_image"] == {"right_is_the_same": "label", "images": 18, "queries": 18}
    named = Card.model_validate({"columns": {"truth": "object"}})
    without = evaluation_set([{**row, "labels": [], "truth": row["group"]} for row in rows])
    by_truth = Retrieval()(model, replace(without, card=named))
    pair = [
        average_precision_score([j == (i ^ 1) for j in range(18) if j != i], np.delete(cosines[i], i))
        for i in range(18)
    ]
    assert metric_of(by_truth, "image_to_image_map").scores == pytest.approx(pair)
    assert by_truth.details["right"] == "the captions of all items with the same object, and equal ones"
    alone = Retrieval()(model, without)
    assert alone.details["right"] == "the captions of the item, and equal ones"
    assert "image_to_image_map" not in [metric.name for metric in alone.metrics]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percent": [0]}, "probes.retrieval: percent: each lies between 0 and 50"),
        ({"gallery": 1}, "probes.retrieval: gallery: at least 2 images"),
        ({"widths": [0]}, "probes.retrieval: widths: each is at least 1"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        registry.build("probes", "retrieval", options, "probes.retrieval")
    assert str(error.value) == message


def test_too_many_relevant_answers_leave_map_out_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [{"id": f"{i:02d}", "texts": [["clear", "mass"][i % 2]]} for i in range(20)]
    model = random_model(rows)
    whole = Retrieval()(model, evaluation_set(rows))
    assert "text_to_image_map" in [metric.name for metric in whole.metrics]
    monkeypatch.setattr(ranking, "_MAX_RELEVANT", 9)
    results = Retrieval()(model, evaluation_set(rows))
    names = [metric.name for metric in results.metrics]
    assert "text_to_image_map" not in names
    assert "image_to_text_map" in names
    assert not any(name.startswith(("text_to_image_r_precision", "text_to_image_ndcg")) for name in names)
    assert results.details["full_ranking_left_out"] == (
        "map, R-precision and nDCG: some queries have too many relevant answers to rank each of them"
    )
    assert metric_value(results, "text_to_image_r5") == metric_value(whole, "text_to_image_r5")


def test_truncated_embeddings_use_their_first_dimensions() -> None:
    # Only the third coordinate separates the images; in two, each is nearest to the other's caption.
    rows = [{"id": "a", "texts": ["one"]}, {"id": "b", "texts": ["two"]}]
    images: dict[str, list[float]] = {"a": [0.3, 0.1, 1], "b": [0.1, 0.3, -1]}
    texts = {"one": [0.1, 0.3, 1], "two": [0.3, 0.1, -1]}
    model = ArrayEncoder(images, texts)
    found = Retrieval(widths=(2, 3))(model, evaluation_set(rows))
    assert metric_value(found, "image_to_text_r1") == 1
    for side in ("image_to_text", "text_to_image"):
        assert metric_value(found, f"{side}_r1_in_3_dimensions") == 1
        assert metric_value(found, f"{side}_r1_in_2_dimensions") == 0
    plain = Retrieval()(model, evaluation_set(rows))
    assert [metric.name for metric in found.metrics if "dimensions" not in metric.name] == [
        metric.name for metric in plain.metrics
    ]


def test_truncated_embeddings_equal_a_narrow_model() -> None:
    rows = [{"id": str(i), "texts": [f"caption {i}"]} for i in range(9)]
    wide = random_model(rows, seed=5, width=7)
    short = [
        {name: row[:3] for name, row in side.items()} for side in (wide.image_vectors, wide.text_vectors)
    ]
    cut = ArrayEncoder(*short)
    found = metric_of(Retrieval(widths=(3,))(wide, evaluation_set(rows)), "image_to_text_r1_in_3_dimensions")
    assert (
        found.scores.tolist()
        == metric_of(Retrieval()(cut, evaluation_set(rows)), "image_to_text_r1").scores.tolist()
    )
    assert 0 < found.scores.sum() < 9


def test_a_width_beyond_the_embeddings_is_refused() -> None:
    rows = [{"id": str(i), "texts": [f"caption {i}"]} for i in range(3)]
    with pytest.raises(RecipeError) as error:
        Retrieval(widths=(64,))(random_model(rows), evaluation_set(rows))
    assert str(error.value) == (
        "probes.retrieval.widths: 64 is more than the 3 dimensions of the embeddings: choose a smaller number"
    )


def names_of(results: ProbeResult) -> list[str]:
    return [metric.name for metric in results.metrics]


def collapsed(items: int, languages: Sequence[str] = ("",), **options: Any) -> ProbeResult:
    """A model with one embedding for all: every gallery is one tie."""
    rows = [
        {"id": f"{i:02d}{language}", "texts": [f"{language} {i}"], "language": language}
        for language in languages
        for i in range(items)
    ]
    return Retrieval(**options)(CollapsedEncoder(), evaluation_set(rows))


def test_half_of_the_smallest_gallery_or_more_is_no_figure() -> None:
    for items, ranks in ((10, [1]), (11, [1, 5]), (20, [1, 5]), (21, [1, 5, 10])):
        results = collapsed(items)
        found = names_of(results)
        assert [name for name in found if "image_to_text_r" in name and "shuffled" not in name] == [
            f"image_to_text_r{k}" for k in ranks
        ]
        assert ("image_to_text_ndcg_10" in found) is (items > 20)
        lacking = [k for k in (5, 10) if k not in ranks]
        assert all(f"R@{k} among {items} captions" in results.details["ranks_left_out"] for k in lacking)
        assert bool(lacking) is ("ranks_left_out" in results.details)
    uneven = evaluation_set(
        [{"id": f"{i:02d}", "texts": [f"text {i}"], "language": "en" if i < 9 else "de"} for i in range(20)]
    )
    found = names_of(Retrieval()(CollapsedEncoder(), uneven))
    assert "image_to_text_r5" not in found
    assert "image_to_text_r5/de" in found  # eleven
    assert "image_to_text_r5/en" not in found


def test_r_precision_is_a_figure_of_its_own_where_several_answers_are_right() -> None:
    """Each image has three captions; the model ranks two of them among its first three, so 2/3."""
    rows = [{"id": f"{i}", "texts": [f"{i} {k}" for k in range(3)]} for i in range(8)]
    images = {f"{i}": np.eye(8)[i].tolist() for i in range(8)}
    texts: dict[str, list[float]] = {f"{i} {k}": np.eye(8)[i].tolist() for i in range(8) for k in (0, 1)}
    texts |= {f"{i} 2": np.eye(8)[(i + 1) % 8].tolist() for i in range(8)}
    results = Retrieval()(ArrayEncoder(images, texts), evaluation_set(rows))
    # Of the three best answers of an image, which tie, two are its own; they are the first three.
    assert metric_value(results, "image_to_text_r_precision") == pytest.approx(2 / 3)
    assert "text_to_image_r_precision" not in names_of(results)  # each caption has one image: it is R@1
    assert metric_value(results, "text_to_image_r1") == pytest.approx(2 / 3)
    blind = Retrieval()(CollapsedEncoder(), evaluation_set(rows))
    assert metric_value(blind, "image_to_text_r_precision") == pytest.approx(3 / 24)
    assert metric_of(results, "image_to_text_r_precision").chance == pytest.approx(3 / 24)


def test_queries_without_a_right_answer_are_left_out_as_torchmetrics_skips_them() -> None:
    """Labels a b b c: the images of a and c have no image to find. torchmetrics counts them as 0 by default."""
    rows = [{"id": f"{i}", "texts": [f"{i}"], "labels": [label]} for i, label in enumerate("abbc")]
    model = random_model(rows)
    results = Retrieval()(model, evaluation_set(rows))
    vectors = model.images(evaluation_set(rows).items).astype(float)
    ranks = rankdata(np.round(vectors @ vectors.T, 6), axis=1)
    others = [(i, j) for i in range(4) for j in range(4) if i != j]
    query, score, right = zip(*((i, ranks[i, j], {i, j} == {1, 2}) for i, j in others), strict=True)
    theirs = RetrievalMAP(empty_target_action="skip")
    expected = theirs(torch.tensor(score), torch.tensor(right), indexes=torch.tensor(query))
    assert metric_value(results, "image_to_image_map") == pytest.approx(float(expected))
    assert results.details["image_to_image"]["queries"] == 2


def test_one_language_has_no_parts_and_the_control_is_not_judged() -> None:
    results = collapsed(12, ["en"])
    assert [name for name in names_of(results) if "/" in name] == []
    control = metric_of(results, "image_to_text_r1_shuffled")
    assert (control.control, control.comparable) == (True, False)
    assert "full_ranking_left_out" not in results.details


def test_a_share_of_the_gallery_is_at_least_one_answer() -> None:
    """A tenth of ten is one; of nine it is none. 99 % of eleven are ten."""
    assert metric_value(collapsed(10), "image_to_text_top_10_percent") == pytest.approx(1 / 10)
    assert [name for name in names_of(collapsed(9)) if "percent" in name] == []
    assert [name for name in names_of(collapsed(11, percent=(9,))) if "percent" in name] == []
    assert metric_value(collapsed(11, percent=(49,)), "image_to_text_top_49_percent") == pytest.approx(5 / 11)


def test_map_is_left_out_where_one_language_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": f"{i}", "texts": [f"text {i}"], "language": "en"} for i in range(4)]
    rows += [{"id": f"d{i}", "texts": ["eins", "zwei"], "language": "de"} for i in range(4)]
    monkeypatch.setattr(ranking, "_MAX_RELEVANT", 1)
    results = Retrieval()(CollapsedEncoder(), evaluation_set(rows))
    assert "image_to_text_map" not in names_of(results)
    assert "full_ranking_left_out" in results.details


def test_options_at_their_bounds() -> None:
    Retrieval(percent=(1, 49), gallery=2, widths=(1,))
    for percent in ((50,), (0,), (10, 50), (0, 10)):
        with pytest.raises(ValueError, match="percent: each lies between 0 and 50"):
            Retrieval(percent=percent)
    with pytest.raises(ValueError, match="widths: each is at least 1"):
        Retrieval(widths=(5, 0))
