"""Neighbours: the nearest text of the queue that is not right anyway, worked by hand."""

from __future__ import annotations

from dataclasses import replace
from math import exp, log

import pytest
import torch

from domainclip.objectives.base import Sizes, Views
from domainclip.objectives.neighbours import Neighbours
from tests.objectives.filled_views import check_gradients, filled, filled_for
from tests.support.matches import related


def _views(groups: tuple[int, int] = (5, 6)) -> Views:
    """Two pairs along two axes; the queue holds each axis, the texts of pairs with these groups, and a diagonal."""
    eye = torch.eye(2, dtype=torch.float64)
    diagonal = torch.tensor([[0.6, -0.8]], dtype=torch.float64)
    memory = {"text": torch.cat([eye, diagonal]), "group": torch.tensor([*groups, 7])}
    memory |= {"caption": torch.tensor([30, 31, 32]), "pool": torch.tensor([[30], [31], [32]])}
    scale = torch.tensor(2.0, dtype=torch.float64)
    return Views(eye, eye, scale, matches=related([1, 2], [[10], [11]]), memory=memory)


def test_a_value_worked_by_hand() -> None:
    # The neighbours are the axes: each image has its own at cosine 1 and the other one at 0.
    assert Neighbours()(_views()).item() == pytest.approx(log(1 + exp(-2)), abs=1e-12)


def test_what_is_right_anyway_is_no_neighbour() -> None:
    # The first axis is of the first pair's group: its neighbour is now the diagonal, at 0.6 and −0.8.
    image = (log(1 + exp(2 * (0 - 0.6))) + log(1 + exp(2 * (-0.8 - 1)))) / 2  # texts as candidates
    text = (log(1 + exp(2 * (-0.8 - 0.6))) + log(1 + exp(2 * (0 - 1)))) / 2  # images as candidates
    assert Neighbours()(_views((1, 6))).item() == pytest.approx((image + text) / 2, abs=1e-12)


def test_what_is_not_similar_enough_is_left_out() -> None:
    views = _views((1, 6))
    assert (
        Neighbours(min_cosine=0.7)(views).item() == 0.0
    )  # one neighbour alone has nothing to be told apart from
    assert Neighbours(min_cosine=0.5)(views).item() > 0.1


def test_two_pairs_with_one_neighbour_are_not_negatives() -> None:
    views = _views()
    one = {name: value[2:] for name, value in views.memory.items()}
    assert Neighbours()(replace(views, memory=one)).item() == 0.0


def test_an_empty_queue_is_silent_and_fills() -> None:
    objective = Neighbours(size=12)
    views = filled()
    views = replace(views, memory=objective.initial_memory(Sizes(6), 0))
    loss = objective(views)
    assert loss.item() == 0.0
    loss.backward()
    memory = objective.update_memory(views)
    memory = objective.update_memory(replace(views, text=-views.text, memory=memory))
    assert torch.equal(memory["text"], torch.cat([-views.text, views.text])[:12])


def test_gradients_in_double_precision() -> None:
    check_gradients(Neighbours(), filled_for(Neighbours(), b=5, d=4))
