from __future__ import annotations

from typing import ClassVar

import numpy as np

from domainclip.evaluation.metrics.captions import caption_vectors
from domainclip.evaluation.probes.modality_gap import ModalityGap
from domainclip.evaluation.probes.paraphrase import Paraphrase
from domainclip.evaluation.probes.retrieval import Retrieval
from domainclip.evaluation.probes.set_difficulty import SetDifficulty
from tests.evaluation.probes.array_encoder import evaluation_set
from tests.evaluation.probes.synthetic_sets import WordEncoder


def test_captions_that_several_probes_need_are_encoded_once() -> None:
    """With an encoder that records its requests, each of which would be cached."""

    class RecordingEncoder(WordEncoder):
        requests: ClassVar[set[tuple[str, ...]]] = set()

        def texts(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            self.requests.add(tuple(texts))
            return super().texts(texts)

    rows = [{"id": f"{i}", "texts": [f"one {i}", f"two {i % 3}"], "language": "en"} for i in range(9)]
    model = RecordingEncoder({f"{i}": np.random.default_rng(i).normal(size=4) for i in range(9)})
    data = evaluation_set(rows)
    Retrieval()(model, data)
    after_retrieval = set(model.requests)
    assert len(after_retrieval) == 1
    for probe in (ModalityGap(), SetDifficulty(), Paraphrase()):
        assert probe(model, data).metrics  # type: ignore[operator]
    assert model.requests == after_retrieval


def test_caption_vectors_are_in_the_requested_order() -> None:
    rows = [{"id": "0", "texts": ["b", "a"]}, {"id": "1", "texts": ["c", "A"]}]
    model = WordEncoder({"0": [1, 0], "1": [0, 1]}, {"A": [1, 0], "b": [0, 1], "c": [-1, 0]})
    vectors = caption_vectors(model, evaluation_set(rows), ["c", "b", "a", "b"])
    assert vectors.tolist() == [[-1, 0], [0, 1], [1, 0], [0, 1]]
