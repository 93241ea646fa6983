"""Alarms: each on what it is for, once, and on nothing else."""

from __future__ import annotations

from math import log
from typing import Any

import pytest

from domainclip.alarms import Watch


def _record(step: int, **changed: Any) -> dict[str, Any]:
    healthy = {
        "step": step,
        "terms": {"contrastive": 2.0 - step / 100},
        "scale": 20.0,
        "grad_norm": 1.0 + step % 3 / 10,
        "image_cosine": 0.6,
        "text_cosine": 0.5,
        "waited": 0.01,
    }
    return healthy | changed


def _watch() -> Watch:
    return Watch(batch=32, bound=100.0, losses=frozenset({"contrastive"}))


def _raised(*changes: dict[str, Any]) -> list[str]:
    watch = _watch()
    return [alarm.text for i, changed in enumerate(changes) for alarm in watch.see(_record(i + 1, **changed))]


def test_a_healthy_run_raises_none() -> None:
    assert _raised(*[{}] * 120) == []


def test_the_loss_at_chance() -> None:
    at_chance = {"terms": {"contrastive": log(32) * 1.01}}
    assert _raised(*[at_chance] * 49) == []
    assert _raised(*[at_chance] * 49, {}) == []
    assert _raised(*[at_chance] * 70) == [
        "step 50: the contrastive loss has stood at chance (ln 32 = 3.47) for 50 steps: nothing is learnt; raise "
        "train.learning_rate, or look whether pictures and captions belong together"
    ]


def test_another_loss_has_no_known_chance() -> None:
    watch = Watch(batch=32, bound=100.0, losses=frozenset({"sigmoid"}))
    assert [watch.see(_record(i, terms={"sigmoid": log(32)})) for i in range(80)] == [[]] * 80


@pytest.mark.parametrize("side", ["image", "text"])
def test_collapse(side: str) -> None:
    assert _raised(*[{f"{side}_cosine": 0.991}] * 60) == [
        f"step 50: all {side} embeddings point one way (mean cosine 0.991): lower train.learning_rate, or add the "
        "objective anchor"
    ]


def test_the_scale_at_its_bound() -> None:
    assert _raised({}, *[{"scale": 100.0}] * 60) == [
        "step 51: the logit scale has stood at its bound 100 for 50 steps: captions may be too alike; look at the "
        "repeated captions, or lower train.learning_rate"
    ]
    assert _raised(*[{"scale": 100.0}] * 60) == []  # a base that was born there


def test_a_spike_of_the_gradient() -> None:
    assert _raised(*[{}] * 30, {"grad_norm": 22.0}, {"grad_norm": 25.0}) == [
        "step 31: the gradient norm 22 is 20 times the usual: lower train.learning_rate or train.max_grad_norm, or "
        "look at this step's items"
    ]
    assert _raised(*[{}] * 10, {"grad_norm": 22.0}) == []  # too early to know what is usual


def test_waiting_for_data() -> None:
    assert _raised(*[{"waited": 0.5}] * 60) == [
        "step 50: 50% of the time goes into waiting for pictures: raise train.workers, or prepare the corpus with "
        "domainclip data prepare"
    ]
