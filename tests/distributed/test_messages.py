"""Messages between processes go from host to host, also where tensors go from device to device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from domainclip.distributed import collectives


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A world of one process, which is enough to see which group a message takes.

    No group outlives the test: a process forked from this one would wait for ever for threads of the group.
    """
    monkeypatch.setattr(collectives, "_groups", {})
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_messages_never_take_the_group_of_the_devices(
    world: None, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    groups: list[Any] = []

    def watched(function: Any) -> Any:
        return lambda *args, group=None, **kwargs: (
            groups.append(group),
            function(*args, group=group, **kwargs),
        )[1]

    for name in ("all_reduce", "all_gather_object"):
        monkeypatch.setattr(dist, name, watched(getattr(dist, name)))
    real = dist.get_backend
    monkeypatch.setattr(dist, "get_backend", lambda group=None: backend if group is None else real(group))
    assert collectives.max_over_processes(-7) == -7
    assert collectives.gather_objects({"a": 1}) == [{"a": 1}]
    assert collectives.on_first_process(lambda: "done") == "done"
    messages = [group for group in groups if group is not collectives._gloo_group("keep alive")]
    assert len(messages) == 3
    if backend == "gloo":
        assert messages == [None] * 3
        return
    (group,) = set(messages)  # one group, made once
    assert group not in (None, dist.group.WORLD)
    assert real(group) == "gloo"
