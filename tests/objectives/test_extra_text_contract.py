"""What every objective on further texts must keep: exact over processes and in its gradients, silent without texts."""

from __future__ import annotations

import pytest

from domainclip import registry
from domainclip.objectives.base import Objective
from domainclip.objectives.caption_rewrites import CaptionRewrites
from domainclip.objectives.class_questions import ClassQuestions
from domainclip.objectives.negative_captions import NegativeCaptions
from domainclip.objectives.paraphrases import Paraphrases
from domainclip.objectives.report_sentences import ReportSentences
from domainclip.objectives.text_pairs import TextPairs
from domainclip.objectives.text_self_supervision import TextSelfSupervision
from tests.support.text_objectives import (
    assert_gradients,
    assert_shares_add_up,
    assert_silent_without_texts,
    batch,
    slopes,
)

GROUP = [0, 1, 2, 2, 3, 4]
ALL = ("image", "text", "extra_text", "scale")
# The objective, how many texts each pair has, and the fields whose gradients are compared with finite differences.
# The weights of caption_rewrites are constants of a step, so only its unweighted form can be compared.
CASES = {
    "caption_rewrites": (CaptionRewrites(), [1, 0, 1, 1, 1, 0], ALL),
    "caption_rewrites, weighted": (CaptionRewrites(agreement=2.0, share=0.3), [1, 0, 1, 1, 1, 0], ()),
    "class_questions": (ClassQuestions(), [4, 0, 2, 6, 2, 4], ("image", "extra_text", "scale")),
    "negative_captions": (NegativeCaptions(), [2, 0, 1, 2, 1, 0], ALL),
    "negative_captions, shared": (NegativeCaptions(shared=True), [2, 0, 1, 2, 1, 0], ALL),
    "paraphrases": (Paraphrases(share=0.3), [1, 0, 1, 1, 1, 1], ALL),
    "report_sentences": (ReportSentences(), [3, 1, 2, 0, 3, 1], ("image", "extra_text", "scale")),
    "report_sentences, patches": (
        ReportSentences(patches=True),
        [3, 1, 2, 0, 3, 1],
        ("image", "extra_text", "scale", "image_tokens"),
    ),
    "text_pairs": (TextPairs(), [1, 0, 1, 1, 1, 1], ("text", "extra_text", "scale")),
    "text_pairs, temperature": (TextPairs(temperature=0.2), [1, 0, 1, 1, 1, 1], ("text", "extra_text")),
    "text_self_supervision": (TextSelfSupervision(), [2, 0, 2, 2, 2, 0], ("extra_text",)),
}
EACH = pytest.mark.parametrize(("objective", "counts", "fields"), CASES.values(), ids=CASES.keys())
# These replace a missing text by the caption, or are tested with what else they need: a second view, or weights.
ELSEWHERE = {"prototypes", "class_captions", "short_captions", "two_views", "masked_language", "null_image"}


def test_every_objective_on_further_texts_has_a_case() -> None:
    classes = [registry.find("objectives", name) for name in registry.names("objectives")]
    making = {one.__name__ for one in classes if one.extra_texts is not Objective.extra_texts}
    elsewhere = {registry.find("objectives", name).__name__ for name in ELSEWHERE} | {"Matryoshka"}
    assert making - elsewhere == {type(objective).__name__ for objective, _, _ in CASES.values()}


@EACH
@pytest.mark.parametrize("world", [2, 3])
def test_the_mean_over_processes_is_exact(
    objective: Objective, counts: list[int], fields: tuple[str, ...], world: int
) -> None:
    assert_shares_add_up(objective, batch(counts, GROUP), world)


@EACH
def test_gradients_are_exact(objective: Objective, counts: list[int], fields: tuple[str, ...]) -> None:
    views = batch(counts, GROUP)
    if fields:
        assert_gradients(objective, views, fields)
    _, grads = slopes(objective, views)
    assert (grads["extra_text"].abs().sum(-1) > 0).equal(views.extra_text_mask)


@EACH
def test_without_texts_it_is_silent(objective: Objective, counts: list[int], fields: tuple[str, ...]) -> None:
    assert_silent_without_texts(objective, batch(counts, GROUP))
