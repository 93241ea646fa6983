"""Everyday captions: different, whole, the same on every day, and of every list."""

from __future__ import annotations

import re

import numpy as np
import pytest

from domainclip.data.text import everyday_captions as module
from domainclip.data.text.everyday_captions import everyday_captions


def test_captions_are_a_pure_function_of_count_and_seed() -> None:
    first = everyday_captions(300, 5)
    assert first == everyday_captions(300, 5)
    assert first[:20] == everyday_captions(20, 5)  # more of them begin alike
    assert first != everyday_captions(300, 6)
    assert len(set(first)) == 300


def test_every_place_is_filled_from_its_list(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = {"forms": ["{who} {does}."], "who": ["a {colour} dog"], "colour": ["red"], "does": ["runs"]}
    monkeypatch.setattr(module, "_lists", lambda: lists)
    assert everyday_captions(1, 0) == ["a red dog runs."]


def test_the_lists_hold_texts_and_no_unknown_place() -> None:
    lists = module._lists()
    for name, entries in lists.items():
        assert all(isinstance(entry, str) for entry in entries), name  # no YAML number, date or "yes"
        assert {place for entry in entries for place in re.findall(r"\{([^}]+)\}", entry)} <= set(lists)
    used = {
        place for entries in lists.values() for entry in entries for place in re.findall(r"\{(.+?)\}", entry)
    }
    assert used == set(lists) - {"forms"}


def test_captions_are_as_long_as_captions_are() -> None:
    lengths = [len(text.split()) for text in everyday_captions(1000, 0)]
    assert 5 <= np.median(lengths) <= 12
    assert max(lengths) < 25
