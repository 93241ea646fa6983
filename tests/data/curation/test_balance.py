"""The head is cut, the tail stays: MetaCLIP's rule by hand."""

from __future__ import annotations

from collections import Counter

import pytest

from domainclip.data.curation.balance import Balance
from domainclip.errors import DataError
from domainclip.seeding import stable
from tests.data.curation.curation_inputs import items

LABELS = [["common"]] * 900 + [["common", "rare"]] * 10 + [["rare"]] * 10 + [[]] * 5


def test_common_is_cut_to_about_most_and_rare_stays_whole() -> None:
    before = items([[str(i)] for i in range(len(LABELS))], LABELS)
    after = Balance(max_per_class=100)(before)
    counts = Counter(label for row in after["labels"][:] for label in row)
    assert counts["rare"] == 20  # all of them, also those that are common too
    assert sum(row == [] for row in after["labels"][:]) == 5
    # 900 draws with probability 100 / 910: 98.9 expected, standard deviation 9.4; and the ten with both.
    alone = sum(row == ["common"] for row in after["labels"][:])
    assert abs(alone - 98.9) < 4 * 9.4
    by_hand = [id for id, row in zip(before["id"][:], LABELS, strict=True)
               if row == ["common"] and stable(0, "balance", id) / 2**64 < 100 / 910]  # fmt: skip
    assert [
        id for id, row in zip(after["id"][:], after["labels"][:], strict=True) if row == ["common"]
    ] == by_hand


def test_another_seed_keeps_others_and_the_same_seed_the_same() -> None:
    before = items([[str(i)] for i in range(len(LABELS))], LABELS)
    one, again, other = (Balance(max_per_class=100, seed=seed)(before)["id"][:] for seed in (0, 0, 1))
    assert one == again
    assert one != other
    assert one == sorted(one, key=int)  # the order stays


def test_nothing_above_the_bound_changes_nothing() -> None:
    before = items([["a"], ["b"]], [["x"], ["y"]])
    assert Balance(max_per_class=1)(before)["id"][:] == ["0", "1"]


def test_a_corpus_without_labels_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        Balance(max_per_class=1)(items([["a"]]))
    assert str(caught.value) == (
        "curation.balance: no training item has a label: name columns.labels in the card"
    )
