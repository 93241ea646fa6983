"""Recall and precision are called as the card says, wherever they are shown; no value changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from domainclip.data.cards import Card, load_card
from domainclip.evaluation.evaluate import compare_models
from domainclip.evaluation.probes.zero_shot import ZeroShot
from domainclip.report.error_analysis import sections
from tests.evaluation.probes.array_encoder import ArrayEncoder, evaluation_set

ASTRONOMY = {"recall": "completeness", "precision": "purity"}


def test_metrics_and_tables_take_the_names_of_the_card() -> None:
    rows = [{"id": f"{i:02d}", "labels": ["star" if i % 2 else "galaxy"]} for i in range(30)]
    rng = np.random.default_rng(0)
    images = {str(row["id"]): rng.normal(size=2).tolist() for row in rows}
    model = ArrayEncoder(images, {"a star": [1, 0], "a galaxy": [0, 1]})
    plain = evaluation_set(rows, {"star": "a star", "galaxy": "a galaxy"})
    named = replace(plain, card=plain.card.model_copy(update={"metric_names": ASTRONOMY}))
    before, after = (
        compare_models([model], [data], {"zero_shot": ZeroShot()}, resamples=100)[0]
        for data in (plain, named)
    )
    values = {row.metric: row.base.value for row in before.rows}
    renamed = {
        name.replace("recall/", "completeness/").replace("precision/", "purity/"): value
        for name, value in values.items()
    }
    assert {row.metric: row.base.value for row in after.rows} == renamed
    assert {"completeness/star", "purity/galaxy", "macro_accuracy"} <= set(renamed)
    (section,) = sections(after)
    assert (section.recall_name, section.precision_name) == ("completeness", "purity")
    assert sections(before)[0].recall_name == "recall"


def test_the_astronomy_cards_say_completeness_and_purity() -> None:
    for card in ("astronomy", "galaxy10_decals", "esa_hubble"):
        assert load_card(card).metric_names == ASTRONOMY
    assert load_card("general").metric_names == {}  # the retention set is everyday images


@pytest.mark.parametrize("names", [{"accuracy": "hits"}, {"recall": "a/b"}, {"recall": ""}])
def test_other_metrics_and_names_with_a_slash_are_refused(names: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        Card.model_validate({"metric_names": names})
