"""Examples of a report: none unless allowed; what became right or wrong; when and where heat is drawn."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from domainclip.config.loading import load_recipe
from domainclip.config.recipe import Recipe
from domainclip.evaluation.base import EvaluationSet
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.evaluate import Evaluation, evaluate_pair
from domainclip.evaluation.metrics.first_answers import Answer
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.evaluation.protocol import Protocol
from domainclip.models.loading import load_model
from domainclip.report import example_cards, gallery
from domainclip.report.context import Examples
from tests.evaluation.example_sets import CLASSES, samples
from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set
from tests.evaluation.probes.synthetic_sets import metric_of
from tests.report.made_results import evaluation, row
from tests.support.tiny_models import tiny_clip

PROBES = {"retrieval": Retrieval(), "zero_shot": ZeroShot()}


@pytest.fixture
def recipe(recipe_file: Path) -> Recipe:
    return load_recipe(str(recipe_file), ["report.examples=true"])


@pytest.fixture
def encoder(tmp_path: Path) -> CachedEncoder:
    return CachedEncoder(load_model(tiny_clip(tmp_path / "clip")))


def made(recipe: Recipe, data: EvaluationSet, *encoders: Any, rows: Any = ()) -> Examples:
    found = gallery.gallery_examples(recipe, data, encoders, PROBES, evaluation(list(rows)))
    assert found is not None
    return found


def model(answers: dict[int, str], data: EvaluationSet) -> ArrayEncoder:
    """Each caption has its axis; image i lies on that of the caption in `answers`, else on its own."""
    texts = sorted({text for row in data.items for text in row["texts"]})
    axes = dict(zip(texts, np.eye(len(texts) + 2).tolist(), strict=False))
    images = {row["id"]: axes[answers.get(i, row["texts"][0])] for i, row in enumerate(data.items)}
    axes |= {"a cat": np.eye(len(texts) + 2)[-1].tolist(), "a dog": np.eye(len(texts) + 2)[-2].tolist()}
    return ArrayEncoder(images, axes)


def test_no_examples_unless_allowed(recipe_file: Path, encoder: CachedEncoder) -> None:
    data = evaluation_set(samples(4))
    forbidden = load_recipe(str(recipe_file))
    assert gallery.gallery_examples(forbidden, data, [encoder], PROBES, evaluation([])) is None


def test_what_became_right_and_wrong_by_hand(recipe: Recipe) -> None:
    """Eight images share "clear", 8 to 11 have their own. The base errs on 8 and 9, the adapted on 9 and 10."""
    texts = ["clear"] * 8 + [f"mass {i}" for i in range(8, 12)]
    rows = [{**sample, "texts": [texts[i]], "labels": []} for i, sample in enumerate(samples(12))]
    data = evaluation_set(rows)
    base = model({8: "mass 9", 9: "clear"}, data)
    adapted = model({9: "mass 8", 10: "mass 11"}, data)
    found = made(recipe, data, base, adapted)
    assert [(group.kind, group.total) for group in found.groups] == [
        ("Newly right", 1),
        ("Newly wrong", 1),
        ("Hardest", 2),
    ]
    (newly_right,), (newly_wrong,), (hardest,) = (group.examples for group in found.groups)
    assert (newly_right.caption, newly_wrong.caption, hardest.caption) == ("mass 8", "mass 10", "mass 9")
    before, after = newly_right.models
    assert before.captions[0] == Answer("mass 9", False)
    assert after.captions[0] == Answer("mass 8", True)
    assert len(before.captions) == 3
    # Four other captions have a cosine of 0 with the image: a tie of ranks 2 to 5.
    assert (before.rank, after.rank) == (3.5, 1)
    assert (found.images, found.captions) == (12, 5)
    # The ranks are those of the probe: eight images with one caption, ranked first, have rank 1.
    ranks = metric_of(Retrieval()(base, data), "image_to_text_median_rank").scores
    assert ranks.tolist() == [1.0] * 8 + [3.5, 3.5, 1.0, 1.0]
    alone = made(recipe, data, base)
    assert [group.kind for group in alone.groups] == ["Hardest"]
    assert {example.caption for example in alone.groups[0].examples} == {"mass 8", "mass 9"}


def test_the_truth_key_decides_what_is_right(recipe: Recipe) -> None:
    """Image 0 ranks the caption of image 1 first: right as its object, wrong as its group alone."""
    for column, right in (("truth", True), ("group", False)):
        rows = [{**sample, "texts": [f"view {i}"], "labels": []} for i, sample in enumerate(samples(6))]
        for i in (0, 1):
            rows[i][column] = "M31"
        data = evaluation_set(rows)
        found = made(recipe, data, model({0: "view 2"}, data), model({0: "view 1"}, data))
        assert [group.total for group in found.groups] == ([1, 0, 0] if right else [0, 0, 1])


def test_classes_before_and_after_and_a_set_without_captions(recipe: Recipe) -> None:
    rows = [{**sample, "texts": []} for sample in samples(6)]  # dogs are 0 and 3
    data = evaluation_set(rows, CLASSES)
    axes = {"a cat": [1.0, 0.0], "a dog": [0.0, 1.0]}

    def classifier(dogs: tuple[int, ...]) -> ArrayEncoder:
        return ArrayEncoder({f"{i:03d}": [0.1, 1.0] if i in dogs else [1.0, 0.1] for i in range(6)}, axes)

    found = made(recipe, data, classifier((0, 1)), classifier((0, 3, 4)))
    assert [group.total for group in found.groups] == [2, 1, 1]
    assert found.captions == 0
    example = found.groups[1].examples[0]  # 4 became a dog
    assert (example.label, example.caption) == ("cat", "")
    assert [answers.label for answers in example.models] == [Answer("cat", True), Answer("dog", False)]
    assert [(answers.rank, answers.captions) for answers in example.models] == [(None, [])] * 2
    section = example_cards.cards(found)
    assert [group.heading for group in section.groups] == [
        "Newly right: 2",
        "Newly wrong: 1",
        "Hardest: 1, shown above",
    ]
    with_texts = made(recipe, evaluation_set(samples(6), CLASSES), model({}, evaluation_set(samples(6))))
    assert {answers.label for group in with_texts.groups for e in group.examples for answers in e.models} <= {
        Answer("cat", True)
    }


def pointing(low: float, dataset: str = "test") -> Any:
    adapted = (low + 0.1, low, low + 0.2)
    return row(metric="pointing", probe="localisation", dataset=dataset, chance=0.2, adapted=adapted)


def test_heat_only_where_localisation_beats_chance(recipe: Recipe, encoder: CachedEncoder) -> None:
    data = evaluation_set(samples(12))
    for rows, shown in (([], False), ([pointing(0.2)], False), ([pointing(0.21)], True)):
        found = made(recipe, data, encoder, rows=rows)
        examples = [example for group in found.groups for example in group.examples]
        assert len(examples) == 6
        assert {example.heat is not None for example in examples} == {shown}
        assert example_cards.cards(found).has_heat is shown
    image, heat = (Image.open(io.BytesIO(png)) for png in (examples[0].image, examples[0].heat or b""))
    assert image.size == heat.size
    assert image.tobytes() != heat.tobytes()
    assert not gallery.localises(evaluation([pointing(0.3, "general")]), "test")


@pytest.mark.parametrize("broken", [[], [1]])
def test_measured_images_are_not_encoded_again(
    recipe: Recipe, encoder: CachedEncoder, monkeypatch: pytest.MonkeyPatch, broken: list[int]
) -> None:
    data = evaluation_set(list(reversed(samples(20, broken=broken))))
    measured = evaluate_pair(encoder, None, Protocol([data], {"retrieval": Retrieval()}, 20))
    monkeypatch.setattr(
        CachedEncoder, "encode_image_chunk", lambda *_: pytest.fail("an image was encoded again")
    )
    found = gallery.gallery_examples(recipe, data, [encoder], PROBES, measured)
    assert isinstance(measured, Evaluation)
    assert found is not None
    assert found.images == 20 - len(broken)
    ranks = [example.models[0].rank or 0 for example in found.groups[0].examples]
    (median,) = (row for row in measured.rows if row.metric == "image_to_text_median_rank")
    assert ranks == sorted(median.base_scores, reverse=True)[: len(ranks)]


def test_long_captions_are_shortened_and_absent_changes_named(recipe: Recipe) -> None:
    rows = [{**sample, "texts": [f"{i} " * 200], "labels": []} for i, sample in enumerate(samples(9))]
    data = evaluation_set(rows)
    wrong = {i: rows[(i + 1) % 9]["texts"][0] for i in range(9)}
    section = example_cards.cards(made(recipe, data, model(wrong, data), model(wrong, data)))
    assert [group.heading for group in section.groups] == [
        "Newly right: none",
        "Newly wrong: none",
        "Hardest: 6 of 9",
    ]
    card = section.groups[2].cards[0]
    assert (len(card.caption), len(card.columns[0].captions[0].text)) == (240, 120)
    assert card.caption.endswith("…")


def test_heat_is_drawn_in_its_window() -> None:
    """A map of two cells over the right half of a grey image: the right quarter is coloured, the left half is not."""
    grey = Image.new("RGB", (80, 40), (50, 50, 50))
    overlay = np.asarray(gallery._overlay(grey, np.array([[0.0, 1.0]]), np.array([40.0, 0.0, 80.0, 40.0])))
    assert (overlay[:, :40] == 50).all()
    assert (overlay[:, 79, 0] > 150).all()
    assert (overlay[:, 41] == overlay[:, 41, :1]).all()  # the lowest cell is transparent
    flat = np.asarray(gallery._overlay(grey, np.ones((1, 2)), np.array([0.0, 0.0, 80.0, 40.0])))
    assert (flat == 50).all()  # a constant map colours nothing
