from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from domainclip.data.batching.order import batch_positions, rank_slice
from domainclip.errors import RecipeError
from domainclip.seeding import choose, draw


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (7, 7), (5, 8), (3, 10), (1, 2), (100, 32)])
def test_every_epoch_shows_every_item_once(n: int, batch_size: int) -> None:
    stream = [pair for step in range(4 * n) for pair in batch_positions(step, batch_size, n, seed=1)]
    for epoch in range(3):
        assert Counter(index for e, index in stream if e == epoch) == Counter(range(n))
    assert [epoch for epoch, _ in stream] == sorted(epoch for epoch, _ in stream)


def test_no_batch_is_short_and_batches_straddle_epochs() -> None:
    assert [len(batch_positions(step, 4, 10, 0)) for step in range(6)] == [4] * 6
    assert {epoch for epoch, _ in batch_positions(2, 4, 10, 0)} == {0, 1}


def test_a_step_depends_on_nothing_that_came_before() -> None:
    straight = [batch_positions(step, 8, 21, seed=3) for step in range(12)]
    assert [batch_positions(step, 8, 21, seed=3) for step in reversed(range(12))] == straight[::-1]


def test_seeds_and_epochs_differ() -> None:
    first, second = (batch_positions(0, 50, 50, seed) for seed in (0, 1))
    assert first != second
    assert [i for _, i in batch_positions(0, 50, 50, 0)] != [i for _, i in batch_positions(1, 50, 50, 0)]


def test_the_order_is_the_same_in_another_process() -> None:
    code = "from domainclip.data.batching.order import *; from domainclip.seeding import *; print(batch_positions(3, 6, 17, 5), choose(1, 2, 'x', 9))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"{batch_positions(3, 6, 17, 5)} {choose(1, 2, 'x', 9)}"


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_shares_make_up_the_batch(world: int) -> None:
    """Fault 4."""
    batch = batch_positions(0, 8, 30, 0)
    shares = [rank_slice(batch, rank, world) for rank in range(world)]
    assert [pair for share in shares for pair in share] == batch
    assert {len(share) for share in shares} == {8 // world}


def test_a_batch_that_cannot_be_shared() -> None:
    """Fault 4."""
    with pytest.raises(RecipeError) as caught:
        rank_slice(batch_positions(0, 30, 30, 0), 0, 4)
    assert str(caught.value) == (
        "train.batch_size: 30 cannot be shared equally by 4 processes: take a multiple of 4"
    )


def test_captions_are_drawn_evenly_and_anew_each_epoch() -> None:
    drawn = Counter(choose(0, epoch, item, 5) for epoch in range(40) for item in range(50))
    # 2000 draws of 5: each about 400, with a standard deviation of 18.
    assert all(320 < drawn[k] < 480 for k in range(5))
    assert len({choose(0, epoch, 7, 5) for epoch in range(20)}) > 1


def test_augmentation_draws_are_a_function_of_seed_epoch_and_item() -> None:
    assert draw(0, 1, 2).random() == draw(0, 1, 2).random()
    assert len({draw(*key).random() for key in [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3)]}) == 4
