"""Tar shards: every sample is an item or counted, whatever its key, and a broken archive ends in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from domainclip.data.cards import Card
from tests.fuzz import corpora, shards
from tests.fuzz.corpora import NAME, Reading, plain_rows  # noqa: F401
from tests.fuzz.oracle import CANARY, Room

MakeRoom = Callable[[str], Room]
pytestmark = pytest.mark.usefixtures("plain_rows")
_OPTIONS = st.sampled_from([{}, {}, {"streaming": True}])


def _read(room: Room, shard: shards.Shard, options: dict[str, Any]) -> Reading | None:
    Path("part-000.tar").write_bytes(shard.data)
    return corpora.observe(
        room, Card(reader="webdataset", options=options, max_unusable=0), "part-000.tar", shard
    )


def test_correct_shards(room: MakeRoom) -> None:
    here = room("tar shards, correct")

    @here.each(0.02, shard=shards.correct(), options=_OPTIONS)
    def _(shard: shards.Shard, options: dict[str, Any]) -> None:
        if (reading := _read(here, shard, options)) is None:
            return
        here.quarantined += len(reading.unusable)
        lost = {f"{CANARY}{number:03d}" for number in shard.numbers} - reading.names()
        # The source of some unusable samples is their place in the shard.
        placed = [one for one in reading.unusable if "#offset" in one.source]
        here.require(
            len(lost) <= len(placed), "silent loss", "a sample is neither an item nor unusable", shard
        )
        here.require(
            not any(map(NAME.search, corpora.captions(reading))),
            "silent loss",
            "a caption holds another key",
            shard,
        )


def test_broken_shards(room: MakeRoom) -> None:
    here = room("tar shards, broken")

    @here.each(0.03, shard=shards.BROKEN, options=_OPTIONS)
    def _(shard: shards.Shard, options: dict[str, Any]) -> None:
        if (reading := _read(here, shard, options)) is not None:
            here.quarantined += len(reading.unusable)
            here.require(bool(reading.items or reading.unusable), "silent loss", "nothing was read", shard)
