"""Alarms: each on what it is for, once, and on nothing else."""

from __future__ import annotations

from math import log
from typing import Any

import pytest

from domainclip.training.monitoring.alarms import AlarmMonitor


def _record(step: int, **changed: Any) -> dict[str, Any]:
    healthy = {
        "step": step,
        "loss": 2.0 - step / 100,
        "terms": {"contrastive": 2.0 - step / 100},
        "scale": 20.0,
        "grad_norm": 1.0 + step % 3 / 10,
        "image_cosine": 0.6,
        "text_cosine": 0.5,
        "waited": 0.01,
    }
    return healthy | changed


def _watch() -> AlarmMonitor:
    return AlarmMonitor(batch_size=32, max_scale=100.0, terms=frozenset({"contrastive"}))


def _raised(*changes: dict[str, Any]) -> list[str]:
    watch = _watch()
    return [
        alarm.text for i, changed in enumerate(changes) for alarm in watch.update(_record(i + 1, **changed))
    ]


def test_a_healthy_run_raises_none() -> None:
    assert _raised(*[{}] * 120) == []


def test_the_loss_at_chance() -> None:
    at_chance = {"terms": {"contrastive": log(32) * 1.01}}
    assert _raised(*[at_chance] * 49) == []
    assert _raised(*[at_chance] * 49, {}) == []
    assert _raised(*[at_chance] * 70) == [
        "step 50: the contrastive loss has stayed at chance (ln 32 = 3.47) for 50 steps: the model does not learn; raise "
        "train.learning_rate, or check that images and captions match"
    ]


def test_batches_without_negatives_are_reported_at_the_first_step() -> None:
    (text,) = _raised(*[{"without_negative": 1.0}] * 60)
    assert text.startswith(
        "step 1: 100% of the pairs of the last step had no negative, since all other pairs"
    )
    # A quarter of the steps, from the fourth step on; one in fifty is none of our business.
    (text,) = _raised(*[{"without_negative": float(i % 4 == 3)} for i in range(60)])
    assert text.startswith("step 4: 25% of the pairs of the last 4 steps had no negative")
    assert _raised(*[{"without_negative": float(i % 50 == 30)} for i in range(120)]) == []


def test_another_loss_has_no_known_chance() -> None:
    watch = AlarmMonitor(batch_size=32, max_scale=100.0, terms=frozenset({"sigmoid"}))
    assert [watch.update(_record(i, terms={"sigmoid": log(32)})) for i in range(80)] == [[]] * 80


@pytest.mark.parametrize("side", ["image", "text"])
def test_collapse(side: str) -> None:
    assert _raised(*[{f"{side}_cosine": 0.991}] * 60) == [
        f"step 50: all {side} embeddings point in one direction (mean cosine 0.991): lower train.learning_rate, or add the "
        "objective anchor"
    ]


def test_the_scale_at_its_bound() -> None:
    assert _raised({}, *[{"scale": 100.0}] * 60) == [
        "step 51: the logit scale has stayed at its bound 100 for 50 steps: captions may be too similar; check the "
        "repeated captions, or lower train.learning_rate"
    ]
    assert _raised(*[{"scale": 100.0}] * 60) == []  # a base that was born there


def test_a_spike_of_the_gradient() -> None:
    assert _raised(*[{}] * 30, {"grad_norm": 22.0}, {"grad_norm": 25.0}) == [
        "step 31: the gradient norm 22 is 20 times the usual: lower train.learning_rate or train.max_grad_norm, or "
        "check this step's items"
    ]
    assert _raised(*[{}] * 10, {"grad_norm": 22.0}) == []  # too early to know what is usual


def test_waiting_for_data() -> None:
    assert _raised(*[{"waited": 0.5}] * 60) == [
        "step 50: 50% of the time is spent waiting for images: raise train.workers, or prepare the corpus with "
        "domainclip data prepare"
    ]


def _looks(*pairs: tuple[float, float], **more: Any) -> list[str]:
    """Alarms of looks at held-out data: before each, three steps of a training loss; then the held-out loss."""
    watch = AlarmMonitor(
        32, 100.0, frozenset({"contrastive"}), max_retention_drop=0.05, action=more.pop("action", "warn")
    )
    said = []
    for at, (training, held_out) in enumerate(pairs):
        for step in range(3):
            said += watch.update(_record(3 * at + step + 1, loss=training + (step - 1) / 10))
        said += watch.update({"step": 3 * at + 3, "validation": {"loss": held_out, **more}})
    return [alarm.text for alarm in said]


def test_overfitting() -> None:
    rising = [(2.0, 1.0), (1.9, 0.9), (1.8, 0.91), (1.7, 0.92), (1.6, 0.95)]
    assert _looks(*rising, (1.5, 0.99)) == [
        "step 15: the validation loss has risen 3 times in a row, to 0.95, while the training loss fell: train fewer "
        "epochs, lower train.learning_rate, or set train.final_weights=best"
    ]
    assert _looks(*rising[:-1]) == []  # twice
    assert _looks(*[(2.0, held_out) for _, held_out in rising]) == []  # training learns nothing either
    assert _looks(*rising[:-1], (1.6, 0.92)) == []  # as good as before


@pytest.mark.parametrize(
    ("action", "done"),
    [
        ("warn", "training continues"),
        ("stop", "training ends"),
        (
            "lower_rate",
            "the learning rate is halved, now and after every further validation with such a drop",
        ),
    ],
)
def test_retention_under_its_floor(action: str, done: str) -> None:
    fell = {"retention": 0.61, "retention_of": "zero_shot macro_accuracy", "lost": 0.08}
    assert _looks((2.0, 1.0), (1.9, 0.9), action=action, **fell) == [
        "step 3: zero_shot macro_accuracy on the retention set is 0.61, 0.08 worse than the base's; "
        f"train.max_retention_drop allows 0.05: {done}; add the objective anchor, lower train.learning_rate, or "
        "set weight_interpolation"
    ]
    assert _looks((2.0, 1.0), **(fell | {"lost": 0.05})) == []
    (bound,) = _looks((2.0, 1.0), action=action, **(fell | {"lost": 0.03, "lost_at_most": 0.07}))
    assert "0.03 worse than the base's (at most 0.07, with 95 % confidence); train" in bound
    assert _looks((2.0, 1.0), **(fell | {"lost": 0.03, "lost_at_most": 0.05})) == []
    assert _looks((2.0, 1.0), **(fell | {"lost": -0.2})) == []
