"""Hashes and draws keep their values: runs, splits and figures of other machines depend on them."""

from __future__ import annotations

from domainclip import seeding


def test_stable_hashes_keep_their_values() -> None:
    assert seeding.stable() == 16476032584258269876
    assert seeding.stable(0, "item 3", "held out") == 5806260250908981596
    assert seeding.stable("0", "item 3\0held out") == 5806260250908981596  # parts are joined by a null byte
    assert seeding.choose(7, 2, "item", 5) == seeding.stable(7, 2, "item", "caption") % 5


def test_a_sample_depends_on_ids_purpose_and_seed_alone() -> None:
    ids = [f"item {i}" for i in range(8)]
    drawn = seeding.sample(ids, 4, "gallery", 3)
    assert drawn == [6, 1, 4, 7]
    assert drawn == sorted(range(8), key=lambda row: seeding.stable(3, ids[row], "gallery"))[:4]
    assert [ids[row] for row in drawn] == [
        ids[::-1][row] for row in seeding.sample(ids[::-1], 4, "gallery", 3)
    ]
    assert seeding.sample(ids, None, "gallery", 3)[:4] == drawn
    assert sorted(seeding.sample(ids, 9, "gallery", 3)) == list(range(8))
    assert seeding.sample(ids, 4, "alike", 3) != drawn
    assert seeding.sample(ids, 4, "gallery", 4) != drawn
    assert seeding.sample([], 4, "gallery") == []


def test_without_a_seed_the_purpose_comes_first() -> None:
    ids = [f"item {i}" for i in range(8)]
    expected = sorted(range(8), key=lambda row: seeding.stable("examples", ids[row]))[:3]
    assert seeding.sample(ids, 3, "examples") == expected
