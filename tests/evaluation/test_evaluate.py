"""Evaluation of models: verdicts, unreadable images, and results that do not depend on order or processes."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from domainclip.errors import DataError, ModelError, RecipeError
from domainclip.evaluation import chunks
from domainclip.evaluation import encoder as encoder_module
from domainclip.evaluation.base import Probe
from domainclip.evaluation.embedding_cache import EmbeddingCache
from domainclip.evaluation.encoder import CachedEncoder, encode_images
from domainclip.evaluation.evaluate import Evaluation, evaluate_pair
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.evaluation.protocol import Protocol
from domainclip.evaluation.verdicts import BETTER, NO_VERDICT, SAME, UNKNOWN, WORSE, ComparisonRow
from domainclip.models.dual_encoder import DualEncoder
from domainclip.models.loading import load_model
from tests.evaluation.example_sets import AXES, CLASSES, animals, samples, skilled
from tests.evaluation.probes.array_encoder import ArrayEncoder, CollapsedEncoder, evaluation_set, items
from tests.support.tiny_models import tiny_clip

PROBES: dict[str, Probe] = {"zero_shot": ZeroShot(), "retrieval": Retrieval()}


def row_of(evaluation: Evaluation, metric: str, dataset: str = "test") -> ComparisonRow:
    return next(row for row in evaluation.rows if (row.metric, row.dataset) == (metric, dataset))


def test_verdicts_on_gain_loss_and_no_difference() -> None:
    data = evaluation_set(animals(120), CLASSES)
    poor, strong, alike = skilled(120, 0.6), skilled(120, 0.95, seed=1), skilled(120, 0.6, seed=2)
    for before, after, verdict in ((poor, strong, BETTER), (strong, poor, WORSE), (poor, alike, SAME)):
        evaluation = evaluate_pair(before, after, Protocol([data], {"zero_shot": ZeroShot()}, 400))
        row = row_of(evaluation, "macro_accuracy")
        assert (row.verdict, row.primary, row.n, row.groups) == (verdict, True, 120, 120)
        assert row.base.low <= row.base.value <= row.base.high


def test_identical_models_have_a_difference_of_zero_with_p_one() -> None:
    rows = [{**row, "texts": [f"text {i}"]} for i, row in enumerate(animals(40))]
    vectors = {f"text {i}": [float(i % 7), 3.0] for i in range(40)}
    model = ArrayEncoder(skilled(40, 0.7).image_vectors, {**AXES, **vectors})
    evaluation = evaluate_pair(model, model, Protocol([evaluation_set(rows, CLASSES)], PROBES, 200))
    assert len(evaluation.rows) > 8
    for row in evaluation.rows:
        assert row.difference is not None
        assert row.difference.value == 0
        assert row.difference.low <= 0 <= row.difference.high
        assert (row.difference.p, row.verdict) == (1.0, SAME if row.comparable else NO_VERDICT)
    described = {row.metric for row in evaluation.rows if not row.comparable}
    assert {"image_to_text_r1_shuffled", "precision/cat", "f1/cat"} <= described
    assert not described & {"macro_accuracy", "recall/cat", "macro_auroc"}


def test_a_lower_rank_is_better() -> None:
    rows = [{"id": f"{i}", "texts": [f"text {i}"]} for i in range(8)]
    images = {f"{i}": np.eye(8)[i].tolist() for i in range(8)}
    right = {f"text {i}": np.eye(8)[i].tolist() for i in range(8)}
    wrong = {f"text {i}": np.eye(8)[(i + 1) % 8].tolist() for i in range(8)}
    evaluation = evaluate_pair(
        ArrayEncoder(images, wrong),
        ArrayEncoder(images, right),
        Protocol([evaluation_set(rows)], PROBES, 200),
    )
    row = row_of(evaluation, "image_to_text_median_rank")
    assert row.difference is not None
    assert row.difference.value < 0
    assert row.verdict == BETTER
    assert evaluation.protocol[0]["details"] == {"not_measured": "there are no two classes to choose among"}


def test_verdicts_on_classes_are_corrected_for_their_number() -> None:
    """One of twelve classes is better by chance: significant by its interval, but not after the correction."""
    names = [f"c{i:02d}" for i in range(12)]
    classes = {name: f"a {name}" for name in names}
    texts = {f"a {name}": np.eye(12)[i].tolist() for i, name in enumerate(names)}
    rows = [{"id": f"{i:03d}", "labels": [names[i % 12]]} for i in range(240)]

    def model(lucky: int) -> ArrayEncoder:
        # In each class every second item is correct; in c00, `lucky` further items are.
        def axis(i: int) -> int:
            right = (i // 12) % 2 == 0 or (i % 12 == 0 and i // 12 < 2 * lucky)
            return i % 12 if right else (i + 1) % 12

        return ArrayEncoder({f"{i:03d}": np.eye(12)[axis(i)].tolist() for i in range(240)}, texts)

    evaluation = evaluate_pair(
        model(0), model(7), Protocol([evaluation_set(rows, classes)], {"zero_shot": ZeroShot()})
    )
    lucky = row_of(evaluation, "recall/c00")
    assert lucky.difference is not None
    assert lucky.difference.p is not None
    assert 0.001 < lucky.difference.p < 0.05
    assert lucky.difference.low > 0
    assert lucky.verdict == SAME
    sure = evaluate_pair(
        model(0), model(10), Protocol([evaluation_set(rows, classes)], {"zero_shot": ZeroShot()})
    )
    assert row_of(sure, "recall/c00").verdict == BETTER


def test_few_groups_are_reported() -> None:
    five, ten = (evaluation_set(animals(40, groups=n), CLASSES) for n in (5, 10))
    evaluation = evaluate_pair(
        skilled(40, 0.5), skilled(40, 1), Protocol([five], {"zero_shot": ZeroShot()}, 200)
    )
    assert row_of(evaluation, "accuracy").verdict == UNKNOWN
    assert evaluation.warnings == ["test: only 5 groups: no interval can be given below 6"]
    evaluation = evaluate_pair(
        skilled(40, 0.5), skilled(40, 1), Protocol([ten], {"zero_shot": ZeroShot()}, 200)
    )
    assert evaluation.warnings == ["test: only 10 groups: intervals are narrower than they should be"]


def test_a_single_model_has_no_difference() -> None:
    evaluation = evaluate_pair(
        skilled(30, 0.8), None, Protocol([evaluation_set(animals(30), CLASSES)], PROBES, 200)
    )
    row = row_of(evaluation, "accuracy")
    assert (row.adapted, row.difference, row.verdict, row.adapted_scores) == (None, None, None, None)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(RecipeError) as error:
        evaluate_pair(CollapsedEncoder(), None, Protocol([evaluation_set(animals(3))], PROBES))
    assert str(error.value) == (
        "nothing can be measured: zero_shot on test: there are no two classes to choose among; "
        "retrieval on test: there are no two different captions"
    )


# --- with real models ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return (
        tiny_clip(tmp_path_factory.mktemp("base")),
        tiny_clip(tmp_path_factory.mktemp("adapted"), seed=1),
    )


@pytest.fixture
def model(folders: tuple[Path, Path]) -> tuple[DualEncoder, DualEncoder]:
    return load_model(folders[0]), load_model(folders[1])


def exact_values(evaluation: Evaluation) -> list[Any]:
    """Every metric to its last bit; as text, since NaN is not equal to itself."""
    return [
        (
            row.dataset,
            row.metric,
            repr((row.base, row.adapted, row.difference)),
            row.base_scores.tolist(),
            list(row.ids),
        )
        for row in evaluation.rows
    ]


def test_embeddings_equal_those_of_the_model(model: tuple[DualEncoder, DualEncoder]) -> None:
    data = items(samples(5))
    encoder = CachedEncoder(model[0])
    preprocessed = [
        model[0].image_preprocessor(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in data
    ]
    pixels = torch.stack([torch.from_numpy(inputs["pixels"]) for inputs in preprocessed])
    with torch.no_grad():
        expected = model[0].eval().encode_image({"pixels": pixels}).numpy()
        words = model[0].encode_text(model[0].text_tokenizer(["a cat", "a dog"])).numpy()
    assert encoder.images(data) == pytest.approx(expected, abs=1e-6)
    assert encoder.texts(["a dog", "a cat", "a dog"]) == pytest.approx(words[[1, 0, 1]], abs=1e-6)
    assert encoder.images(data) is encoder.images(data)
    assert encoder.texts(["a cat"]) is encoder.texts(["a cat"])


def test_encoding_restores_the_training_mode(model: tuple[DualEncoder, DualEncoder]) -> None:
    model[0].train()
    CachedEncoder(model[0]).texts(["a cat"])
    assert model[0].training


def test_unreadable_images_are_left_out_for_both_and_counted(model: tuple[DualEncoder, DualEncoder]) -> None:
    base, adapted = map(CachedEncoder, model)
    data = evaluation_set(samples(40, broken=(3, 33)), CLASSES)
    evaluation = evaluate_pair(base, adapted, Protocol([data], PROBES, 100))
    assert evaluation.valid
    assert "test: 2 of 40 images cannot be read; left out for both models" in evaluation.warnings
    accuracy = row_of(evaluation, "accuracy")
    assert accuracy.n == 38
    assert not {"003", "033"} & set(accuracy.ids)
    assert evaluation.protocol[0]["unreadable"] == 2


def test_a_set_without_one_readable_image_is_refused(model: tuple[DualEncoder, DualEncoder]) -> None:
    data = evaluation_set(samples(2, broken=(0, 1)), CLASSES)
    with pytest.raises(DataError) as error:
        evaluate_pair(CachedEncoder(model[0]), None, Protocol([data], PROBES))
    assert str(error.value) == "test: none of its 2 images can be read: check the corpus path"


def test_encoding_an_unreadable_image_raises(model: tuple[DualEncoder, DualEncoder]) -> None:
    with pytest.raises(DataError) as error:
        CachedEncoder(model[0]).images(items(samples(3, broken=[1])))
    assert str(error.value) == "1 of 3 images cannot be read: measure the readable ones"


def test_no_digit_depends_on_the_order_of_the_rows(model: tuple[DualEncoder, DualEncoder]) -> None:
    data = evaluation_set(samples(45, broken=[7]), CLASSES)
    order = np.random.default_rng(0).permutation(45)
    permuted = replace(data, items=data.items.select(order))
    base, adapted = model
    plain, other = (
        evaluate_pair(CachedEncoder(base), CachedEncoder(adapted), Protocol([ordered], PROBES, 100))
        for ordered in (data, permuted)
    )
    assert exact_values(plain) == exact_values(other)
    assert plain.protocol == other.protocol


def test_base_and_adapted_share_the_embeddings_of_a_locked_tower(
    model: tuple[DualEncoder, DualEncoder], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapted = model
    for name, weight in base.weights().items():
        if name.startswith("image/"):
            adapted.weights()[name].data.copy_(weight.data)
    runs: list[int] = []
    plain = CachedEncoder.encode_image_chunk

    def counted(self: CachedEncoder, inputs: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
        runs.append(len(inputs))
        return plain(self, inputs)

    monkeypatch.setattr(CachedEncoder, "encode_image_chunk", counted)
    cache = EmbeddingCache()
    pair = [CachedEncoder(dual_encoder, cache) for dual_encoder in (base, adapted)]
    readable = encode_images(pair, items(samples(3)))
    assert runs == [3]
    assert pair[0].images(readable) is pair[1].images(readable)
    assert encode_images([CachedEncoder(base, cache)], items(samples(3))) is not readable
    assert runs == [3]  # equal images and weights: the tower does not run again
    assert (pair[0].texts(["a cat"]) != pair[1].texts(["a cat"])).any()


def test_different_preprocessing_makes_the_evaluation_invalid(model: tuple[DualEncoder, DualEncoder]) -> None:
    base, adapted = map(CachedEncoder, model)
    adapted.preprocessing = "other"
    adapted.image_key = (adapted.image_key[0], "other")
    evaluation = evaluate_pair(base, adapted, Protocol([evaluation_set(samples(20), CLASSES)], PROBES, 100))
    assert not evaluation.valid
    assert evaluation.warnings[0] == (
        "base and adapted model preprocess images differently: their metrics must not be compared"
    )


def test_a_broken_model_is_named(model: tuple[DualEncoder, DualEncoder]) -> None:
    next(weight for name, weight in model[0].weights().items() if "visual" in name).data.fill_(float("nan"))
    model[0].base = "runs/one"
    with pytest.raises(ModelError) as error:
        CachedEncoder(model[0]).images(items(samples(2)))
    assert str(error.value) == "runs/one: an image embedding is not a finite number; retrain it"


class ObjectExchange:
    """Exchanges objects among threads as `gather_objects` does among processes."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world)
        self.thread = threading.local()
        self.values: list[Any] = [None] * world

    def gather(self, value: Any) -> list[Any]:
        self.values[self.thread.rank] = value
        self.barrier.wait(60)
        gathered = list(self.values)
        self.barrier.wait(60)
        return gathered


def evaluate_on_processes(
    folders: tuple[Path, Path], world: int, monkeypatch: pytest.MonkeyPatch
) -> list[Any]:
    exchange = ObjectExchange(world)
    monkeypatch.setattr(chunks, "process_count", lambda: world)
    for module in (chunks, encoder_module):
        monkeypatch.setattr(module, "rank", lambda: exchange.thread.rank)
        monkeypatch.setattr(module, "gather_objects", exchange.gather)
    models = [(load_model(folders[0]), load_model(folders[1])) for _ in range(world)]

    def measure(rank: int) -> Any:
        exchange.thread.rank = rank
        data = evaluation_set(samples(110, broken=[5]), CLASSES)
        base, adapted = map(CachedEncoder, models[rank])
        return exact_values(evaluate_pair(base, adapted, Protocol([data], PROBES, 100)))

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(measure, range(world)))


def test_no_digit_depends_on_the_number_of_processes(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four chunks, the last short, over 1, 2 and 3 processes; each returns the whole result."""
    alone = evaluate_on_processes(folders, 1, monkeypatch)
    assert len(alone[0]) > 4
    assert evaluate_on_processes(folders, 2, monkeypatch) == alone * 2
    assert evaluate_on_processes(folders, 3, monkeypatch) == alone * 3


def test_chunks_cover_every_row_once() -> None:
    for n in (0, 1, 4, 5, 13):
        results = chunks.map_chunks(list, range(n), size=4)
        assert [row for chunk in results for row in chunk] == list(range(n))
