"""Interpolation by hand, and the rule that picks α."""

from __future__ import annotations

import torch

from domainclip.interpolate import Tried, choose, set_alpha


def test_weights_in_between() -> None:
    weights = {"text/a": torch.zeros(2), "text/q.lora_A.x": torch.zeros(1), "text/q.lora_B.x": torch.zeros(1)}
    start = {
        "text/a": torch.tensor([0.0, 2.0]),
        "text/q.lora_A.x": torch.tensor([5.0]),
        "text/q.lora_B.x": torch.zeros(1),
    }
    end = {
        "text/a": torch.tensor([4.0, 4.0]),
        "text/q.lora_A.x": torch.tensor([6.0]),
        "text/q.lora_B.x": torch.tensor([8.0]),
    }
    set_alpha(weights, start, end, 0.25)
    assert weights["text/a"].tolist() == [1.0, 2.5]
    # The product B·A at a quarter: A as trained, B scaled.
    assert (weights["text/q.lora_A.x"] * weights["text/q.lora_B.x"]).item() == 0.25 * 6 * 8
    set_alpha(weights, start, end, 1.0)
    assert all(torch.equal(weights[name], end[name]) for name in weights)


def test_the_smallest_within_one_standard_error_wins() -> None:
    scores = {0.25: 0.50, 0.5: 0.58, 0.75: 0.60, 1.0: 0.59}
    assert choose([1.0, 0.5, 0.25, 0.75], lambda alpha: (scores[alpha], 0.03)) == (
        0.5,
        [Tried(alpha, scores[alpha], 0.03) for alpha in (0.25, 0.5, 0.75, 1.0)],
    )
    assert choose([0.25, 0.5, 0.75, 1.0], lambda alpha: (scores[alpha], 0.001))[0] == 0.75
    assert choose([0.25, 1.0], lambda alpha: (scores[alpha], 1.0))[0] == 0.25
    assert choose([0.25, 0.5, 0.75, 1.0], lambda alpha: (scores[alpha], float("nan")))[0] == 0.75
